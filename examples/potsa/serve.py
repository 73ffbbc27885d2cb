"""`slam-potsa serve RUN`: a page to speak to, and OpenAI's endpoint of audio translations, here."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from transformers import TextStreamer, WhisperForConditionalGeneration

from slam_potsa.commands.decode import target_of
from slam_potsa.data.audio import load_audio, log_mel, open_audio
from slam_potsa.data.languages import LANGUAGES, language_id
from slam_potsa.data.pieces import Piece, cut, translated, written
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.share import languages
from slam_potsa.errors import InputError
from slam_potsa.model.encoder import ENCODER, encoder_config
from slam_potsa.model.llm import from_pretrained, llm_dtype

MEGABYTES = 200  # of an upload
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
DETECT = "detect"  # in place of a language


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="slam-potsa serve", description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory, an exported folder, a hub's name")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--minutes", type=float, default=60, help="longest recording (default 60)")
    parser.add_argument("--target-language", help="default: the run's, if it is one")
    parser.add_argument("--beams", type=int, help="beam width; 1: shown as it is decoded")
    args = parser.parse_args(arguments)
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(f"serve needs {error.name}: pip install slam-potsa[serve]") from None
    quieten()
    config = load_run(args.run)
    config.train_config.num_workers_dataloader = 0  # started anew for every request
    config.decode.num_beams = args.beams or config.decode.num_beams
    config.decode.num_return_sequences = 1  # one is shown
    target, spoken = args.target_language or target_of(args.run, config), languages(args.run)
    translator = Translator(config)
    head = language_head(config.model_config.encoder_path_hf, translator.device)
    app = application(translator, spoken["spoken"], target, args.minutes, head)
    print(f"http://{args.host}:{args.port}  (and POST /v1/audio/translations)", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")


def language_head(path: str, device: Any = "cpu") -> Callable[[str], str] | None:
    """By which a recording of 30 s or less tells its language: Whisper's own, of many languages.

    None where the encoder's folder has no decoder, or one that knows English alone.
    """
    if "WhisperForConditionalGeneration" not in (encoder_config(path).architectures or ()):
        return None
    how = {"dtype": llm_dtype("auto")}
    whisper = from_pretrained(WhisperForConditionalGeneration, path, ENCODER, **how).eval()
    whisper.to(device)
    marks = getattr(whisper.generation_config, "lang_to_id", None) or {}
    codes = {number: mark.strip("<|>") for mark, number in marks.items()}

    def spoken_in(recording: str) -> str:
        mel = log_mel(load_audio(recording), whisper.config.num_mel_bins)
        return codes[whisper.detect_language(mel.T[None].to(device, whisper.dtype)).item()]

    return spoken_in if codes else None


class Words(TextStreamer):
    """Told of each word of a greedy answer when it is decoded."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], Any]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.tell = tell

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.tell(text + " " * stream_end)


