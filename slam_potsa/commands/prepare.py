"""`slam-potsa prepare KIND`: make or check manifests."""

from __future__ import annotations

import argparse
from pathlib import Path

from slam_potsa.files import alone

PATH, FLAG = {"type": Path}, {"action": "store_true"}
FOLDER = {**PATH, "metavar": "FOLDER"}


def add(commands) -> None:
    prepare = commands.add_parser("prepare", help="make or check manifests")
    kinds = prepare.add_subparsers(required=True, metavar="KIND", dest="kind")
    _add_check(kinds)
    _add_asterisk(kinds)
    _add_announcements(kinds)
    _add_fleurs(kinds)
    _add_covost2(kinds)
    _add_convert(kinds)


def _kind(kinds, name: str, command, help: str, description: str | None = None):
    """The `add_argument` of a kind; what is not given on the line keeps the function's default."""
    options = {"description": description, "argument_default": argparse.SUPPRESS}
    parser = kinds.add_parser(name, help=help, **options)
    parser.set_defaults(command=command)
    return parser.add_argument


def _add_check(kinds) -> None:
    add = _kind(kinds, "check", _check, "check a manifest and its recordings")
    add("path", metavar="manifest", **PATH)
    add("--no-audio", dest="audio", action="store_false", help="do not open the recordings")


def _add_asterisk(kinds) -> None:
    add = _kind(kinds, "asterisk", _make, "five languages of real telephone prompts")
    add("output", **PATH)
    add("--from", dest="from_dir", help="folder of downloaded packages", **PATH)


def _add_announcements(kinds) -> None:
    told = "Write train, pairs, dev, test and test_new_voices.jsonl: dates, times, amounts and "
    told += "counts, said by eight recorded voices, each sentence in all languages."
    named = "parallel announcements in five languages, put together from real prompts"
    add = _kind(kinds, "announcements", _make, named, told)
    add("output", **PATH)
    packages = "folder of the .deb files, or of what they unpack to; default: fetch them"
    add("--from", dest="from_dir", help=packages, **FOLDER)
    codes, number = {"nargs": "+", "metavar": "CODE"}, {"type": int, "metavar": "SENTENCES"}
    add("--heard", help="languages of train (default en es ru)", **codes)
    add("--unheard", help="languages that train does not have (default fr it)", **codes)
    add("--train", help="of train (default 500)", **number)
    pairs = "of pairs: all languages, the unheard ones without text (default 320)"
    add("--pairs", help=pairs, **number)
    add("--dev", help="of dev (default 60)", **number)
    add("--test", help="of test and test_new_voices (default 150)", **number)
    add("--clauses", type=int, choices=(1, 2, 3), help="of a sentence at most (default 3)")
    add("--seed", type=int, help="of sentences and pauses (default 0)")
    add("--replace", help="take the place of another data set in OUTPUT", **FLAG)


def _add_fleurs(kinds) -> None:
    told = "Write train, dev, test and zero_shot.jsonl of FLEURS."
    named = "FLEURS: 102 languages, n-way parallel"
    add = _kind(kinds, "fleurs", _make, named, told)
    folder = "folder of FLEURS, with or without its data/"
    add("source", nargs="?", default=None, help=folder, **PATH)
    add("output", **PATH)
    add("--hub", help="instead of SOURCE: fetch what is needed from the hub", **FLAG)
    add("--revision", help="of the data set on the hub")
    codes = {"metavar": "CODES"}
    add("--train-languages", help="default, the paper's: en,ja,es,ko,ru", **codes)
    add("--zero-shot", help="default, the paper's: fr,de,kea,ceb,ast,ky; none: no others", **codes)
    add("--target", help="translate into this language (default zh)")
    add("--min-seconds", type=float, help="drop shorter ones of train (default 1)")
    add("--max-seconds", type=float, help="drop longer ones of train; of others 30 (default 30)")
    rate = "drop recordings of train this far from the language's usual rate of speech; 0: none "
    add("--rate-deviations", type=float, help=rate + "(default 5)")
    add("--workers", type=int, help="threads; default: one a core")
    add("--replace", help="take the place of another data set in OUTPUT", **FLAG)


def _add_covost2(kinds) -> None:
    told = "Write train.jsonl, dev.jsonl and test.jsonl from CoVoST2's TSV and Common Voice 4's "
    told += "clips, which are read as they are. Interrupt and repeat as you like."
    named = "CoVoST2 (speech of Common Voice 4, translations)"
    add = _kind(kinds, "covost2", _make, named, told)
    voice = "Common Voice's folder of the spoken language: clips/ and validated.tsv"
    add("--common-voice", dest="common_voice_dir", required=True, help=voice, **FOLDER)
    add("--tsv", required=True, metavar="FILE", help="covost_v2.en_zh-CN.tsv, as released", **PATH)
    add("--output", required=True, **FOLDER)
    add("--replace", help="take the place of another data set in OUTPUT", **FLAG)
    splits = "CoVoST2's splits that become train; default: train,train_covost, as its own script; "
    splits += "train: Common Voice's own split only"
    add("--train-splits", type=lambda text: text.split(","), metavar="NAMES", help=splits)
    audio = "full: decode every clip once (default); none: trust them, durations stay unknown"
    add("--check-audio", choices=("full", "none"), help=audio)


def _add_convert(kinds) -> None:
    told = (
        "Make the manifest OUT of IN. What rows do not say is filled in by options, or asked for. "
    )
    told += "Relative audio paths are re-based."
    named = "manifests from the files of SLAM-LLM, CoT-ST, LLM-SRT, NeMo, ms-swift, Lhotse"
    add = _kind(kinds, "convert", _make, named, told)
    add("source", metavar="IN", **PATH)
    add("output", metavar="OUT", **PATH)
    formats = "manifest (default), slam_llm, cot_st, llm_srt, nemo, ms_swift, lhotse"
    add("--from", dest="source_format", metavar="FORMAT", help=f"of IN: {formats}")
    add("--language", help="spoken language of rows that do not say it")
    target = "language of the translations, for rows that do not say it; where a format has one "
    add("--target-language", help=target + "text, it makes that text the translation")
    sentence = "what tells sentences apart, for formats that do not say it: equal transcripts or "
    sentence += "targets, the key (no two alike), or the file's name"
    add("--sentence-id", choices=("transcript", "target", "key", "audio"), help=sentence)
    root = "what relative audio paths of IN are relative to (default: its folder)"
    add("--audio-root", help=root, **FOLDER)


def _check(args) -> None:
    from slam_potsa.data.manifest import check_manifest

    print(check_manifest(**_options(args)).table())


def _make(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    kinds = {**DATA_SOURCES, "convert": "slam_potsa.data.convert:convert"}
    make = resolve(kinds, args.kind, "data source")
    file = args.kind == "convert"  # its output is one; the others' a folder
    held, name = (args.output.parent, args.output.name) if file else (args.output, "")
    with alone(held, "is preparing", prefix=name):
        print(make(**_options(args)).summary)


def _options(args) -> dict:
    """What the kind's own function takes."""
    return {k: v for k, v in vars(args).items() if k not in ("command", "name", "kind")}
