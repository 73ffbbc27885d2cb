"""The page: page.html.j2 with its style and script, filled with what was collected."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import differences
from slam_potsa.evaluation.analysis_figures import draw
from slam_potsa.evaluation.figures import Series
from slam_potsa.evaluation.report import tables
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.report.media import Players, marked
from slam_potsa.evaluation.scores import ScoreRow, over_seeds
from slam_potsa.evaluation.text_metrics import Score
from slam_potsa.files import atomic_write

Rows = Mapping[str, Mapping[str, ScoreRow]]  # corpus -> run -> its scores


def write_page(path: str | Path, report: Report) -> Path:
    """Write the page to `path`, whole or not at all; return the path."""
    atomic_write(path, render(report))
    return Path(path)


def render(report: Report) -> str:
    """The page as HTML text."""
    names = [run.name for run in report.runs]
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
        bars=bars,
        changes=changes(report) if report.runs[1:] else ([], {}),
        curves=curves,
        layer_curves=layer_curves,
        rows_of=rows_of,
        groups=_groups(report),
        samples=list(_samples(report)),
        analyses=list(_analyses(report.runs)),
        commands=_commands(report),
    )
    return page.strip() + "\n"


def rows_of(report: Report, test: str, *kinds: str) -> Rows:
    """The scores of a test: those of its corpora that are "pooled", "mean" or "language"."""
    found: dict[str, dict[str, ScoreRow]] = {}
    for kind in kinds:
        for run, scored in report.scores(test).items():
            for row in scored.rows:
                if row.kind == kind:
                    found.setdefault(row.name, {})[run] = row
    return found


def bars(rows: Rows, metric: str) -> tuple[list[str], dict[str, list[Any]]]:
    """(names of the corpora, run -> a bar each), of "bleu" or "chrf"."""
    runs = dict.fromkeys(run for found in rows.values() for run in found)
    return list(rows), {
        run: [getattr(found.get(run), metric, None) for found in rows.values()] for run in runs
    }


def changes(report: Report) -> tuple[list[str], dict[str, list[Any]]]:
    """(languages, system -> a bar each): BLEU less the first system's, the mean over seeds."""
    first, *others = tables.systems(report.runs)
    found: dict[str, dict[str, Score]] = {}
    for test, title in report.tests.items():
        for language, rows in rows_of(report, test, "language").items():
            bleu = {run: row.bleu.value for run, row in rows.items()}
            for own in others:
                both = [(a.name, b.name) for a, b in zip(first, own, strict=False)]
                if values := [bleu[b] - bleu[a] for a, b in both if a in bleu and b in bleu]:
                    mean = over_seeds(values)
                    place = found.setdefault(textwrap.fill(f"{title}: {language}", 22), {})
                    place[own[0].name] = Score(mean.value, *mean.ends)
    names = [own[0].name for own in (first, *others)]  # the first for its colour
    return list(found), {name: [of.get(name) for of in found.values()] for name in names}


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
    found: dict[str, dict[str, ScoreRow]] = {}
    for test, title in report.tests.items():
        for group in report.groups:
            name = textwrap.fill(f"{title}: {group}", 22)  # letters below a group of bars
            for run in report.runs:
                if row := tables.group_scores(run, test, group):
                    found.setdefault(name, {})[run.name] = row
    return found


def _samples(report: Report) -> Iterator[tuple[str, Prediction, dict[str, str]]]:
    """(test, row, run -> its text) of the first recordings of every language, by order alone."""
    for test in report.tests:
        runs = [run for run in report.runs if test in run.tests]
        texts = {run.name: {item.key: item.prediction for item in run.tests[test]} for run in runs}
        taken = Counter[str]()
        for item in runs[0].tests[test]:
            taken[item.language] += 1
            if taken[item.language] <= report.request.samples:
                found = {run: own[item.key] for run, own in texts.items() if item.key in own}
                yield test, item, found


def _analyses(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Figures and measures of every run that was analysed, each against the first of them."""
    found = [replace(run.analysis, name=run.name) for run in runs if run.analysis]
    for analysis in found[1:] or found:
        baseline = found[0] if found[1:] else None
        texts = [each.text() for each in (baseline, analysis) if each]
        if baseline and (why := differences(analysis, baseline)):
            texts, baseline = [*texts, f"not compared: {why}"], None
        drawn = draw(analysis, baseline)
        yield {"title": analysis.name, "figures": drawn, "text": "\n\n".join(texts)}


def _commands(report: Report) -> list[str]:
    """Those that decoded, that analysed, and that make this page."""
    made = [record.argv for run in report.runs for record in run.records.values()]
    found = [argv for argv in (*made, report.request.argv) if argv]
    return [shlex.join([re.sub(".*/(?=slam-potsa$)", "", argv[0]), *argv[1:]]) for argv in found]
