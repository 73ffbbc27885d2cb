"""`slam-potsa serve RUN`: a page to speak to, and OpenAI's endpoint of audio translations, here."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Event, Lock
from typing import Any

from torch import Tensor
from transformers import TextStreamer, WhisperForConditionalGeneration

from slam_potsa.commands.decode import target_of
from slam_potsa.data.audio import load_audio, log_mel, open_audio
from slam_potsa.data.languages import LANGUAGES, language_id
from slam_potsa.data.pieces import Piece, cut, translated, written
from slam_potsa.data.predictions import Prediction
from slam_potsa.data.rows import Utterance
from slam_potsa.data.tasks import Reading, read_answer, task_to_decode
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.share import languages
from slam_potsa.errors import InputError
from slam_potsa.evaluation.activations import reading
from slam_potsa.evaluation.figures import reading_chart
from slam_potsa.model.encoder import ENCODER, encoder_config
from slam_potsa.model.llm import from_pretrained, llm_dtype

MEGABYTES = 200  # of an upload
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
DETECT = "detect"  # in place of a language
CSS = """.answers td { padding: 4px 12px 4px 0; vertical-align: top }
.note { opacity: .7; font-size: .9em }"""
SCORED = "Beside each: the score of beam search, by default the mean log probability of a token."
CAPTION = (
    "Where each speech token looked in the recording (first piece of a long one): the more colour, "
    "the more it looked there; a row of even colour looked everywhere alike. Attention of the "
    "Q-Former's last block that reads the speech, the mean of its heads. What the encoder says of "
    "a moment has heard what is around it."
)


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
    """Told of a greedy answer, as far as it goes, when another word of it is decoded."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], Any]):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.tell, self.text = tell, ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.text += text
        self.tell(self.text)


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
    data = translator.config.dataset_config
    writes = task_to_decode(data.tasks, data.test_task) != "asr"

    def hear(
        path: str | Path, language: str, into: str, one: Callable[..., Prediction] | None = None
    ) -> tuple[str, list[Piece]]:
        """The language and the translation of all pieces at once, or of one by one by `one`."""
        asked = head is not None and language == DETECT
        for code in [language] * (not asked) + [into] * writes:
            language_id(code)
        with open_audio(Path(path)) as file:
            if (long := file.frames / file.samplerate / 60) > minutes:
                more = "serve with more --minutes, or let `slam-potsa translate` read it"
                raise InputError(f"{long:.1f} minutes long, expected {minutes:g} or less: {more}")
        with turn, TemporaryDirectory() as folder:
            pieces = cut(path, folder)
            told = {"language": head(pieces[0].audio) if asked else language}
            told["target_language"] = into
            if one is None:
                found = translated([pieces], partial(translator.translate, **told))[0]
            else:
                found = [replace(piece, text=one(piece, **told).prediction) for piece in pieces]
            return told["language"], found

    def refused(message: object, status: int = 400) -> JSONResponse:
        error = {"message": str(message), "type": "invalid_request_error"}
        return JSONResponse({"error": error}, status)

    @app.middleware("http")
    async def sized(request: Request, answer):
        told = request.headers
        if (origin := told.get("origin")) and origin.partition("://")[2] != told.get("host"):
            return refused("another site's page may not ask", 403)
        if "transfer-encoding" in told or int(told.get("content-length", 0)) > MEGABYTES << 20:
            return refused(f"expected {MEGABYTES} MB or less: compress it, as mp3 or ogg", 413)
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
                return refused(without_folder(error, path))
        text = written(pieces, "text")
        if response_format in ("json", "verbose_json"):
            rows = [{"id": n, "start": p.start, "end": p.end, "text": p.text}
                    for n, p in enumerate(pieces)]  # fmt: skip
            more = {"language": language, "duration": pieces[-1].end, "segments": rows}
            return {"text": text, **(more if response_format == "verbose_json" else {})}
        return PlainTextResponse(written(pieces, response_format))

    theme = gradio.themes.Default(font=["system-ui"], font_mono=["monospace"])  # fetches none
    limits = {"max_file_size": f"{MEGABYTES}mb", "theme": theme, "css": CSS, "show_error": True}
    page = page_of(translator, hear, spoken, target, detects=head is not None)
    return gradio.mount_gradio_app(app, page, path="/", **limits)


def without_folder(error: InputError, path: str | Path) -> str:
    """What is wrong, without the folder that an upload lies in."""
    return str(error).replace(f"{Path(path).parent}/", "")


