"""`slam-potsa prepare covost2`: CoVoST2 over Common Voice 4 to manifests."""

from __future__ import annotations

from pathlib import Path


def add_to(kinds) -> None:
    """Add `covost2` to the kinds of `slam-potsa prepare`."""
    parser = kinds.add_parser(
        "covost2",
        help="CoVoST2 (speech of Common Voice 4, translations)",
        description="Write train.jsonl, dev.jsonl and test.jsonl from CoVoST2's TSVs and Common "
        "Voice 4's clips, which are read as they are. Interrupt and repeat as you like.",
    )
    parser.add_argument(
        "--common-voice",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="Common Voice's folder of the spoken language: clips/ and validated.tsv",
    )
    parser.add_argument(
        "--tsv",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="covost_v2.en_zh-CN.tsv, or covost_v2.en_zh-CN.{train,dev,test}.tsv; with --view asr "
        "it may be left out: Common Voice's own splits",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--view",
        choices=("s2tt", "asr"),
        default="s2tt",
        help="s2tt: transcript and translation (default); asr: transcript only",
    )
    parser.add_argument(
        "--replace", action="store_true", help="take the place of another data set in OUTPUT"
    )
    parser.add_argument("--language", help="spoken language, where no file name says it")
    parser.add_argument("--target-language", help="where no file name says it")
    parser.add_argument(
        "--clips", type=Path, metavar="FOLDER", help="the recordings, where they are not in clips/"
    )
    parser.add_argument(
        "--train-splits",
        default="train,train_covost",
        metavar="NAMES",
        help="CoVoST2's splits that become train; default: train,train_covost, as its own script; "
        "train: Common Voice's own split only",
    )
    parser.add_argument(
        "--check-audio",
        choices=("full", "none"),
        default="full",
        help="full: decode every clip once (default); none: trust them, durations stay unknown",
    )
    parser.set_defaults(command=_prepare_covost2)


def _prepare_covost2(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    build = resolve(DATA_SOURCES, "covost2", "data source")
    corpus = build(
        args.output,
        common_voice_dir=args.common_voice,
        tsv=args.tsv,
        replace=args.replace,
        view=args.view,
        language=args.language,
        target_language=args.target_language,
        clips=args.clips,
        train_splits=[name.strip() for name in args.train_splits.split(",") if name.strip()],
        check_audio=args.check_audio,
    )
    print(corpus.summary)
