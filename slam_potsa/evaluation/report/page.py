"""The page: page.html.j2 with its style and script, filled with what was collected."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from slam_potsa.errors import InputError
from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import differences_text
from slam_potsa.evaluation.analysis_figures import draw
from slam_potsa.evaluation.figures import Bar, Series
from slam_potsa.evaluation.report import tables
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.report.media import GAP, Players, marked
from slam_potsa.evaluation.scores import ScoreRow
from slam_potsa.files import atomic_write

Rows = Mapping[str, Mapping[str, ScoreRow]]  # corpus -> run -> its scores


def write_page(path: str | Path, report: Report) -> Path:
    """Write the page to `path`, whole or not at all; return the path."""
    atomic_write(path, render(report))
    return Path(path)


def render(report: Report) -> str:
    """The page as HTML text. Raises InputError without runs, or with two runs of one name."""
    names = [run.name for run in report.runs]
    if not names or len(set(names)) < len(names):
        raise InputError(f"runs: found {names}, expected at least one, each with its own name")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html.j2").render(
        report=report,
        runs=report.runs,
        request=report.request,
        title=report.request.title or f"slam_potsa: {', '.join(names)}",
        names=names,
        tables=tables,
        figures=figures,
        players=Players(),
        marked=marked,
        gap=GAP,
        bars=bars,
        curves=curves,
        layer_curves=layer_curves,
        groups=_groups(report),
        tests=[_test(report, test) for test in report.tests],
        terms=_terms(report.runs),
        analyses=list(_analyses(report.runs)),
        samples=[(test, *row) for test in report.tests for row in report.samples(test)],
        worst=list(_worst(report.runs)),
        commands=_commands(report),
    )
    return page.strip() + "\n"


def bars(rows: Rows, metric: str) -> dict[str, list[Bar | None]]:
    """run -> a bar a corpus, of "bleu" or "chrf"."""
    runs = dict.fromkeys(run for found in rows.values() for run in found)
    scores = {
        run: [getattr(found.get(run), metric, None) for found in rows.values()] for run in runs
    }
    return {
        run: [score and Bar(score.value, score.low, score.high) for score in found]
        for run, found in scores.items()
    }


def curves(runs: Sequence[Run], key: str, suffix: str = "", dash: int = 0) -> list[Series]:
    """One line a run that has this key; a run keeps its colour in all charts."""
    found = [(place, run.name + suffix, *run.series(key)) for place, run in enumerate(runs)]
    return [Series(name, *line, place, dash) for place, name, *line in found if line[0]]


def layer_curves(run: Run, kind: str, name: str, suffix: str = "", dash: int = 0) -> list[Series]:
    """One line a layer that has values over time; a layer keeps its colour in all charts."""
    found = [(layer, *run.series(f"{kind}/{layer}/{name}")) for layer in run.layers(kind)]
    return [
        Series(f"layer {layer}{suffix}", *line, layer - 1, dash)
        for layer, *line in found
        if len(line[0]) > 1
    ]


def _groups(report: Report) -> Rows:
    """The headline's scores, for its picture."""
    places = [(test, group) for test in report.tests for group in report.groups]
    width = 64 // max(1, len(places))  # letters below a group of bars
    found = {
        textwrap.fill(f"{report.tests[test]}: {group}", width): {
            run.name: row for run in report.runs if (row := tables.group_scores(run, test, group))
        }
        for test, group in places
    }
    return {name: rows for name, rows in found.items() if rows}


def _test(report: Report, test: str) -> dict[str, Any]:
    """The scores of one test: its corpora, groups of languages before languages."""
    scored = {run.name: run.scored[test] for run in report.runs if test in run.scored}
    rows: dict[str, dict[str, ScoreRow]] = {}
    for run, each in scored.items():
        for row in sorted(each.rows, key=lambda row: row.kind == "language"):
            rows.setdefault(row.name, {})[run] = row
    found: dict[str, Any] = {"name": test, "title": report.tests[test], "scored": scored}
    for kind in ("pooled", "mean", "language"):
        found[kind] = {
            name: of_runs
            for name, of_runs in rows.items()
            if next(iter(of_runs.values())).kind == kind
        }
    return found | {"rows": rows}


def _terms(runs: Sequence[Run]) -> list[str]:
    """The alignment terms whose costs were recorded."""
    keys = {key for run in runs for line in run.metrics for key in line}
    return sorted(key.removesuffix("/matched") for key in keys if key.endswith("/matched"))


def _analyses(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Figures and measures of every run that was analysed, each against the first of them."""
    analysed = [run for run in runs if run.analysis]
    for run in analysed[1:] or analysed:
        found = [run.analysis, *(first.analysis for first in analysed[:1] if first is not run)]
        texts = [each.text() for each in found[::-1]]
        try:
            texts += [differences_text(*found)] if found[1:] else []
        except InputError as error:  # of other recordings, or with other settings
            texts.append(f"not compared with {analysed[0].name}: {error}")
            found = [run.analysis]
        yield {"title": run.name, "figures": draw(*found), "text": "\n\n".join(texts)}


def _worst(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    """(run, test, worst row, its prediction)."""
    for run in runs:
        for test, found in run.scored.items():
            items = {item.key: item for item in run.tests[test]}
            yield from ((run.name, test, row, items[row.key]) for row in found.worst)


def _commands(report: Report) -> list[str]:
    """Those that decoded, that analysed, and that make this page."""
    made = [record.argv for run in report.runs for record in run.records.values()]
    found = [argv for argv in (*made, report.request.argv) if argv]
    return [shlex.join([re.sub(".*/(?=slam-potsa$)", "", argv[0]), *argv[1:]]) for argv in found]
