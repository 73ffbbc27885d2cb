"""`slam-potsa prepare KIND`: make or check manifests."""

from __future__ import annotations

import argparse
from pathlib import Path

FORMATS = ("manifest", "slam_llm", "cot_st", "llm_srt", "nemo", "ms_swift", "lhotse")
FLEURS_EXAMPLE = """\
example:
  slam-potsa prepare fleurs corpora/fleurs data/fleurs train_languages=potsa zero_shot=potsa
  slam-potsa prepare fleurs data/fleurs --hub --train-languages en,ko --zero-shot fr --target zh
Every --option VALUE may also be written option=VALUE."""


class _Parser(argparse.ArgumentParser):
    """Reads `train_languages=potsa` as `--train-languages=potsa`, for the options there are."""

    def parse_known_args(self, args=None, namespace=None):
        known = {name[2:].replace("-", "_"): name for name in self._option_string_actions}
        given = []
        for word in args or ():
            key, separator, value = word.partition("=")
            given.append(f"{known[key]}={value}" if separator and key in known else word)
        return super().parse_known_args(given, namespace)


def add(commands) -> None:
    prepare = commands.add_parser("prepare", help="make or check manifests")
    kinds = prepare.add_subparsers(required=True, metavar="KIND", parser_class=_Parser)
    check = kinds.add_parser("check", help="check a manifest and its recordings")
    check.add_argument("manifest", type=Path)
    check.add_argument("--no-audio", action="store_true", help="do not open the recordings")
    check.set_defaults(command=_check)
    asterisk = kinds.add_parser("asterisk", help="five languages of real telephone prompts")
    asterisk.add_argument("output", type=Path)
    given = {"dest": "from_dir", "type": Path, "help": "folder of downloaded packages"}
    asterisk.add_argument("--from", **given)
    asterisk.set_defaults(command=_build, source_name="asterisk")
    _add_announcements(kinds)
    _add_fleurs(kinds)
    _add_covost2(kinds)
    _add_convert(kinds)


def _add_announcements(kinds) -> None:
    announcements = kinds.add_parser(
        "announcements",
        help="parallel announcements in five languages, put together from real prompts",
        description="Write train, pairs, dev, test and test_new_voices.jsonl: dates, times, "
        "amounts and counts, said by eight recorded voices, each sentence in all languages.",
    )
    add, number = announcements.add_argument, {"type": int, "metavar": "SENTENCES"}
    add("output", type=Path)
    packages = "folder of the .deb files, or of what they unpack to; default: fetch them"
    add("--from", dest="from_dir", type=Path, metavar="FOLDER", help=packages)
    codes = {"nargs": "+", "metavar": "CODE"}
    add("--heard", default=["en", "es", "ru"], help="languages of train", **codes)
    add("--unheard", default=["fr", "it"], help="languages that train does not have", **codes)
    add("--train", default=500, help="of train (default 500)", **number)
    pairs = "of pairs: all languages, the unheard ones without text (default 320)"
    add("--pairs", default=320, help=pairs, **number)
    add("--dev", default=60, help="of dev (default 60)", **number)
    add("--test", default=150, help="of test and test_new_voices (default 150)", **number)
    add("--seed", type=int, default=0, help="of sentences and pauses")
    add("--replace", action="store_true", help="take the place of another data set in OUTPUT")
    announcements.set_defaults(command=_build, source_name="announcements")


