"""`slam-potsa`: prepare | features | bias | decode | translate | score | where."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slam_potsa.errors import InputError

EXIT_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Wrong input prints one message and gives exit code 2."""
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slam-potsa", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_encoding(commands)
    _add_decoding(commands)

    score = commands.add_parser("score", help="BLEU and chrF of a predictions.jsonl")
    score.add_argument("predictions", help="<decode_log>_predictions.jsonl")
    score.add_argument("--seen", nargs="*", default=[], help="languages heard in training")
    score.add_argument("--zero-shot", nargs="*", default=[], help="languages never heard")
    score.add_argument("--bootstrap", type=int, default=1000, help="resamples of the interval")
    score.add_argument("--json", type=Path, help="write the table here too")
    score.set_defaults(command=_score)

    where = commands.add_parser("where", help="paths for SLAM-LLM's configuration")
    where.add_argument("what", choices=("model", "dataset", "conf"))
    where.set_defaults(command=_where)
    return parser


def _add_prepare(commands) -> None:
    prepare = commands.add_parser("prepare", help="make or check manifests")
    kinds = prepare.add_subparsers(required=True, metavar="KIND")
    check = kinds.add_parser("check", help="check a manifest and its recordings")
    check.add_argument("manifest", type=Path)
    check.add_argument("--no-audio", action="store_true", help="do not open the recordings")
    check.set_defaults(command=_prepare_check)
    asterisk = kinds.add_parser("asterisk", help="five languages of real telephone prompts")
    asterisk.add_argument("output", type=Path)
    asterisk.add_argument(
        "--from", dest="from_dir", type=Path, help="folder of downloaded packages"
    )
    asterisk.set_defaults(command=_prepare_asterisk)


def _add_encoding(commands) -> None:
    for name, help, command in (
        ("features", "store encoder outputs of manifests", _features),
        ("bias", "estimate language biases (eq. 1) of untranscribed speech", _bias),
    ):
        parser = commands.add_parser(name, help=help)
        parser.add_argument("manifests", nargs="+", type=Path)
        parser.add_argument("--encoder", required=True, help="Whisper: folder or hub name")
        parser.add_argument("--window", choices=("30s", "trimmed"), default="30s")
        parser.add_argument("--output", required=True, type=Path)
        parser.set_defaults(command=command)
    parser.add_argument("--features", type=Path, help="feature store to read instead of audio")
    parser.add_argument("--languages", nargs="*", help="only these")


def _add_decoding(commands) -> None:
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


def _prepare_check(args) -> None:
    from slam_potsa.data.manifest import check_manifest

    print(check_manifest(args.manifest, audio=not args.no_audio).table())


def _prepare_asterisk(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    build = resolve(DATA_SOURCES, "asterisk", "data source")
    print(build(args.output, from_dir=args.from_dir).summary)


def _features(args) -> None:
    from slam_potsa.engine.encode import store_features
    from slam_potsa.model.encoder import load_encoder

    store = store_features(load_encoder(args.encoder, args.window), args.manifests, args.output)
    print(f"{args.output}: {len(store)} utterances")


def _bias(args) -> None:
    from slam_potsa.data.feature_store import FeatureStore
    from slam_potsa.engine.encode import estimate_bias
    from slam_potsa.model.encoder import load_encoder

    encoder = load_encoder(args.encoder, args.window)
    store = FeatureStore.open(args.features, encoder.fingerprint()) if args.features else None
    bias = estimate_bias(args.manifests, encoder, features=store, languages=args.languages)
    bias.save(args.output)
    print(f"{args.output}: biases of {', '.join(bias.languages)}")


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


def _score(args) -> None:
    import json

    from slam_potsa.data.predictions import read_predictions
    from slam_potsa.evaluation.scores import score
    from slam_potsa.files import atomic_write

    table = score(
        read_predictions(args.predictions),
        seen=args.seen,
        zero_shot=args.zero_shot,
        bootstrap=args.bootstrap,
    )
    print(table.text())
    if args.json:
        atomic_write(args.json, json.dumps(table.as_dict(), indent=1, ensure_ascii=False) + "\n")


def _where(args) -> None:
    from slam_potsa.engine.launch import conf_dir

    if args.what == "conf":
        print(conf_dir())
        return
    from slam_potsa.engine.slam_llm import plugin_file

    print(plugin_file(args.what))


if __name__ == "__main__":
    sys.exit(main())
