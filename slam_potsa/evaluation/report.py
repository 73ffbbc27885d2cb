"""One self-contained page about a set of runs: scores, training, features, samples one can hear."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from slam_potsa.errors import InputError
from slam_potsa.evaluation.page import page
from slam_potsa.evaluation.samples import samples_section
from slam_potsa.evaluation.sections import (
    duration,
    features_section,
    headline_section,
    retrieval_section,
    schedule_section,
    scores_section,
    training_section,
)
from slam_potsa.evaluation.summary import FeatureView, Report, RunSummary, Sample, feature_view
from slam_potsa.files import atomic_write

__all__ = [
    "FeatureView",
    "Report",
    "RunSummary",
    "Sample",
    "feature_view",
    "render",
    "write_report",
]


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page to `path`, whole or not at all; return the path."""
    atomic_write(path, render(report))
    return Path(path)


def render(report: Report) -> str:
    """The page as HTML text. Raises InputError without runs, or with two runs of one name."""
    names = [run.name for run in report.runs]
    if not names or len(set(names)) < len(names):
        raise InputError(f"runs: found {names}, expected at least one, each with its own name")
    sections = (
        _head(report),
        headline_section(report.runs),
        scores_section(report),
        retrieval_section(report.runs),
        training_section(report.runs),
        schedule_section(report.runs),
        features_section(report.features),
        samples_section(report.samples, names),
        _notes(report.notes),
        _configurations(report.runs),
    )
    return page(report.title, "\n".join(section for section in sections if section))


def _head(report: Report) -> str:
    lead = f'<p class="lead">{escape(report.summary)}</p>' if report.summary else ""
    facts = dict(report.facts)
    times = report.wall_times
    facts |= {f"time: {phase}": duration(seconds) for phase, seconds in times.items()}
    if len(times) > 1:
        facts["time: all phases"] = duration(sum(times.values()))
    items = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    listing = f'<dl class="facts">{items}</dl>' if items else ""
    return f"<header><h1>{escape(report.title)}</h1>{lead}{listing}</header>"


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    heading = "<h2>What this does and does not show</h2>"
    return f'<section>{heading}<ul class="notes">{items}</ul></section>'


def _configurations(runs: Sequence[RunSummary]) -> str:
    parts = "".join(
        f"<details><summary>{escape(run.name)}</summary><pre>{escape(run.config)}</pre></details>"
        for run in runs
        if run.config
    )
    return f"<section><h2>Resolved configurations</h2>{parts}</section>" if parts else ""
