"""`slam-potsa score`, and `slam-potsa table`: the papers' tables with our runs in them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.compare import TESTS, check_blind, find_blind, match, same_test_problems
from slam_potsa.evaluation.dump import dump
from slam_potsa.evaluation.metrics import Comet, check_sources, load_comet
from slam_potsa.evaluation.presets import PRESETS, SPBLEU, Convention, ErrorRate, find_preset
from slam_potsa.evaluation.scores import score, seed_means, seeds_text
from slam_potsa.files import atomic_write

WORST = 10  # rows kept in the JSON where no number is asked for
EXAMPLES = """examples:
  slam-potsa score RUN/test_predictions.jsonl --seen en ko --zero-shot fr
  slam-potsa score RUN/test_predictions.jsonl --preset llm-srt --comet Unbabel/wmt22-comet-da
  slam-potsa score SYSTEM/test_predictions.jsonl --baseline OTHER/test_predictions.jsonl --test ar
  slam-potsa score RUN/seed*/test_predictions.jsonl
  slam-potsa score RUN/test_predictions.jsonl --dump scores --show-commands
"""
BLIND = (
    "the blind control's file; default: NAME_blind_predictions.jsonl beside "
    "NAME_predictions.jsonl, where it fits"
)
COMMANDS = "print the command that computes each number from the files of --dump"
SEVERAL = "<decode_log>_predictions.jsonl; several are the seeds of one system"


def add(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="BLEU and chrF of a predictions.jsonl, with intervals, guards and signatures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_score)
    either, files = argparse.BooleanOptionalAction, {"nargs": "+", "type": Path}
    add = parser.add_argument
    add("predictions", **files, help=SEVERAL)
    add("--seen", nargs="*", default=[], help="languages heard in training")
    add("--zero-shot", nargs="*", default=[], help="languages never heard")
    add("--bootstrap", type=int, default=1000, help="resamples of the interval")
    add("--json", type=Path, help="write the table here too")
    add("--worst", type=int, metavar="N", help="list the N rows of lowest chrF")
    add("--dump", type=Path, metavar="FOLDER", help="text files and commands.sh")
    add("--show-commands", action="store_true", help=COMMANDS)
    add = parser.add_argument_group("what is measured").add_argument
    add("--preset", help=f"a project's: {', '.join(PRESETS)}")
    add("--spbleu", action=either, help="BLEU of flores200 pieces")
    add("--wer", action=either, help="WER or CER of rows that transcribe")
    add("--comet", metavar="MODEL", help="name, folder or checkpoint")
    add = parser.add_argument_group("what it is held against").add_argument
    add("--baseline", **files, default=[], help="one file, or one for each file")
    tests = "bs: paired bootstrap, ar: randomisation"
    add("--test", choices=tuple(TESTS), default="bs", help=tests)
    add("--samples", type=int, help="of the test; default: bs 1000, ar 10000")
    add("--blind", **files, default=[], help=BLIND)
    add("--no-blind", action="store_true", help="look for no blind control")

    parser = commands.add_parser("table", help="Tables 1 to 3 of the paper, filled in from runs")
    parser.set_defaults(command=_table)
    add = parser.add_argument
    add("number", type=int, choices=(1, 2, 3))
    add("runs", nargs="*", type=Path, metavar="RUN", help="run directories, or folders of them")
    preset = "whose way of scoring, as `score` has them (default potsa)"
    add("--preset", default="potsa", help=preset)
    resamples = "resamples of paired tests and intervals; 0: off"
    add("--bootstrap", type=int, default=1000, help=resamples)
    add("--partial", action="store_true", help="a missing prediction file leaves a gap")
    add("--markdown", action="store_true", help="print Markdown instead of text")
    add("--json", type=Path, metavar="FILE", help="write the table here too")


def _table(args) -> None:
    from slam_potsa.evaluation.paper import fill_table

    convention, progress = find_preset(args.preset), bool(args.runs)
    options = {"bootstrap": args.bootstrap, "partial": args.partial, "progress": progress}
    filled = fill_table(args.number, args.runs, convention=convention, **options)
    print(filled.markdown() if args.markdown else filled.text())
    _write_json(args.json, asdict(filled))


def _score(args) -> None:
    convention = _convention(args)
    _check(args)
    files = _read(args)
    comet = _comet(args, files)
    names = ("seen", "zero_shot", "bootstrap", "test", "samples")
    options = {"convention": convention} | {name: getattr(args, name) for name in names}
    worst = WORST if args.worst is None else args.worst
    several, commands, parts, tables = len(files) > 1, [], [], {}
    for number, (path, file) in enumerate(files.items(), start=1):
        if args.dump:
            folder = args.dump / str(number) if several else args.dump
            commands.append(dump(folder, **file, **options, comet=args.comet or ""))
        table = tables[str(path)] = score(**file, **options, comet=comet, worst=worst)
        parts.append(f"{path}\n{table.text()}" if several else table.text())
        parts += [table.worst_text()] if args.worst else []
    found: Any = [{"file": path, **table.as_dict()} for path, table in tables.items()]
    content = found[0]
    if several:
        seeds = seed_means(list(tables.values()))
        parts.append(seeds_text(seeds))
        content = {"files": found, "seeds": [asdict(seed) for seed in seeds]}
    print("\n\n".join([*parts, *_notes(args, convention)]))
    if args.show_commands:
        print("\n" + "\n".join(commands))
    _write_json(args.json, {"preset": args.preset, **content})


def _convention(args) -> Convention:
    """The preset's, or the default, with what --spbleu and --wer add and take away."""
    convention = find_preset(args.preset)
    if args.spbleu is not None:
        others = {k: v for k, v in convention.more_bleu.items() if k not in SPBLEU}
        convention = replace(convention, more_bleu=others | (SPBLEU if args.spbleu else {}))
    if args.wer is not None:
        rate = convention.error_rate or ErrorRate()
        convention = replace(convention, error_rate=rate if args.wer else None)
    return convention


