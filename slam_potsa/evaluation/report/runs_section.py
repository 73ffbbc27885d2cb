"""What was run: differences first, then each run in words, data, versions, whole configurations."""

from __future__ import annotations

from html import escape

from slam_potsa.evaluation.report.contents import Data, Report
from slam_potsa.evaluation.report.markup import (
    Section,
    Table,
    commands,
    duration,
    folded,
    paragraph,
    section,
)
from slam_potsa.evaluation.report.tables import differences_table, facts_table

TITLE = "What was run"


def runs_section(report: Report) -> Section:
    runs = report.runs
    several = len(runs) > 1
    differences = differences_table(runs).html() if several else ""
    if several and not differences:
        differences = paragraph("The configurations differ in names and places only.")
    configurations = "".join(
        folded(f"Whole configuration of {run.name}", f"<pre>{escape(run.text)}</pre>")
        for run in runs
        if run.text
    )
    return section(
        TITLE,
        differences,
        facts_table(runs).html(),
        commands(["report", *_paths(report), "--show", "runs"]),
        _data(report),
        _times(report),
        _versions(report),
        configurations,
    )


def data_table(found: list[Data]) -> Table:
    head = (
        "manifest",
        "used for",
        "hours",
        "sentences also in training",
        "recordings",
        "hours in all",
        "sentences",
        "parallel",
    )
    return Table(head, [_data_row(item) for item in found], 4, caption="Data", cards=True)


def _data_row(item: Data) -> tuple[str, ...]:
    if item.holds is None:
        return (item.path, item.use, "not found, or not a manifest", "–", "–", "–", "–", "–")
    parts = item.holds.languages
    hours = ", ".join(f"{name} {part.seconds / 3600:.2f}" for name, part in parts.items())
    count = sum(part.utterances for part in parts.values())
    total = sum(part.seconds for part in parts.values()) / 3600
    sentences, parallel = item.holds.sentences, item.holds.parallel_sentences
    return (
        item.path,
        item.use,
        hours,
        item.trained_text() or ("not known" if item.tests else "–"),
        f"{count:,}",
        f"{total:.2f}",
        f"{sentences:,}",
        f"{parallel:,}",
    )


def _data(report: Report) -> str:
    there = [item for item in report.data if item.holds]
    lines = [["prepare", "check", "--no-audio", item.path] for item in there]
    note = (
        "Hours are the sums of the manifests’ durations. Parallel: sentences in two languages or "
        "more. Also in training: of a test, the share of sentences (sentence_id) that the training "
        "manifest has too, spoken by whomever in whatever language."
    )
    warnings = (warning for item in there for warning in item.holds.warnings)
    if any("no duration" in warning for warning in warnings):
        note += " Some recordings have no duration there, so the hours are too few."
    table = data_table(list(report.data)).html()
    return table + paragraph(note, "small") + (commands(*lines) if lines else "") if table else ""


def _times(report: Report) -> str:
    times = dict(report.request.wall_times)
    if len(times) > 1:
        times["all phases"] = sum(times.values())
    return _facts({f"time: {phase}": duration(seconds) for phase, seconds in times.items()})


def _versions(report: Report) -> str:
    if not report.versions:
        return ""
    found = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    note = f"This report was made with {found}; run directories do not say what trained them."
    return paragraph(note, "small")


def _facts(facts: dict[str, str]) -> str:
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def _paths(report: Report) -> list[str]:
    return [str(run.path) for run in report.runs]
