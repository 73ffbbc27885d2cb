"""The page: page.html.j2 with its style and script, filled with what was collected."""

from __future__ import annotations

import re
import shlex
import statistics
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
from slam_potsa.evaluation.scores import ScoreRow, ScoreTable
from slam_potsa.files import atomic_write

LOG_RANGE = 20  # values that span more than this factor are drawn on a logarithmic axis
Corpora = Sequence[Mapping[str, Any]]  # {"name": …, "systems": [{"run": …, "row": …, …}, …], …}


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
    environment.filters |= {"marked": marked, "duration": tables.duration}
    for function in (bars, curves, layer_curves, by_depth, spans_far):
        environment.globals[function.__name__] = function
    page = environment.get_template("page.html.j2").render(
        report=report,
        runs=report.runs,
        request=report.request,
        title=report.request.title or f"slam_potsa: {', '.join(names)}",
        names=names,
        tables=tables,
        figures=figures,
        players=Players(),
        gap=GAP,
        groups=_groups(report),
        tests=[_test(report, test) for test in report.tests],
        terms=_terms(report.runs),
        analyses=list(_analyses(report.runs)),
        samples=[(test, *row) for test in report.tests for row in report.samples(test)],
        worst=list(_worst(report.runs)),
        commands=_commands(report),
    )
    return page.strip() + "\n"


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


def by_depth(lines: Sequence[Series]) -> list[Series]:
    """Means over the first and the last third of the training, layer by layer."""
    thirds = [max(1, len(line.y) // 3) for line in lines]
    first = [statistics.fmean(line.y[:n]) for line, n in zip(lines, thirds, strict=True)]
    last = [statistics.fmean(line.y[-n:]) for line, n in zip(lines, thirds, strict=True)]
    layers = range(len(lines))
    return [Series("first third", layers, first), Series("last third", layers, last, dash=1)]


def spans_far(lines: Sequence[Series]) -> bool:
    values = [y for line in lines for y in line.y if y > 0]
    return bool(values) and max(values) > LOG_RANGE * min(values)


def bars(corpora: Corpora, metric: str) -> dict[str, list[Bar | None]]:
    """system -> a bar a corpus, "bleu" or "chrf"."""
    names = dict.fromkeys(system["run"] for corpus in corpora for system in corpus["systems"])
    found: dict[str, list[Bar | None]] = {name: [None] * len(corpora) for name in names}
    for place, corpus in enumerate(corpora):
        for system in corpus["systems"]:
            score = system["row"] and getattr(system["row"], metric)
            found[system["run"]][place] = score and Bar(score.value, score.low, score.high)
    return found


def _groups(report: Report) -> Corpora:
    """The headline's scores, for its picture."""
    found = tables.groups(report)
    width = 64 // max(1, len(found))  # letters below a group of bars
    return [
        {
            "name": textwrap.fill(f"{report.tests[test]}: {group}", width),
            "systems": [{"run": run, "row": row} for run, row in rows.items()],
        }
        for (test, group), rows in found.items()
    ]


def _test(report: Report, test: str) -> dict[str, Any]:
    """What the page shows of one test: its corpora, groups of languages before languages."""
    scored = {run.name: run.scored[test] for run in report.runs if test in run.scored}
    rows = {row.name: row for each in scored.values() for row in each.rows}
    columns = list(dict.fromkeys(name for each in scored.values() for name in each.columns))
    compared = columns[:2] if any(each.comparisons for each in scored.values()) else []
    ordered = sorted(rows.values(), key=lambda row: row.kind == "language")
    return {
        "name": test,
        "title": report.tests[test],
        "columns": columns,
        "compared": compared,
        "differences": [f"Δ {name}" for name in compared],
        "corpora": [_corpus(row, scored) for row in ordered],
        "blind": any(each.blind for each in scored.values()),
        "signatures": [line for each in scored.values() for line in _signatures(each)],
    }


def _corpus(row: ScoreRow, scored: Mapping[str, ScoreTable]) -> dict[str, Any]:
    """The scores of one corpus by every system."""
    systems = []
    for run, each in scored.items():
        own = next((other for other in each.rows if other.name == row.name), None)
        compared = {item.metric: item for item in each.comparisons if item.name == row.name}
        blind = next((item for item in each.blind if item.name == row.name), None)
        systems.append({"run": run, "row": own, "compared": compared, "blind": blind})
    facts = {"name": row.name, "kind": row.kind, "group": row.group, "recordings": row.sentences}
    return {**facts, "systems": systems}


def _signatures(scored: ScoreTable) -> list[str]:
    compared = [f"{item.metric}|{item.signature}" for item in scored.comparisons if item.signature]
    return [*scored.signatures, *compared, scored.guard_signature]


def _terms(runs: Sequence[Run]) -> list[str]:
    """The alignment terms whose costs were recorded."""
    keys = {key for run in runs for line in run.metrics for key in line}
    return sorted(key.removesuffix("/matched") for key in keys if key.endswith("/matched"))


def _analyses(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Figures and measures of every run that was analysed, each against the first of them."""
    analysed = [run for run in runs if run.analysis]
    for run in analysed[1:] or analysed:
        found = [analysed[0].analysis, run.analysis] if run is not analysed[0] else [run.analysis]
        texts = [each.text() for each in found]
        try:
            texts += [differences_text(*found[::-1])] if len(found) > 1 else []
        except InputError as error:  # of other recordings, or with other settings
            texts.append(f"not compared with {analysed[0].name}: {error}")
            found = [run.analysis]
        drawn = draw(*found[::-1])
        yield {"title": run.name, "figures": drawn, "text": "\n\n".join(texts)}


def _worst(runs: Sequence[Run]) -> Iterator[tuple[Any, ...]]:
    """(run, test, worst row, its prediction)."""
    for run in runs:
        for test, found in run.scored.items():
            items = {item.key: item for item in run.tests[test]}
            yield from ((run.name, test, row, items[row.key]) for row in found.worst)


def _commands(report: Report) -> list[str]:
    """Those that decoded, and that make this page."""
    decoded = [record.argv for run in report.runs for record in run.records.values()]
    found = [[str(word) for word in argv] for argv in (*decoded, report.request.argv) if argv]
    return [shlex.join([re.sub(".*/(?=slam-potsa$)", "", words[0]), *words[1:]]) for words in found]
