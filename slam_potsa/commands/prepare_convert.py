"""`slam-potsa prepare convert`: manifests from and to the files of other projects."""

from __future__ import annotations

from pathlib import Path

NAMES = ("manifest", "slam_llm", "cot_st", "llm_srt", "nemo", "ms_swift", "lhotse")


def add_to(kinds) -> None:
    """Add `convert` to the kinds of `slam-potsa prepare`."""
    parser = kinds.add_parser(
        "convert",
        help="manifests from and to SLAM-LLM, CoT-ST, LLM-SRT, NeMo, ms-swift, Lhotse",
        description="Convert IN to OUT. What a format does not hold is filled in by options, or "
        "reported. Relative audio paths are re-based.",
    )
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    names = {"choices": NAMES, "default": "manifest", "metavar": "FORMAT"}
    parser.add_argument(
        "--from",
        dest="source_format",
        help=f"of IN: {', '.join(NAMES)} (default manifest)",
        **names,
    )
    parser.add_argument(
        "--to", dest="output_format", help="of OUT, as above (default manifest)", **names
    )
    parser.add_argument("--language", help="spoken language of rows that do not say it")
    parser.add_argument(
        "--target-language",
        help="language of the translations, for rows that do not say it; where a format has one "
        "text, it makes that text the translation",
    )
    parser.add_argument(
        "--sentence-id",
        choices=("transcript", "target", "key", "audio"),
        help="what tells sentences apart, for formats that do not say it: equal transcripts or "
        "targets, the key (no two alike), or the file's name",
    )
    parser.add_argument(
        "--audio-root",
        type=Path,
        metavar="FOLDER",
        help="what relative audio paths of IN are relative to (default: its folder)",
    )
    parser.set_defaults(command=_prepare_convert)


def _prepare_convert(args) -> None:
    from slam_potsa.data.convert import convert

    conversion = convert(
        args.input,
        args.output,
        source_format=args.source_format,
        output_format=args.output_format,
        language=args.language,
        target_language=args.target_language,
        sentence_id=args.sentence_id,
        audio_root=args.audio_root,
    )
    print(conversion.summary)
