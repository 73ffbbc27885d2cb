"""`slam-potsa decode | translate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slam_potsa.errors import InputError


def add(commands) -> None:
    decode = commands.add_parser("decode", help="translate a manifest with a trained run")
    decode.add_argument("run", type=Path, help="output_dir of the training")
    decode.add_argument("manifest", type=Path)
    decode.add_argument("--output", help="prefix of the files; default: RUN/<manifest's name>")
    decode.add_argument("--beams", type=int, help="beam width; default: the run's")
    decode.set_defaults(command=_decode)

    translate = commands.add_parser("translate", help="translate recordings with a trained run")
    translate.add_argument("recordings", nargs="+", type=Path)
    translate.add_argument("--language", required=True, help="spoken language, such as fr")
    translate.add_argument("--target-language", default="en")
    translate.add_argument("--run", type=Path, default=Path("outputs/demo/potsa"))
    translate.set_defaults(command=_translate)


def _decode(args) -> None:
    from slam_potsa.engine.decode import Translator, load_run, write_decoded
    from slam_potsa.engine.launch import quieten

    quieten()
    config = load_run(args.run)
    if args.beams:
        config.decode.num_beams = args.beams
    prefix = args.output or str(args.run / args.manifest.stem)
    write_decoded(prefix, Translator(config).decode(args.manifest))
    print(f"{prefix}_predictions.jsonl")


def _translate(args) -> None:
    from slam_potsa.engine.decode import Translator, load_run
    from slam_potsa.engine.launch import quieten

    quieten()
    _check_speech(args.recordings, args.language)
    translator = Translator(load_run(args.run))
    texts = translator.translate(args.recordings, args.language, args.target_language)
    for path, text in zip(args.recordings, texts, strict=True):
        print(f"{path}\t{text}" if len(texts) > 1 else text)


def _check_speech(recordings: Sequence[Path], language: str) -> None:
    """Raise InputError with all that is wrong, before a model is loaded."""
    from slam_potsa.data.audio import measure_audio
    from slam_potsa.data.languages import language_id

    problems = []
    for check, value in [(language_id, language), *((measure_audio, str(p)) for p in recordings)]:
        try:
            check(value)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
