"""Recordings to listen to beside what the runs made of them, and the rows that went worst."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from slam_potsa.evaluation.report.contents import Report, Sample
from slam_potsa.evaluation.report.markup import Section, commands, paragraph, section
from slam_potsa.evaluation.report.models_section import report_words
from slam_potsa.evaluation.report.players import Players
from slam_potsa.evaluation.report.scores_section import score_command
from slam_potsa.evaluation.report.words import GAP, marked

SAMPLES, WORST = "Samples", "Worst rows"
Cell = tuple[str, str]  # HTML, and what to sort by


def samples_section(report: Report, players: Players) -> Section:
    if not report.samples:
        return section(SAMPLES)
    several = len({sample.test for sample in report.samples}) > 1
    names = [run.name for run in report.runs]
    heads = (
        *(("test",) if several else ()),
        "language",
        "recording",
        "transcript",
        "reference",
        *names,
    )
    rows = [
        (sample.language, _cells(report, sample, names, players)[0 if several else 1 :])
        for sample in report.samples
    ]
    first = (
        f"The first {report.request.samples} recordings of every language in each test: chosen by "
        "order, not by quality. Words that are not in the reference are marked and underlined; "
        f"{GAP} stands where words of the reference are left out. Case and punctuation are not "
        "compared."
    )
    return section(
        SAMPLES,
        paragraph(first),
        sortable(heads, rows, "samples"),
        commands(report_words(report), what="This page again"),
    )


def worst_section(report: Report, players: Players) -> Section:
    rows = list(_worst(report, players))
    if not rows:
        return section(WORST)
    heads = ("system", "test", "language", "recording", "chrF", "guards", "reference", "prediction")
    lead = (
        f"The {report.request.worst} rows of the lowest sentence chrF of each run and test, and "
        "the guards that fired on them."
    )
    lines = [
        score_command(report, test, found)
        for run in report.runs
        for test, found in run.scored.items()
    ]
    table = sortable(heads, rows, "worst")
    return section(WORST, paragraph(lead), table, commands(*lines))


def sortable(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]], name: str) -> str:
    """A table that the page's script makes sortable, and that can be read without it.

    Each row comes with its language; where there are several, the script offers a choice of them.
    """
    head = "".join(
        f"<th>{escape(text)}</th>" if text == "recording" else f"<th data-sort>{escape(text)}</th>"
        for text in heads
    )
    body = "".join(
        f'<tr data-language="{escape(language, quote=True)}">{_row(heads, cells)}</tr>'
        for language, cells in rows
    )
    return (
        f'<div class="wide"><table class="sortable cards {name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(heads: Sequence[str], cells: Sequence[Cell]) -> str:
    return "".join(
        f'<td data-label="{escape(label, quote=True)}" data-value="{escape(value, quote=True)}">'
        f"<div>{html}</div></td>"
        for label, (html, value) in zip(heads, cells, strict=True)
    )


def _cells(report: Report, sample: Sample, names: Sequence[str], players: Players) -> list[Cell]:
    player = players.player(sample.key, sample.audio, sample.base)
    words = [report.title_of(sample.test), sample.language]
    said = [sample.transcript or "–", sample.reference or "–"]
    cells = [*map(_plain, words), (player, ""), *map(_plain, said)]
    first = next(iter(sample.predictions.values()), None)
    for name in names:
        text = sample.predictions.get(name)
        # Without a reference, later runs are held against the first.
        against = sample.reference if sample.reference is not None else first
        cells.append(("–", "") if text is None else (marked(text, against) or "–", text))
    return cells


def _worst(report: Report, players: Players):
    for run in report.runs:
        for test, found in run.scored.items():
            for row in found.worst:
                audio, base = report.recordings.get((test, row.key), ("", None))
                language = row.direction.split("→")[0]
                guards = ", ".join(row.guards) or "–"
                cells = [_plain(text) for text in (run.name, report.title_of(test), language)]
                cells.append((players.player(row.key, audio, base), ""))
                cells += [_plain(f"{row.chrf:.1f}"), _plain(guards), _plain(row.reference)]
                cells.append((marked(row.prediction, row.reference) or "–", row.prediction))
                yield language, cells


def _plain(text: str) -> Cell:
    return escape(text), text
