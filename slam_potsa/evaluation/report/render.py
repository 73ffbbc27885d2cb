"""The page: its head, its sections in order, and one command that makes it again."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from slam_potsa.errors import InputError
from slam_potsa.evaluation.page import page
from slam_potsa.evaluation.report.contents import Report
from slam_potsa.evaluation.report.headline import footnotes, headline_table
from slam_potsa.evaluation.report.markup import (
    Section,
    commands,
    contents,
    paragraph,
    section,
)
from slam_potsa.evaluation.report.models_section import (
    analysis_section,
    plans_section,
    report_words,
)
from slam_potsa.evaluation.report.players import Players
from slam_potsa.evaluation.report.runs_section import runs_section
from slam_potsa.evaluation.report.samples_section import samples_section, worst_section
from slam_potsa.evaluation.report.scores_section import scores_section
from slam_potsa.evaluation.report.training_section import (
    conflict_section,
    schedule_section,
    training_section,
)
from slam_potsa.files import atomic_write


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page to `path`, whole or not at all; return the path."""
    atomic_write(path, render(report))
    return Path(path)


def render(report: Report) -> str:
    """The page as HTML text. Raises InputError without runs, or with two runs of one name."""
    names = [run.name for run in report.runs]
    if not names or len(set(names)) < len(names):
        raise InputError(f"runs: found {names}, expected at least one, each with its own name")
    players = Players()
    found = (
        _notes(report),
        runs_section(report),
        scores_section(report),
        training_section(report),
        schedule_section(report),
        conflict_section(report),
        analysis_section(report),
        plans_section(report),
        samples_section(report, players),
        worst_section(report, players),
        section("This page", commands(report_words(report), what="Makes this page again")),
    )
    sections = [item for item in found if item.body]
    title = report.request.title or f"slam_potsa: {', '.join(names)}"
    return page(title, "\n".join([_head(title, report, sections), *(s.html() for s in sections)]))


def _head(title: str, report: Report, sections: Sequence[Section]) -> str:
    summary = report.request.summary
    lead = f'<p class="lead">{escape(summary)}</p>' if summary else ""
    warnings = "".join(paragraph(warning, "warning") for warning in report.warnings)
    table = headline_table(report).html()
    notes = "".join(paragraph(note, "small") for note in footnotes(report)) if table else ""
    return (
        f"<header><h1>{escape(title)}</h1>{lead}{contents(sections)}{warnings}{table}{notes}"
        "</header>"
    )


def _notes(report: Report) -> Section:
    items = "".join(f"<li>{escape(note)}</li>" for note in report.request.notes)
    listed = f'<ul class="notes">{items}</ul>' if items else ""
    return section("What this does and does not show", listed)
