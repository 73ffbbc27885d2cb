"""Scores of every test, what they are held against, and how often outputs are broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.compare import Comparison, signed
from slam_potsa.evaluation.file_scores import FileScores
from slam_potsa.evaluation.report.contents import Report
from slam_potsa.evaluation.report.markup import (
    Section,
    Table,
    commands,
    figure,
    figures,
    folded,
    missing,
    paragraph,
    section,
)
from slam_potsa.evaluation.scores import Score, ScoreRow

TITLE = "Translation scores"
EXPLANATION = (
    "<p>Below a score is the 95 % interval of the corpus resampled by bootstrap; it says how much "
    "the choice of sentences matters, not how much another training seed would. <em>Pooled</em> "
    "takes a group’s sentences as one corpus, and a sentence’s recordings for independent; "
    "<em>mean of languages</em> averages the languages’ scores, as the papers do. Δ is the "
    "difference from the first run, p that of a paired bootstrap test, each row by itself, not "
    "corrected for the number of rows.</p>"
)
Scored = Mapping[str, FileScores]  # run -> its file


def scores_section(report: Report) -> Section:
    tests = [(test, _scored(report, test)) for test in report.tests]
    parts = [_test(report, test, scored) for test, scored in tests if scored]
    if not parts:
        return section(TITLE, missing(report.left_out.get("scores", ())))
    return section(TITLE, EXPLANATION, missing(report.left_out.get("scores", ())), *parts)


def score_command(report: Report, test: str, scored: FileScores) -> list[str]:
    """The words of `slam-potsa score` that print what is shown of one file."""
    words = ["score", str(scored.path)]
    if scored.comparisons:
        words += ["--baseline", str(report.runs[0].scored[test].path)]
    for flag, languages in (("--seen", report.heard), ("--zero-shot", report.zero_shot)):
        words += [flag, *languages] if languages else []
    words += ["--preset", report.request.preset] if report.request.preset else []
    if report.request.bootstrap != type(report.request).bootstrap:
        words += ["--bootstrap", str(report.request.bootstrap)]
        words += ["--samples", str(report.request.bootstrap)] if scored.comparisons else []
    return words + (["--worst", str(report.request.worst)] if report.request.worst else [])


def _scored(report: Report, test: str) -> dict[str, FileScores]:
    return {run.name: run.scored[test] for run in report.runs if test in run.scored}


def _test(report: Report, test: str, scored: Scored) -> str:
    title = report.title_of(test)
    name = f' <span class="small">{escape(test)}</span>' if title != test else ""
    heading = f"<h3>{escape(title)}{name}</h3>"
    tables = {run: found.table for run, found in scored.items()}
    signatures = dict.fromkeys(line for table in tables.values() for line in table.signatures)
    signatures |= dict.fromkeys(
        f"{item.metric}|{item.signature}"
        for found in scored.values()
        for item in found.comparisons
        if item.signature
    )
    lines = [score_command(report, test, found) for found in scored.values()]
    return (
        heading
        + _score_table(scored).html()
        + figures(_charts(title, scored))
        + _guards(scored)
        + _blind(scored)
        + folded("Signatures", f'<p class="small">{"<br>".join(map(escape, signatures))}</p>')
        + commands(*lines)
    )


def _rows(scored: Scored) -> Iterator[tuple[str, str, ScoreRow]]:
    """(corpus, run, row), groups of languages before single languages."""
    rows = {run: {row.name: row for row in found.table.rows} for run, found in scored.items()}
    kinds = {name: row.kind for found in rows.values() for name, row in found.items()}
    for name in sorted(kinds, key=lambda name: kinds[name] == "language"):
        yield from ((name, run, found[name]) for run, found in rows.items() if name in found)


def _score_table(scored: Scored) -> Table:
    columns = list(dict.fromkeys(name for _, _, row in _rows(scored) for name in row.scores))
    compared = any(found.comparisons for found in scored.values())
    head = ["", "system", *columns]
    head += [f"Δ {name}" for name in columns[:2]] if compared else []
    body = []
    for corpus, run, row in _rows(scored):
        cells = [_score(row.scores.get(name)) for name in columns]
        if compared:
            found = {c.metric: c for c in scored[run].comparisons if c.name == corpus}
            cells += [_difference(found, name) for name in columns[:2]]
        label = corpus + (f" ({row.group})" if row.kind == "language" and row.group else "")
        body.append((f"{label}, {row.sentences:,} recordings", run, *cells))
    return Table(head, body, 2, 1)


def _score(found: Score | None) -> str:
    return "–" if found is None else f"{found.value:.1f}\n{found.interval_text()}"


def _difference(found: Mapping[str, Comparison], column: str) -> str:
    if column not in found:
        return ""
    item = found[column]
    chance = "" if item.p_value is None else f"\np = {item.p_value:.3f}"
    return signed(item.difference) + chance


def _guards(scored: Scored) -> str:
    rows = [(corpus, run, row) for corpus, run, row in _rows(scored) if row.guards]
    if not rows:
        return ""
    columns = list(rows[0][2].guards)
    head = ("", "system", *columns)

    def table(kinds: Sequence[str], caption: str = "") -> str:
        body = [
            (corpus, run, *(f"{100 * row.guards[name]:.1f}" for name in columns))
            for corpus, run, row in rows
            if row.kind in kinds
        ]
        return Table(head, body, 2, 1, caption, cards=True).html()

    signatures = dict.fromkeys(found.table.guard_signature for found in scored.values())
    rules = "".join(paragraph(signature, "small") for signature in signatures)
    return (
        table(
            ("pooled",),
            "Outputs that are broken rather than bad: per cent that each guard fired on",
        )
        + folded("Guards, language by language", table(("language",)))
        + rules
    )


def _blind(scored: Scored) -> str:
    """Groups of languages, then single languages folded."""
    found = {(row.name, run): row for run, file in scored.items() for row in file.blind}
    head = ("", "system", "BLEU", "exchanged recordings", "heard")

    def table(languages: bool, caption: str = "") -> str:
        body = []
        for corpus, run, row in _rows(scored):
            blind = found.get((corpus, run))
            if blind and (row.kind == "language") == languages:
                cells = f"{blind.system:.1f}", f"{blind.baseline:.1f}", signed(blind.difference)
                body.append((corpus, run, *cells))
        return Table(head, body, 2, 1, caption).html()

    caption = "Blind control: BLEU with every sentence answered to another one’s recording"
    by_language = folded("Blind control, language by language", table(True))
    return table(False, caption) + by_language


def _charts(title: str, scored: Scored) -> Iterator[str]:
    rows = [row for row in _rows(scored) if row[2].kind == "language"]
    languages = list(dict.fromkeys(corpus for corpus, _, _ in rows))
    found = {(corpus, run): row for corpus, run, row in rows}
    for metric, label in (("bleu", "BLEU"), ("chrf", "chrF")):
        bars = {
            run: [_bar(found.get((corpus, run)), metric) for corpus in languages] for run in scored
        }
        drawing = charts.bar_chart(
            languages,
            bars,
            title=f"{label} by spoken language, {title}",
            description="Bars are scores, whiskers their 95 % bootstrap intervals.",
            y_label=label,
        )
        yield figure(f"{label} by spoken language", drawing)


def _bar(row: ScoreRow | None, metric: str) -> charts.Bar | None:
    if row is None:
        return None
    found = getattr(row, metric)
    return charts.Bar(found.value, found.low, found.high)