def application(
    translator: Any,
    spoken: list[str],
    target: str,
    minutes: float = 60,
    head: Callable[[str], str] | None = None,
) -> Any:
    """The FastAPI application, `/` the page; `spoken` are the languages heard in training.

    Whoever asks, one recording is translated at a time. `head`: see `language_head`.
    """
    import gradio
    from fastapi import FastAPI, File, Form, Request, UploadFile
    from fastapi.responses import JSONResponse, PlainTextResponse

    app, turn = FastAPI(title="slam_potsa"), Lock()
    greedy = translator.config.decode.num_beams == 1

    def hear(
        path: str | Path, language: str, into: str, tell: Callable[[str], Any] | None = None
    ) -> tuple[str, list[Piece]]:
        """The language and the translation, of which `tell` hears as it is decoded."""
        asked = head is not None and language == DETECT
        for code in filter(None, (language * (not asked), into)):
            language_id(code)
        with open_audio(Path(path)) as file:
            if (long := file.frames / file.samplerate / 60) > minutes:
                raise InputError(f"{long:.1f} minutes long, expected {minutes:g} or less")
        with turn, TemporaryDirectory() as folder:
            pieces = cut(path, folder)
            language = head(pieces[0].audio) if asked else language
            if tell is None or not greedy:
                how = partial(translator.translate, language=language, target_language=into)
                return language, translated([pieces], how)[0]
            words, found = Words(translator.tokenizer, tell), []
            for piece in pieces:
                (text,) = translator.translate([piece.audio], language, into, streamer=words)
                found.append(replace(piece, text=text))
            return language, found

    def refused(message: object, status: int = 400) -> JSONResponse:
        error = {"message": str(message), "type": "invalid_request_error"}
        return JSONResponse({"error": error}, status)

    @app.middleware("http")
    async def sized(request: Request, answer):
        if int(request.headers.get("content-length") or 0) > MEGABYTES << 20:
            return refused(f"expected {MEGABYTES} MB or less", 413)
        return await answer(request)

    @app.post("/v1/audio/translations")
    def translations(
        file: UploadFile = File(),  # noqa: B008
        model: str = Form(""),
        language: str = Form(DETECT if head else spoken[0] if len(spoken) == 1 else ""),
        target_language: str = Form(target),
        response_format: str = Form("json"),
    ):
        if not language or response_format not in FORMATS:
            codes, forms = ", ".join(spoken), ", ".join(FORMATS)
            return refused(f"expected language={codes} or another, response_format={forms}")
        with TemporaryDirectory() as folder:
            path = Path(folder, Path(file.filename or "speech").name)
            path.write_bytes(file.file.read())
            try:
                language, pieces = hear(path, language, target_language)
            except InputError as error:
                return refused(str(error).replace(f"{folder}/", ""))
        text = written(pieces, "text")
        if response_format in ("json", "verbose_json"):
            rows = [{"id": n, "start": p.start, "end": p.end, "text": p.text}
                    for n, p in enumerate(pieces)]  # fmt: skip
            more = {"language": language, "duration": pieces[-1].end, "segments": rows}
            return {"text": text, **(more if response_format == "verbose_json" else {})}
        return PlainTextResponse(written(pieces, response_format))

    def shown(path: str | None, language: str, into: str) -> Iterator[Any]:
        if not path:
            return
        told: Queue[str | None] = Queue()
        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(hear, path, language, into, told.put)
            job.add_done_callback(lambda _: told.put(None))
            text = ""
            while (more := told.get()) is not None:
                text += more
                yield text
        try:
            language, pieces = job.result()
        except InputError as error:
            raise gradio.Error(str(error)) from None
        label = f"Translation from {names.get(language, language)}"
        yield gradio.Textbox(written(pieces, "text"), label=label)

    names = {known.code: known.name for known in LANGUAGES}
    heard = [(DETECT, DETECT)] * bool(head)
    heard += [(names.get(code, code), code) for code in spoken]
    mark = " (not heard in training)" if spoken else ""  # of an imported one nobody knows
    others = [(names[code] + mark, code) for code in names if code not in spoken]
    with gradio.Blocks(title="slam_potsa", analytics_enabled=False) as page:
        speech = gradio.Audio(sources=["microphone", "upload"], type="filepath", label="Speech")
        choice = gradio.Dropdown(
            heard + others, value=heard[0][1] if heard else None, label="Spoken language"
        )
        into = gradio.Textbox(target, label="Translated into", max_lines=1)
        when = "as it is decoded" if greedy else "when it is whole: beam search (serve --beams 1)"
        text = gradio.Textbox(label="Translation", info=when, lines=4)
        button = gradio.Button("Translate", variant="primary")
        button.click(shown, [speech, choice, into], text, concurrency_limit=1)
    theme = gradio.themes.Default(font=["system-ui"], font_mono=["monospace"])  # fetches none
    limits = {"max_file_size": f"{MEGABYTES}mb", "theme": theme, "show_error": True}
    return gradio.mount_gradio_app(app, page, path="/", **limits)


if __name__ == "__main__":
    main(sys.argv[1:])
