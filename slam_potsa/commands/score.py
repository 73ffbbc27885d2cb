"""`slam-potsa score | table | report`: of what lies in files; no model is loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Origin, Prediction, read_predictions, read_texts
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation import compare, scores
from slam_potsa.evaluation.figures import require
from slam_potsa.evaluation.text_metrics import find_preset
from slam_potsa.files import write_json

Files = Mapping[Path, Mapping[str, Sequence[Prediction]]]


def table(
    number: str,
    runs: Sequence[Path] = (),
    preset: str | None = None,
    json: Path | None = None,
) -> None:
    from slam_potsa.evaluation.paper import PAPER_TABLES, fill_table

    which = int(number) if number.isdecimal() else number
    convention = find_preset(preset or PAPER_TABLES[which].preset)
    filled = fill_table(which, runs, convention)
    print(filled.text())
    if json:
        write_json(json, asdict(filled))


def score(
    predictions: Sequence[Path],
    baseline: Sequence[Path] = (),
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    joined: Sequence[str] = (),
    preset: str | None = None,
    no_blind: bool = False,
    dump: Path | None = None,
    json: Path | None = None,
    manifest: Path | None = None,
    references: Path | None = None,
    target_language: str = "",
    language: str = "",
    **options: Any,
) -> None:
    convention = find_preset(preset)
    origin = Origin(target_language, language, manifest, references)
    files = _read(predictions, baseline, origin, blind=not no_blind)
    groups = {"seen": seen, "zero_shot": zero_shot, "joined": joined}
    several, parts, tables = len(files) > 1, [], {}
    for number, (path, file) in enumerate(files.items(), start=1):
        if dump:
            folder = dump / str(number) if several else dump
            compare.dump(folder, compare.corpora(file["predictions"], **groups))
        found = scores.score(**file, **groups, **options, convention=convention)
        tables[str(path)] = found
        parts.append(f"{path}\n{found.text()}" if several else found.text())
    content = [{"file": path, **asdict(found)} for path, found in tables.items()]
    seeds = scores.seed_means(list(tables.values())) if several else {}
    means = {metric: {row: asdict(m) for row, m in rows.items()} for metric, rows in seeds.items()}
    parts += [scores.seeds_text(seeds)] if several else []
    parts += [f"preset {convention.name}: {convention.note}"] if convention.name else []
    print("\n\n".join(parts))
    if json:
        write_json(json, {"preset": preset, "files": content, "seeds": means})


def _read(
    predictions: Sequence[Path], baseline: Sequence[Path], origin: Origin, blind: bool
) -> Files:
    """File -> its predictions, baseline and blind control; all that does not fit at once."""
    problems, count = [], len(predictions)
    if len(baseline) not in (0, 1, count):
        told = f"found {len(baseline)} files for {count} of predictions"
        problems.append(f"--baseline: {told}; expected one, or one for each")
    if len({path.resolve() for path in predictions}) < count:
        problems.append("the same prediction file is given twice; expected one for each seed")
    read: dict[Path | None, Sequence[Prediction]] = {None: ()}
    for path in (*predictions, *baseline):
        with collecting(problems):
            is_text = origin.references or path.name.endswith("_pred")
            read[path] = read_texts(path, origin) if is_text else read_predictions(path)
    refuse(problems)
    files: dict[Path, dict[str, Sequence[Prediction]]] = {}
    baselines = [*baseline] * (count if len(baseline) == 1 else 1)
    for path, other in zip_longest(predictions, baselines):
        files[path] = {"predictions": read[path], "baseline": read[other]}
        with collecting(problems, other):
            if other:
                compare.match(read[other], read[path])
        with collecting(problems, "blind control (--no-blind leaves it out)"):
            files[path]["blind"] = compare.find_blind(path, read[path]) if blind else ()
    same = compare.same_test_problems({str(path): read[path] for path in files})
    refuse([*problems, *(f"files of one system's seeds must be one test: {text}" for text in same)])
    return files


def report(
    runs: Sequence[Path],
    output: Path = Path("report.html"),
    manifest: Path | None = None,
    target_language: str = "",
    **asked: Any,
) -> None:
    require("jinja2")
    from slam_potsa.evaluation.report import collect, page

    origin = Origin(target_language, manifest=manifest)
    argv = ["slam-potsa", *sys.argv[1:]]
    found = collect.collect(runs, collect.Request(**asked, origin=origin, argv=argv))
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{page.headline_text(found)}\n\n{page.write_page(output, found)}")
