"""`slam-potsa score`, and `slam-potsa table`: the papers' tables with our runs in them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.compare import TESTS, find_blind, match, same_test_problems
from slam_potsa.evaluation.dump import dump
from slam_potsa.evaluation.presets import PRESETS, SPBLEU, Convention, ErrorRate, find_preset
from slam_potsa.evaluation.scores import score, seed_means, seeds_text
from slam_potsa.files import atomic_write

EXAMPLES = """examples:
  slam-potsa score RUN/test_predictions.jsonl --seen en ko --zero-shot fr
  slam-potsa score RUN/test_predictions.jsonl --preset llm-srt --dump scores
  slam-potsa score SYSTEM/test_predictions.jsonl --baseline OTHER/test_predictions.jsonl --test ar
  slam-potsa score RUN/seed*/test_predictions.jsonl
"""


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
    several = "<decode_log>_predictions.jsonl; several are the seeds of one system"
    add("predictions", **files, help=several)
    add("--seen", nargs="*", default=[], help="languages heard in training")
    add("--zero-shot", nargs="*", default=[], help="languages never heard")
    add("--bootstrap", type=int, default=1000, help="resamples of the interval")
    add("--json", type=Path, help="write the table here too")
    add("--worst", type=int, default=0, metavar="N", help="list the N rows of lowest chrF")
    files_of = "text files, and in commands.sh the sacrebleu and comet-score commands"
    add("--dump", type=Path, metavar="FOLDER", help=files_of)
    add = parser.add_argument_group("what is measured").add_argument
    add("--preset", help=f"a project's: {', '.join(PRESETS)}")
    add("--spbleu", action=either, help="BLEU of flores200 pieces")
    add("--wer", action=either, help="WER or CER of rows that transcribe")
    add = parser.add_argument_group("what it is held against").add_argument
    add("--baseline", **files, default=[], help="one file, or one for each file")
    tests = "bs: paired bootstrap, ar: randomisation"
    add("--test", choices=tuple(TESTS), default="bs", help=tests)
    add("--samples", type=int, help="of the test; default: bs 1000, ar 10000")
    no_blind = "leave out the blind control, NAME_blind_predictions.jsonl beside each file"
    add("--no-blind", action="store_true", help=no_blind)

    parser = commands.add_parser("table", help="Tables 1 to 3 of the paper, filled in from runs")
    parser.set_defaults(command=_table)
    add = parser.add_argument
    add("number", type=int, choices=(1, 2, 3))
    add("runs", nargs="*", type=Path, metavar="RUN", help="run directories, or folders of them")
    preset = "whose way of scoring, as `score` has them (default potsa)"
    add("--preset", default="potsa", help=preset)
    resamples = "resamples of paired tests and intervals; 0: off"
    add("--bootstrap", type=int, default=1000, help=resamples)
    add("--json", type=Path, metavar="FILE", help="write the table here too")


def _table(args) -> None:
    from slam_potsa.evaluation.paper import fill_table

    convention = find_preset(args.preset)
    filled = fill_table(args.number, args.runs, convention=convention, bootstrap=args.bootstrap)
    print(filled.text())
    _write_json(args.json, asdict(filled))


def _score(args) -> None:
    convention = _convention(args)
    _check(args)
    files = _read(args)
    names = ("seen", "zero_shot", "bootstrap", "test", "samples")
    options = {"convention": convention} | {name: getattr(args, name) for name in names}
    several, parts, tables = len(files) > 1, [], {}
    for number, (path, file) in enumerate(files.items(), start=1):
        if args.dump:
            dump(args.dump / str(number) if several else args.dump, **file, **options)
        table = tables[str(path)] = score(**file, **options, worst=args.worst)
        parts.append(f"{path}\n{table.text()}" if several else table.text())
        parts += [table.worst_text()] if args.worst else []
    found: Any = [{"file": path, **table.as_dict()} for path, table in tables.items()]
    content = found[0]
    if several:
        seeds = seed_means(list(tables.values()))
        parts.append(seeds_text(seeds))
        content = {"files": found, "seeds": [asdict(seed) for seed in seeds]}
    parts += [f"preset {convention.name}: {convention.note}"] if convention.name else []
    print("\n\n".join(parts))
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
    if len(args.baseline) not in (0, 1, count):
        told = f"found {len(args.baseline)} files for {count} of predictions"
        problems.append(f"--baseline: {told}; expected one, or one for each")
    if len({path.resolve() for path in args.predictions}) < count:
        problems.append("the same prediction file is given twice; expected one for each seed")
    refuse(problems)


def _read(args) -> dict[Path, dict[str, Sequence[Prediction]]]:
    """File -> its predictions, baseline and blind control; all that does not fit at once."""
    problems: list[str] = []
    read: dict[Path | None, Sequence[Prediction]] = {None: ()}
    for path in (*args.predictions, *args.baseline):
        with collecting(problems):
            read[path] = read_predictions(path)
    refuse(problems)
    baselines = args.baseline * (len(args.predictions) if len(args.baseline) == 1 else 1)
    files: dict[Path, dict[str, Sequence[Prediction]]] = {}
    for path, baseline in zip_longest(args.predictions, baselines):
        files[path] = {"predictions": read[path], "baseline": read[baseline]}
        with collecting(problems, baseline):
            if baseline:
                match(read[baseline], read[path])
        with collecting(problems, "blind control (--no-blind leaves it out)"):
            files[path]["blind"] = () if args.no_blind else find_blind(path, read[path])
    same = same_test_problems({str(path): read[path] for path in files})
    refuse([*problems, *(f"files of one system's seeds must be one test: {text}" for text in same)])
    return files


def _write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    if path:
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
