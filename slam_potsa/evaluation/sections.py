"""The report's sections of tables and charts. Each returns HTML, or "" where it has nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.scores import Score, ScoreRow
from slam_potsa.evaluation.significance import Comparison
from slam_potsa.evaluation.summary import FeatureView, Report, RunSummary
from slam_potsa.evaluation.table import headline

LOG_RANGE = 20  # costs that span more than this factor are drawn on a logarithmic axis


def headline_section(runs: Sequence[RunSummary]) -> str:
    """BLEU, chrF and R@1 of all runs, the first thing read."""
    body, before = [], None
    for row in headline(runs):
        if (row.test, row.group) != before:
            before = (row.test, row.group)
            name = f"{escape(row.test)} · {escape(row.group)}"
            body.append(f'<tr class="opens"><th colspan="5" scope="rowgroup">{name}</th></tr>')
        bleu, interval, chrf, recall = row.cells()
        body.append(
            f'<tr><th scope="row">{escape(row.run)}</th><td class="number strong">{bleu}</td>'
            f'<td class="number small">{interval}</td><td class="number">{chrf}</td>'
            f'<td class="number">{recall}</td></tr>'
        )
    if not body:
        return ""
    heads = "".join(
        f'<th class="number">{head}</th>' for head in ("BLEU", "95 % interval", "chrF", "R@1, %")
    )
    return (
        '<section><div class="wide"><table class="headline"><caption>Pooled over the languages of '
        "a group. R@1 beside “seen” is among heard languages, beside “zero-shot” with at least one "
        "unheard language.</caption><thead><tr><th>system</th>"
        f"{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div></section>"
    )


def scores_section(report: Report) -> str:
    tests = dict.fromkeys(test for run in report.runs for test in run.scores)
    parts = [_score_table(test, report) for test in tests]
    if not parts:
        return ""
    explanation = (
        "<p>BLEU and chrF by sacreBLEU. Below a score is the 95 % interval of the corpus "
        "resampled by bootstrap; it says how much the choice of sentences matters, not how much "
        "another training seed would, and pooled ones take a sentence’s recordings for "
        "independent. <em>Pooled</em> takes a group’s sentences as one corpus, "
        "<em>mean of languages</em> averages the languages’ scores, as the papers do.</p>"
    )
    return "<section><h2>Translation scores</h2>" + explanation + "".join(parts) + "</section>"


def _score_table(test: str, report: Report) -> str:
    runs = [run for run in report.runs if test in run.scores]
    tables = [{row.name: row for row in run.scores[test].rows} for run in runs]
    compared = {c.name: c for c in report.comparisons.get(test, ()) if c.metric == "BLEU"}
    heads = "".join(f'<th colspan="2" class="span">{escape(run.name)}</th>' for run in runs)
    heads += '<th class="number span">difference</th>' if compared else ""
    units = '<th class="number">BLEU</th><th class="number">chrF</th>' * len(runs)
    units += '<th class="number">BLEU, p</th>' if compared else ""
    names = list(dict.fromkeys(name for table in tables for name in table))
    before, body = "language", []
    for name in names:
        row = next(table[name] for table in tables if name in table)
        kind = "" if row.kind == "language" else "group"
        kind += " first" if kind and before == "language" else ""
        before = row.kind
        cells = "".join(_score_cells(table.get(name)) for table in tables)
        cells += _difference_cell(compared.get(name)) if compared else ""
        label = escape(name) + (f' <span class="small">{row.group}</span>' if not kind else "")
        body.append(
            f'<tr class="{kind}"><th scope="row">{label}</th>'
            f'<td class="number">{row.sentences}</td>{cells}</tr>'
        )
    signatures = dict.fromkeys(s for run in runs for s in run.scores[test].signatures)
    details = "<br>".join(escape(signature) for signature in signatures)
    return (
        f'<h3>{escape(test)}</h3><div class="wide"><table><thead>'
        f"<tr><th></th><th></th>{heads}</tr><tr><th>spoken language</th>"
        f'<th class="number">sentences</th>{units}</tr></thead>'
        f'<tbody>{"".join(body)}</tbody></table></div><p class="small">{details}</p>'
        + _score_chart(test, runs, tables)
    )


def _score_chart(
    test: str, runs: Sequence[RunSummary], tables: Sequence[Mapping[str, ScoreRow]]
) -> str:
    rows = [row for table in tables for row in table.values() if row.kind == "language"]
    languages = list(dict.fromkeys(row.name for row in rows))

    def bars(table: Mapping[str, ScoreRow], metric: str) -> list[charts.Bar | None]:
        found = [getattr(table[name], metric) if name in table else None for name in languages]
        return [charts.Bar(s.value, s.low, s.high) if s else None for s in found]

    figures = [
        _figure(
            f"{label} by spoken language",
            charts.bar_chart(
                languages,
                {run.name: bars(table, metric) for run, table in zip(runs, tables, strict=True)},
                title=f"{label} by spoken language, {test}",
                description="Bars are scores, whiskers their 95 % bootstrap intervals.",
                y_label=label,
            ),
            "",
        )
        for metric, label in (("bleu", "BLEU"), ("chrf", "chrF"))
    ]
    return _figures(figures)


def _score_cells(row: ScoreRow | None) -> str:
    if row is None:
        return '<td class="number">–</td>' * 2
    return _score_cell(row.bleu) + _score_cell(row.chrf)


def _score_cell(score: Score) -> str:
    value, interval = score.cells()
    return f'<td class="number">{value}<span class="interval">{interval}</span></td>'


def _difference_cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return '<td class="number"></td>'
    return (
        f'<td class="number">{round(comparison.difference, 1) + 0.0:+.1f}'
        f'<span class="interval">p = {comparison.p_value:.3f}</span></td>'
    )


def retrieval_section(runs: Sequence[RunSummary]) -> str:
    tests = dict.fromkeys(test for run in runs for test in run.retrieval)
    if not tests:
        return ""
    rows, details = [], []
    for test in tests:
        found = [run.retrieval.get(test) for run in runs]
        for group in dict.fromkeys(name for item in found if item for name in item.means):
            cells = "".join(
                f'<td class="number">{100 * item.means[group]:.1f}</td>'
                if item and group in item.means
                else '<td class="number">–</td>'
                for item in found
            )
            rows.append(f'<tr><th scope="row">{escape(test)}: {escape(group)}</th>{cells}</tr>')
        chance = [pair.chance for item in found if item for pair in item.pairs.values()]
        cell = f'<td class="number small">{100 * sum(chance) / len(chance):.1f}</td>' * len(runs)
        rows.append(f'<tr><th scope="row" class="small">{escape(test)}: chance</th>{cell}</tr>')
        details += [
            f"<h3>{escape(run.name)}, {escape(test)}</h3><pre>{escape(item.text())}</pre>"
            for run, item in zip(runs, found, strict=True)
            if item
        ]
    heads = "".join(f'<th class="number">{escape(run.name)}</th>' for run in runs)
    return (
        "<section><h2>Cross-lingual retrieval</h2><p>R@1 in per cent: how often a recording’s "
        "nearest neighbour among the recordings of another language is the same sentence. Vectors "
        "are means over a recording’s tokens, and the cosine decides.</p>"
        f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<details><summary>All language pairs</summary>{''.join(details)}</details></section>"
    )


def training_section(runs: Sequence[RunSummary]) -> str:
    losses = [_series(run, "ce", run.name, place) for place, run in enumerate(runs)]
    losses = [item for item in losses if item]
    if not losses:
        return ""
    figures = [
        _figure(
            "Cross-entropy",
            charts.line_chart(losses, title="Cross-entropy per training step", y_label="nats"),
            "Mean over the step’s label tokens. Long runs: mean of each stretch, range behind.",
        )
    ]
    keys = {key for run in runs for line in run.metrics for key in line}
    for term in sorted(key.removesuffix("/matched") for key in keys if key.endswith("/matched")):
        figures.append(_cost_figure(term, runs))
    rows = "".join(_training_row(run) for run in runs if run.metrics)
    heads = "".join(
        f'<th class="number">{head}</th>'
        for head in ("steps", "CE, last tenth", "tokens / s, median", "wall time")
    )
    return (
        f"<section><h2>Training</h2>{_figures(figures)}"
        f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _cost_figure(term: str, runs: Sequence[RunSummary]) -> str:
    lines = []
    for place, run in enumerate(runs):
        for dash, kind in enumerate(("matched", "mismatched")):
            lines.append(_series(run, f"{term}/{kind}", f"{run.name}, {kind}", place, dash))
    lines = [line for line in lines if line]
    costs = [y for line in lines for y in line.y if math.isfinite(y) and y > 0]
    log = bool(costs) and max(costs) > LOG_RANGE * min(costs)
    return _figure(
        f"Alignment cost, {term}",
        charts.line_chart(lines, title=f"Alignment cost of {term}", y_label="cost", log=log),
        "Pairs of the same sentence against pairs of different ones. A gap that opens is "
        "alignment; both falling together is a space that shrinks.",
    )


def _training_row(run: RunSummary) -> str:
    losses = _values(run, "ce")
    speeds = _values(run, "tokens_per_second")
    tail = losses[-max(1, len(losses) // 10) :]
    cells = (
        str(len(run.metrics)),
        f"{statistics.fmean(tail):.3f}" if tail else "–",
        f"{statistics.median(speeds):,.0f}" if speeds else "–",
        duration(run.seconds) if run.seconds is not None else "–",
    )
    numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
    return f'<tr><th scope="row">{escape(run.name)}</th>{numbers}</tr>'


def schedule_section(runs: Sequence[RunSummary]) -> str:
    figures = []
    for run in runs:
        lines = [line for line in run.metrics if line.get("layers") and "step" in line]
        if lines:
            drawing = charts.schedule_chart(
                [line["step"] for line in lines],
                [line["layers"] for line in lines],
                title=f"Aligned layer at each step, {run.name}",
                description="A mark is a step at which this Q-Former layer was aligned.",
            )
            figures.append(_figure(run.name, drawing, ""))
    if not figures:
        return ""
    return (
        "<section><h2>Layer schedule</h2><p>Which Q-Former layer the alignment was computed at, "
        f"numbered from 1 at the bottom.</p>{_figures(figures)}</section>"
    )


def features_section(views: Sequence[FeatureView]) -> str:
    if not views:
        return ""
    order = list(dict.fromkeys(language for view in views for language in view.languages))
    figures = []
    for view in views:
        axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(view.explained, start=1)]
        drawing = charts.scatter_chart(
            view.points,
            view.languages,
            title=f"Encoder features, {view.name}",
            description="Each point is a recording; colour and shape are its language.",
            x_label=axes[0],
            y_label=axes[1],
            order=order,
        )
        caption = f"Between languages: {100 * view.language_share:.1f} % of the variance (η²)."
        figures.append(_figure(view.name, drawing, caption))
    return (
        "<section><h2>Encoder features</h2><p>Encoder output, averaged over the frames of a "
        "recording, on the first two principal components of each panel’s own features. The "
        "percentage at an axis is the variance it shows.</p>" + _figures(figures) + "</section>"
    )


def duration(seconds: float) -> str:
    """42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _figure(heading: str, drawing: str, caption: str) -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(heading)}</h3>{drawing}{below}</figure>"


def _figures(figures: Iterable[str]) -> str:
    return f'<div class="figures">{"".join(figures)}</div>'


def _values(run: RunSummary, key: str) -> list[float]:
    found = [line.get(key) for line in run.metrics]
    return [value for value in found if value is not None and math.isfinite(value)]


def _series(
    run: RunSummary, key: str, name: str, place: int, dash: int = 0
) -> charts.Series | None:
    lines = [line for line in run.metrics if line.get(key) is not None and "step" in line]
    if not lines:
        return None
    steps, values = [line["step"] for line in lines], [line[key] for line in lines]
    return charts.Series(name, steps, values, place, dash)
