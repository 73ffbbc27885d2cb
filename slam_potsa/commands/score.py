"""`slam-potsa score`, and `slam-potsa table`: the papers' tables with our runs in them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Origin, Prediction, read_predictions, read_texts
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation import compare
from slam_potsa.evaluation.presets import PRESETS, find_preset
from slam_potsa.evaluation.scores import score, seed_means, seeds_text
from slam_potsa.files import atomic_write

EXAMPLES = """examples:
  slam-potsa score RUN/test_predictions.jsonl --seen en ko --zero-shot fr
  slam-potsa score RUN/test_predictions.jsonl --preset potsa --dump texts
  slam-potsa score SYSTEM/test_predictions.jsonl --baseline OTHER/test_predictions.jsonl --test ar
  slam-potsa score RUN/seed*/test_predictions.jsonl
  slam-potsa score DECODE_LOG_pred --manifest test.jsonl
  slam-potsa score hypotheses.txt --references references.txt --target-language zh
"""


def add(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="BLEU and chrF of a predictions.jsonl, with intervals, guards and signatures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_score)
    files = {"nargs": "+", "type": Path}
    add = parser.add_argument
    several = "<decode_log>_predictions.jsonl, or SLAM-LLM's _pred; several: one system's seeds"
    add("predictions", **files, help=several)
    add("--seen", nargs="*", default=[], help="languages heard in training")
    add("--zero-shot", nargs="*", default=[], help="languages never heard")
    add("--bootstrap", type=int, default=1000, help="resamples of the interval")
    add("--json", type=Path, help="write the table here too")
    files_of = "write text files for sacrebleu and COMET (docs/evaluation.md)"
    add("--dump", type=Path, metavar="FOLDER", help=files_of)
    add("--preset", help=f"a project's way of scoring: {', '.join(PRESETS)}")
    add = parser.add_argument_group("of SLAM-LLM's _pred files and plain text").add_argument
    add("--manifest", type=Path, help="what was decoded: tells the languages, by key or line")
    add("--target-language", default="", help="the language of the texts")
    add("--language", default="", help="the spoken language")
    add("--references", type=Path, help="plain text, a line each, as the predictions then are")
    add = parser.add_argument_group("what it is held against").add_argument
    add("--baseline", **files, default=[], help="one file, or one for each file")
    tests = "bs: paired bootstrap, ar: randomisation"
    add("--test", choices=tuple(compare.TESTS), default="bs", help=tests)
    add("--samples", type=int, help="of the test; default: bs 1000, ar 10000")
    no_blind = "leave out the blind control, NAME_blind_predictions.jsonl beside each file"
    add("--no-blind", action="store_true", help=no_blind)

    parser = commands.add_parser("table", help="the papers' tables, filled in from runs")
    parser.set_defaults(command=_table)
    add = parser.add_argument
    numbers = (1, 2, 3, *(f"{paper}-{n}" for paper in ("ai-sta", "part") for n in (2, 3, 4)))
    add("number", type=lambda text: int(text) if text.isdecimal() else text, choices=numbers)
    add("runs", nargs="*", type=Path, metavar="RUN", help="run directories, or folders of them")
    preset = "whose way of scoring, as `score` has them (default: the paper's)"
    add("--preset", help=preset)
    add("--bootstrap", type=int, default=1000, help="resamples of the paired tests; 0: none")
    add("--json", type=Path, metavar="FILE", help="write the table here too")


def _table(args) -> None:
    from slam_potsa.evaluation.paper import PAPER_TABLES, fill_table

    convention = find_preset(args.preset or PAPER_TABLES[args.number].preset)
    filled = fill_table(args.number, args.runs, convention=convention, bootstrap=args.bootstrap)
    print(filled.text())
    _write_json(args.json, asdict(filled))


def _score(args) -> None:
    convention, files = find_preset(args.preset), _read(args)
    groups = {"seen": args.seen, "zero_shot": args.zero_shot}
    options = {name: getattr(args, name) for name in ("bootstrap", "test", "samples")}
    several, parts, tables = len(files) > 1, [], {}
    for number, (path, file) in enumerate(files.items(), start=1):
        if args.dump:
            folder = args.dump / str(number) if several else args.dump
            compare.dump(folder, compare.corpora(file["predictions"], **groups))
        table = tables[str(path)] = score(**file, **groups, **options, convention=convention)
        parts.append(f"{path}\n{table.text()}" if several else table.text())
    content = [{"file": path, **table.as_dict()} for path, table in tables.items()]
    seeds = seed_means(list(tables.values())) if several else {}
    means = {metric: {row: asdict(m) for row, m in rows.items()} for metric, rows in seeds.items()}
    parts += [seeds_text(seeds)] if several else []
    parts += [f"preset {convention.name}: {convention.note}"] if convention.name else []
    print("\n\n".join(parts))
    _write_json(args.json, {"preset": args.preset, "files": content, "seeds": means})


def _read(args) -> dict[Path, dict[str, Sequence[Prediction]]]:
    """File -> its predictions, baseline and blind control; all that does not fit at once."""
    problems, count = [], len(args.predictions)
    if len(args.baseline) not in (0, 1, count):
        told = f"found {len(args.baseline)} files for {count} of predictions"
        problems.append(f"--baseline: {told}; expected one, or one for each")
    if len({path.resolve() for path in args.predictions}) < count:
        problems.append("the same prediction file is given twice; expected one for each seed")
    read: dict[Path | None, Sequence[Prediction]] = {None: ()}
    origin = Origin(args.target_language, args.language, args.manifest, args.references)
    for path in (*args.predictions, *args.baseline):
        with collecting(problems):
            is_text = args.references or path.name.endswith("_pred")
            read[path] = read_texts(path, origin) if is_text else read_predictions(path)
    refuse(problems)
    baselines = args.baseline * (count if len(args.baseline) == 1 else 1)
    files: dict[Path, dict[str, Sequence[Prediction]]] = {}
    for path, baseline in zip_longest(args.predictions, baselines):
        files[path] = {"predictions": read[path], "baseline": read[baseline]}
        with collecting(problems, baseline):
            if baseline:
                compare.match(read[baseline], read[path])
        with collecting(problems, "blind control (--no-blind leaves it out)"):
            files[path]["blind"] = () if args.no_blind else compare.find_blind(path, read[path])
    same = compare.same_test_problems({str(path): read[path] for path in files})
    refuse([*problems, *(f"files of one system's seeds must be one test: {text}" for text in same)])
    return files


def _write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    if path:
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