def page_of(
    translator: Any, hear: Callable[..., Any], spoken: list[str], target: str, detects: bool
) -> Any:
    """The page, whose answers grow; `hear` is `application`'s."""
    import gradio

    config, names = translator.config, {known.code: known.name for known in LANGUAGES}
    data, beams = config.dataset_config, config.decode.num_beams
    task = task_to_decode(data.tasks, data.test_task)
    kind = "Transcript" if task == "asr" else "Translation"

    def shown(path: str | None, language: str | None, into: str) -> Iterator[list[Any]]:
        """Transcript, translation, answers of the beam and picture, whenever there is more."""
        if not (path and language):
            missing = "choose the spoken language" if path else "record speech, or upload a file"
            raise gradio.Error(missing, print_exception=False)
        told: Queue[Any] = Queue()
        gone = Event()

        def one(piece: Piece, **languages: str) -> Prediction:
            if gone.is_set():
                raise InputError("whoever asked has gone")
            how = {"num_return_sequences": beams}
            if beams == 1:
                tell = partial(so_far, data, task, **languages)
                how["streamer"] = Words(translator.tokenizer, lambda text: told.put(tell(text)))
            with reading(translator.model.encoder_projector) as looks:
                (found,) = translator.predictions([piece.audio], **languages, **how)
            told.put((piece, found, looks))
            return found

        done, rows = [], []
        yield [""] * 4
        pool = ThreadPoolExecutor(1)
        try:
            job = pool.submit(hear, path, language, into, one)
            job.add_done_callback(lambda _: told.put(None))
            while (more := told.get()) is not None:
                if isinstance(more, Reading):
                    yield [*joined([*done, more]), gradio.skip(), gradio.skip()]
                    continue
                piece, found, looks = more
                picture = gradio.skip() if done else pictured(looks)
                done.append(Reading(found.prediction, found.heard))
                rows += [(piece, *answer) for answer in found.alternatives or ()]
                heard, text = joined(done)
                label = f"{kind} from {names.get(found.language, found.language)}"
                yield [heard, gradio.Textbox(text, label=label), listed(rows), picture]
            job.result()
        except InputError as error:
            message = escape(without_folder(error, path), quote=False)  # it is shown as HTML
            raise gradio.Error(message, print_exception=False) from None
        finally:  # a page that was closed is not waited for: the server would stand still
            gone.set()
            pool.shutdown(wait=False)

    known = [(DETECT, DETECT)] * detects + [(names.get(code, code), code) for code in spoken]
    mark = " (not heard in training)" if spoken else ""  # of an imported one nobody knows
    others = [(names[code] + mark, code) for code in names if code not in spoken]
    first = known[0][1] if known else None
    with gradio.Blocks(title="slam_potsa", analytics_enabled=False) as page:
        with gradio.Row():
            speech = gradio.Audio(
                sources=["microphone", "upload"],
                type="filepath",
                label="Speech",
                scale=2,
                buttons=["download"],  # none that shares it
            )
            with gradio.Column():
                choice = gradio.Dropdown(known + others, value=first, label="Spoken language")
                into = gradio.Textbox(
                    target, label="Translated into", max_lines=1, visible=task != "asr"
                )
                button = gradio.Button("Translate", variant="primary")
        with gradio.Row():
            with gradio.Column():
                transcript = gradio.Textbox(label="Transcript", lines=2, visible=task == "cot")
                whole = "a piece at a time (serve --beams 1: as it is decoded)"
                when = "as it is decoded" if beams == 1 else whole
                text = gradio.Textbox(label=kind, info=when, lines=4)
                with gradio.Accordion("Answers of the beam", open=False, visible=beams > 1):
                    answers = gradio.HTML(apply_default_css=False, max_height=320)
            picture = gradio.HTML(apply_default_css=False)
        outputs = [transcript, text, answers, picture]
        button.click(shown, [speech, choice, into], outputs, concurrency_limit=1)
    return page


def so_far(data: Any, task: str, text: str, language: str, target_language: str) -> Reading:
    """What a text that grows says: of cot the transcript, until the marker is there."""
    asked = Utterance("", None, language, "", target_language=target_language)
    found = read_answer(data, task, asked, text)
    return Reading("", found.text) if found.malformed else found


def joined(readings: Sequence[Reading]) -> list[str]:
    """What was heard, and its translation, of all pieces."""
    return [" ".join(r.heard or "" for r in readings), " ".join(r.text for r in readings)]


def listed(answers: Sequence[tuple[Piece, str, float]]) -> str:
    """The answers of the beam with their scores, of all pieces, as a table."""
    times = len({piece for piece, *_ in answers}) > 1
    cells = (
        [f"{piece.start:.1f} s"] * times + [f"{score:.3f}", escape(text)]
        for piece, text, score in answers
    )
    rows = "".join(f"<tr><td>{'<td>'.join(row)}" for row in cells)
    return f"<table class=answers>{rows}</table><p class=note>{SCORED}</p>"


def pictured(looks: Sequence[Tensor]) -> str:
    """Where the tokens of the one recording looked; nothing of a projector without queries."""
    if not looks:
        return ""
    chart = reading_chart(looks[0][0], title="Where in the recording each speech token looked")
    return f"<figure>{chart}<figcaption class=note>{CAPTION}</figcaption></figure>"


if __name__ == "__main__":
    main(sys.argv[1:])
