"""`slam-potsa serve RUN`: a page to speak to, and OpenAI's endpoint of audio translations, here."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

from slam_potsa.commands.decode import target_of
from slam_potsa.data.audio import open_audio
from slam_potsa.data.languages import LANGUAGES, language_id
from slam_potsa.data.pieces import cut, translated, written
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.share import languages
from slam_potsa.errors import InputError

MEGABYTES = 200  # of an upload
FORMATS = ("json", "text", "srt", "vtt", "verbose_json")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="slam-potsa serve", description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory, an exported folder, a hub's name")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    parser.add_argument("--minutes", type=float, default=60, help="longest recording (default 60)")
    parser.add_argument("--target-language", help="default: the run's, if it is one")
    args = parser.parse_args(arguments)
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise InputError(f"serve needs {error.name}: pip install slam-potsa[serve]") from None
    quieten()
    config = load_run(args.run)
    config.train_config.num_workers_dataloader = 0  # started anew for every request
    target = args.target_language or target_of(args.run, config)
    app = application(Translator(config), languages(args.run)["spoken"], target, args.minutes)
    print(f"http://{args.host}:{args.port}  (and POST /v1/audio/translations)", flush=True)
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning")


def application(translator: Any, spoken: list[str], target: str, minutes: float = 60) -> Any:
    """The FastAPI application, `/` the page; `spoken` are the languages heard in training.

    Whoever asks, one recording is translated at a time.
    """
    import gradio
    from fastapi import FastAPI, File, Form, Request, UploadFile
    from fastapi.responses import JSONResponse, PlainTextResponse

    app, turn = FastAPI(title="slam_potsa"), Lock()

    def hear(path: str | Path, language: str, into: str) -> list[Any]:
        for code in (language, into) if into else (language,):
            language_id(code)
        with open_audio(Path(path)) as file:
            if (long := file.frames / file.samplerate / 60) > minutes:
                raise InputError(f"{long:.1f} minutes long, expected {minutes:g} or less")
        with turn, TemporaryDirectory() as folder:
            found = [cut(path, folder)]
            return translated(found, lambda files: translator.translate(files, language, into))[0]

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
        language: str = Form(spoken[0] if len(spoken) == 1 else ""),
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
                pieces = hear(path, language, target_language)
            except InputError as error:
                return refused(str(error).replace(f"{folder}/", ""))
        text = written(pieces, "text")
        if response_format in ("json", "verbose_json"):
            rows = [{"id": n, "start": p.start, "end": p.end, "text": p.text}
                    for n, p in enumerate(pieces)]  # fmt: skip
            more = {"language": language, "duration": pieces[-1].end, "segments": rows}
            return {"text": text, **(more if response_format == "verbose_json" else {})}
        return PlainTextResponse(written(pieces, response_format))

    def shown(path: str | None, language: str, into: str) -> str:
        try:
            return written(hear(path, language, into), "text") if path else ""
        except InputError as error:
            raise gradio.Error(str(error)) from None

    names = {known.code: known.name for known in LANGUAGES}
    heard = [(names.get(code, code), code) for code in spoken]
    mark = " (not heard in training)" if spoken else ""  # of an imported one nobody knows
    others = [(names[code] + mark, code) for code in names if code not in spoken]
    with gradio.Blocks(title="slam_potsa", analytics_enabled=False) as page:
        speech = gradio.Audio(sources=["microphone", "upload"], type="filepath", label="Speech")
        choice = gradio.Dropdown(
            heard + others, value=(spoken or [None])[0], label="Spoken language"
        )
        into = gradio.Textbox(target, label="Translated into", max_lines=1)
        text = gradio.Textbox(label="Translation", lines=4)
        button = gradio.Button("Translate", variant="primary")
        button.click(shown, [speech, choice, into], text, concurrency_limit=1)
    theme = gradio.themes.Default(font=["system-ui"], font_mono=["monospace"])  # fetches none
    limits = {"max_file_size": f"{MEGABYTES}mb", "theme": theme, "show_error": True}
    return gradio.mount_gradio_app(app, page, path="/", **limits)


if __name__ == "__main__":
    main(sys.argv[1:])