def _add_fleurs(kinds) -> None:
    fleurs = kinds.add_parser(
        "fleurs",
        help="FLEURS: 102 languages, n-way parallel",
        description="Write train, dev, test and zero_shot.jsonl of FLEURS.",
        epilog=FLEURS_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, number, flag = fleurs.add_argument, {"type": float}, {"action": "store_true"}
    add("source", type=Path, nargs="?", help="folder of FLEURS, with or without its data/")
    add("output", type=Path)
    add("--hub", help="instead of SOURCE: fetch what is needed from the hub", **flag)
    add("--revision", help="of the data set on the hub")
    sets = {"train": "potsa (en,ja,es,ko,ru)", "zero": "potsa (fr,de,kea,ceb,ast,ky), none"}
    add("--train-languages", default="potsa", help=f"{sets['train']}, or a list of codes")
    add("--zero-shot", default="potsa", help=f"{sets['zero']}, or a list of codes")
    add("--target", default="cmn_hans_cn", help="translate into this language")
    keep = "keep recordings in the target language: they are their own translation"
    add("--keep-target-language", help=keep, **flag)
    add("--min-seconds", default=1.0, help="drop shorter ones of train", **number)
    add("--max-seconds", default=30.0, help="drop longer ones of train; of others 30", **number)
    rate = "drop recordings of train this far from the language's usual rate of speech; 0: none"
    add("--rate-deviations", default=5.0, help=rate, **number)
    truncated = "use what truncated archives still have, instead of refusing them"
    add("--allow-truncated", help=truncated, **flag)
    add("--workers", type=int, help="threads; default: one a core")
    add("--replace", help="take the place of another data set in OUTPUT", **flag)
    fleurs.set_defaults(command=_build, source_name="fleurs")


def _add_covost2(kinds) -> None:
    covost2 = kinds.add_parser(
        "covost2",
        help="CoVoST2 (speech of Common Voice 4, translations)",
        description="Write train.jsonl, dev.jsonl and test.jsonl from CoVoST2's TSVs and Common "
        "Voice 4's clips, which are read as they are. Interrupt and repeat as you like.",
    )
    add, folder = covost2.add_argument, {"type": Path, "metavar": "FOLDER"}
    voice = "Common Voice's folder of the spoken language: clips/ and validated.tsv"
    add("--common-voice", dest="common_voice_dir", required=True, help=voice, **folder)
    tsv = "covost_v2.en_zh-CN.tsv, or covost_v2.en_zh-CN.{train,dev,test}.tsv; with --view asr it "
    tsv += "may be left out: Common Voice's own splits"
    add("--tsv", type=Path, nargs="+", default=[], metavar="FILE", help=tsv)
    add("--output", required=True, **folder)
    view = "s2tt: transcript and translation (default); asr: transcript only"
    add("--view", choices=("s2tt", "asr"), default="s2tt", help=view)
    replace = "take the place of another data set in OUTPUT"
    add("--replace", action="store_true", help=replace)
    add("--language", help="spoken language, where no file name says it")
    add("--target-language", help="where no file name says it")
    add("--clips", help="the recordings, where they are not in clips/", **folder)
    splits = "CoVoST2's splits that become train; default: train,train_covost, as its own script; "
    splits += "train: Common Voice's own split only"
    names = {"type": _names, "default": ["train", "train_covost"], "metavar": "NAMES"}
    add("--train-splits", help=splits, **names)
    audio = "full: decode every clip once (default); none: trust them, durations stay unknown"
    add("--check-audio", choices=("full", "none"), default="full", help=audio)
    covost2.set_defaults(command=_build, source_name="covost2")


def _add_convert(kinds) -> None:
    convert = kinds.add_parser(
        "convert",
        help="manifests from and to SLAM-LLM, CoT-ST, LLM-SRT, NeMo, ms-swift, Lhotse",
        description="Convert IN to OUT. What a format does not hold is filled in by options, or "
        "reported. Relative audio paths are re-based.",
    )
    add, known = convert.add_argument, {"choices": FORMATS, "default": "manifest"}
    add("source", type=Path, metavar="IN")
    add("output", type=Path, metavar="OUT")
    given = f"of IN: {', '.join(FORMATS)} (default manifest)"
    add("--from", dest="source_format", metavar="FORMAT", help=given, **known)
    wanted = "of OUT, as above (default manifest)"
    add("--to", dest="output_format", metavar="FORMAT", help=wanted, **known)
    add("--language", help="spoken language of rows that do not say it")
    target = "language of the translations, for rows that do not say it; where a format has one "
    add("--target-language", help=target + "text, it makes that text the translation")
    sentence = "what tells sentences apart, for formats that do not say it: equal transcripts or "
    sentence += "targets, the key (no two alike), or the file's name"
    ids = ("transcript", "target", "key", "audio")
    add("--sentence-id", choices=ids, help=sentence)
    root = "what relative audio paths of IN are relative to (default: its folder)"
    add("--audio-root", type=Path, metavar="FOLDER", help=root)
    convert.set_defaults(command=_convert)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _check(args) -> None:
    from slam_potsa.data.manifest import check_manifest

    print(check_manifest(args.manifest, audio=not args.no_audio).table())


def _build(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    print(resolve(DATA_SOURCES, args.source_name, "data source")(**_options(args)).summary)


def _convert(args) -> None:
    from slam_potsa.data.convert import convert

    print(convert(**_options(args)).summary)


def _options(args) -> dict:
    """What the kind's own function takes."""
    return {k: v for k, v in vars(args).items() if k not in ("command", "name", "source_name")}