def _check(args) -> None:
    """Raises InputError with every option that does not fit."""
    problems, count = [], len(args.predictions)
    for name, least in (("bootstrap", 0), ("samples", 1), ("worst", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            problems.append(f"--{name}: found {value}, expected {least} or more")
    for name, fitting in (("baseline", (0, 1, count)), ("blind", (0, count))):
        given = len(getattr(args, name))
        if given not in fitting:
            problems.append(f"--{name}: found {given} files for {count} of predictions")
    if args.show_commands and not args.dump:
        problems.append("--show-commands needs the files that its commands read: add --dump FOLDER")
    if args.blind and args.no_blind:
        problems.append("--blind and --no-blind: expected one of them")
    if len({path.resolve() for path in args.predictions}) < count:
        problems.append("the same prediction file is given twice; expected one for each seed")
    refuse(problems)


def _read(args) -> dict[Path, dict[str, Sequence[Prediction]]]:
    """File -> its predictions, baseline and blind control; all that does not fit at once."""
    problems: list[str] = []
    read: dict[Path | None, Sequence[Prediction]] = {None: ()}
    for path in (*args.predictions, *args.baseline, *args.blind):
        with collecting(problems):
            read[path] = read_predictions(path)
    refuse(problems)
    baselines = args.baseline * (len(args.predictions) if len(args.baseline) == 1 else 1)
    files: dict[Path, dict[str, Sequence[Prediction]]] = {}
    for path, baseline, blind in zip_longest(args.predictions, baselines, args.blind):
        files[path] = {"predictions": read[path], "baseline": read[baseline], "blind": read[blind]}
        with collecting(problems, baseline):
            if baseline:
                match(read[baseline], read[path])
        with collecting(problems, blind):
            if blind:
                check_blind(read[blind], read[path])
        if not args.blind and not args.no_blind:
            files[path]["blind"], reasons = find_blind(path, read[path])
            for reason in reasons:
                told = "found beside the predictions and left out as blind control (--no-blind: do"
                print(f"warning: {reason}: {told} not look for one)", file=sys.stderr)
    same = same_test_problems({str(path): read[path] for path in files})
    refuse([*problems, *(f"files of one system's seeds must be one test: {text}" for text in same)])
    return files


def _comet(args, files: Mapping[Path, Mapping[str, Sequence[Prediction]]]) -> Comet | None:
    """The model; None where none is asked for, or where --dump hands COMET over to commands."""
    if not args.comet:
        return None
    for file in files.values():
        check_sources(file["predictions"])
    return None if args.dump and not find_spec("comet") else load_comet(args.comet)


def _notes(args, convention: Convention) -> Iterator[str]:
    """What the preset follows, and what was not computed."""
    name, model = convention.name, convention.comet
    if name:
        yield f"preset {name}: {convention.note}"
    if model and not args.comet:
        yield f"not computed: COMET, which {name} reports; add --comet {model}"
    if args.comet and not find_spec("comet"):
        yield "not computed: COMET is not installed here; run its commands of --dump"


def _write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    if path:
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
