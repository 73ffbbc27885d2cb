"""The figures of an analysis, each an inline SVG with one sentence on how to read it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.analysis.result import (
    Analysis,
    View,
    own_ceilings,
    relative_places,
)
from slam_potsa.files import atomic_write

PLACES = {
    "encoder": "encoder output",
    "compensated": "compensated encoder output",
    "projector": "projector output",
}
ORDER = "encoder output, after compensation, Q-Former layers, projector"
# name, title, axis, [(key of the headline, name of the line, dash)], factor, axis of y, caption
LINES = (
    (
        "recall",
        "Cross-lingual retrieval, layer by layer",
        "R@1, %",
        (("R@1, among heard", "among heard", 0), ("R@1, with an unheard", "with an unheard", 1)),
        100,
        "zero",
        "Higher: more recordings have the same sentence in the other language as their nearest "
        "neighbour. Dotted: chance.",
    ),
    (
        "overlap",
        "Overlap of languages, layer by layer",
        "1 − JSD",
        (("1-JSD, all", "measured", 0), ("1-JSD, ceiling", "ceiling", 2)),
        1,
        "fitted",
        "Closer to its ceiling: the languages' tokens fall to the same codes as often as chance "
        "allows.",
    ),
    (
        "probe",
        "Language probe, layer by layer",
        "balanced accuracy, %",
        (("language probe", "", 0),),
        100,
        "zero",
        "Lower: a linear classifier tells the language less well; below chance where class means "
        "were made equal on these recordings.",
    ),
    (
        "transport_ratio",
        "Transport cost: same over other sentences",
        "matched / mismatched",
        (("OT ratio, all", "", 0),),
        1,
        "zero",
        "Lower: recordings of one sentence are closer than recordings of different ones; at 1 the "
        "meaning makes no difference. Cross-entropy alone lowers it too: compare with a run "
        "without alignment.",
    ),
    (
        "transport_costs",
        "Transport cost, same and other sentences",
        "⟨Γ, C⟩",
        (("OT matched, all", "same", 0), ("OT mismatched, all", "other", 1)),
        1,
        "log",
        "Same below other also without alignment: compare the gap with that of a run without it. "
        "A run whose lines both lie lower has a smaller space.",
    ),
    (
        "rank",
        "Effective rank, layer by layer",
        "effective rank",
        (("effective rank, pooled", "pooled", 0), ("effective rank, tokens", "tokens", 1)),
        1,
        "zero",
        "Lower: vectors spread over fewer directions; a fall towards 0 is collapse.",
    ),
    (
        "query_share",
        "Token variance that is the query’s own",
        "share, %",
        (("query share", "", 0),),
        100,
        "zero",
        "Closer to 100: a token says which query made it, and less of what was said.",
    ),
)


@dataclass(frozen=True)
class Figure:
    """`svg` is inline SVG for a page; `caption` is plain text."""

    name: str
    title: str
    svg: str
    caption: str


def figures(analysis: Analysis, baseline: Analysis | None = None) -> list[Figure]:
    """Views in the plane, heat maps, arrows, and a line chart of each measure over the taps."""
    found = [_view(analysis, view, "") for view in analysis.views]
    if baseline is not None:
        found += [
            _view(baseline, view, "baseline_") for view in baseline.views if view.tap == "projector"
        ]
    found += _heat_maps(analysis, baseline)
    found += _arrows(analysis, baseline)
    return found + list(_lines(analysis, baseline))


def write_figures(folder: str | Path, drawn: Sequence[Figure]) -> list[Path]:
    """Each figure as `<name>.svg`, a file of its own."""
    paths = [Path(folder) / f"{figure.name}.svg" for figure in drawn]
    for path, figure in zip(paths, drawn, strict=True):
        atomic_write(path, charts.standalone(figure.svg))
    return paths


def place(tap: str) -> str:
    """A tap as a reader knows it: "Q-Former layer 3"."""
    return PLACES.get(tap) or f"Q-Former layer {tap.removeprefix('qformer.')}"


def _view(analysis: Analysis, view: View, prefix: str) -> Figure:
    method = {"pca": "PCA", "tsne": "t-SNE"}[view.method]
    title = f"{method}, {place(view.tap)}, {analysis.name}"
    axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(view.explained, start=1)]
    share = 100 * analysis.taps[view.tap].language_share
    reading = (
        "the percentage at an axis is the variance it shows, and of the variance of all recordings "
        f"{share:.1f} % lies between languages."
        if view.method == "pca"
        else "who is near whom means something, distances across the picture do not."
    )
    caption = f"Each point is a recording, colour and shape its language; {reading}"
    drawing = charts.scatter_chart(
        view.points,
        view.languages,
        title=title,
        description=caption,
        x_label=axes[0] if axes else "",
        y_label=axes[1] if axes else "",
        order=analysis.languages,
        numbers=bool(axes),
    )
    return Figure(f"{prefix}{view.method}_{view.tap}", title, drawing, caption)


def _heat_maps(analysis: Analysis, baseline: Analysis | None) -> list[Figure]:
    """R@1 at the projector's output; with a baseline both, in the same colours."""
    runs = {"baseline_heat_map": baseline, "heat_map": analysis}
    cells = {
        name: {
            pair: 100 * found.recall
            for pair, found in run.taps["projector"].retrieval.pairs.items()
        }
        for name, run in runs.items()
        if run is not None
    }
    highest = max(value for recalls in cells.values() for value in recalls.values())
    heard, order = analysis.heard, analysis.languages
    unheard = [name for name in order if heard is not None and name not in heard]
    caption = (
        "In per cent at the projector’s output: how often a recording of the row’s language finds "
        "its sentence in the column’s"
        + (f"; never heard in training: {', '.join(unheard)}." if unheard else ".")
        + _queries(analysis)
    )
    found = []
    for name, recalls in cells.items():
        title = f"R@1 of language pairs, {runs[name].name}"
        axes = {"x_label": "searched", "y_label": "searching", "high": highest or 1.0}
        drawing = charts.heat_map(order, order, recalls, title=title, description=caption, **axes)
        found.append(Figure(name, title, drawing, caption))
    return found


def _queries(analysis: Analysis) -> str:
    pairs = analysis.taps["projector"].retrieval.pairs.values()
    fewest, most = (choose(pair.queries for pair in pairs) for choose in (min, max))
    count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    chance = 100 * _chance(analysis, "recall")
    return f" A cell is the share of {count} recordings that search; chance: {chance:.1f} %."


def _arrows(analysis: Analysis, baseline: Analysis | None) -> list[Figure]:
    """From the baseline to the analysis at the aligned layer and at the projector (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling (`Overlap.relative`): the raw one falls where its
    ceiling falls, although the languages came closer to it.
    The paper does not say at which tap. Aligned are the lower Q-Former layers; the topmost of them
    is shown. Without a baseline: from the encoder's output to the projector's.
    """
    if baseline is None:
        drawn = [("encoder", analysis, "projector")]
    else:
        shared = [tap for tap in analysis.taps if tap in baseline.taps]
        layers = [tap for tap in shared if tap.startswith("qformer.")]
        drawn = [(tap, baseline, tap) for tap in (*layers[: len(layers) // 2][-1:], "projector")]
    return [_arrow_figure(analysis, source, start, end) for start, source, end in drawn]


def _arrow_figure(analysis: Analysis, source: Analysis, start: str, end: str) -> Figure:
    taps = source.taps[start], analysis.taps[end]
    own = own_ceilings(*taps)
    before, after = (relative_places(tap, own=own) for tap in taps)
    arrows = [
        charts.Arrow(
            f"{a}–{b}",
            (100 * before[a, b][0], before[a, b][1]),
            (100 * after[a, b][0], after[a, b][1]),
            _group((a, b), analysis.heard),
        )
        for a, b in after
        if (a, b) in before
    ]
    arrows.sort(key=lambda arrow: arrow.group)
    if source is analysis:
        title = f"From {place(start)} to {place(end)}, {analysis.name}"
        ends = f"from the {place(start)} (ring) to the {place(end)} (head)"
    else:
        title = f"{source.name} to {analysis.name}, {place(end)}"
        ends = f"from {source.name} (ring) to {analysis.name} (head)"
    caption = (
        f"Each arrow is a pair of languages, {ends}: to the right it finds more sentences, upwards "
        "the two languages use the space more alike: 1 − JSD over what it would be if the language "
        f"said nothing ({'the ceiling of each pair' if own else 'the mean ceiling of all pairs'})."
    )
    drawing = charts.arrow_chart(
        arrows,
        title=title,
        description=caption,
        x_label="R@1, mean of both directions, %",
        y_label="1 − JSD / ceiling",
    )
    return Figure(f"arrows_{end}", title, drawing, caption)


def _group(pair: tuple[str, str], heard: Sequence[str] | None) -> str:
    if heard is None:
        return ""
    return "both heard" if set(pair) <= set(heard) else "with an unheard"


def _lines(analysis: Analysis, baseline: Analysis | None) -> Iterator[Figure]:
    runs = [run for run in (baseline, analysis) if run is not None]
    taps = list(dict.fromkeys(tap for run in (analysis, *runs) for tap in run.taps))
    taps.sort(key=_depth)
    for name, title, axis, keys, factor, scale, caption in LINES:
        known = {key for run in runs for found in run.taps.values() for key in found.headline()}
        if not any(key in known for key, _, _ in keys):
            keys = tuple((f"{key.split(',')[0]}, all", "", 0) for key, _, _ in keys[:1])
        series = [
            _series(run, runs, taps, place, *line, factor)
            for place, run in enumerate(runs)
            for line in keys
        ]
        chance = _chance(analysis, name)
        if chance is not None:
            everywhere = range(len(taps))
            series.append(
                charts.Series("chance", everywhere, [100 * chance] * len(taps), 7, dash=2)
            )
        drawing = charts.line_chart(
            [item for item in series if len(item.x)],
            title=title,
            description=caption,
            x_label=ORDER,
            y_label=axis,
            x_names=[_short(tap) for tap in taps],
            log=scale == "log",
            zero=scale == "zero",
        )
        yield Figure(name, title, drawing, caption)


def _chance(analysis: Analysis, name: str) -> float | None:
    """Of a line chart's measure, the same at every tap; of R@1 the mean over language pairs."""
    found = analysis.taps["projector"]
    if name == "recall":
        return statistics.fmean(pair.chance for pair in found.retrieval.pairs.values())
    return found.probe.chance if name == "probe" else None


def _series(
    run: Analysis,
    runs: Sequence[Analysis],
    taps: Sequence[str],
    place: int,
    key: str,
    name: str,
    dash: int,
    factor: float,
) -> charts.Series:
    found = {tap: measures.headline() for tap, measures in run.taps.items()}
    drawn = [(x, found[tap][key]) for x, tap in enumerate(taps) if key in found.get(tap, {})]
    label = ", ".join(part for part in (run.name if len(runs) > 1 else "", name) if part)
    return charts.Series(
        label or run.name, [x for x, _ in drawn], [factor * y for _, y in drawn], place, dash
    )


def _depth(tap: str) -> tuple[int, int]:
    order = {"encoder": 0, "compensated": 1, "projector": 3}
    return (order[tap], 0) if tap in order else (2, int(tap.removeprefix("qformer.")))


def _short(tap: str) -> str:
    names = {"encoder": "enc.", "compensated": "comp.", "projector": "proj."}
    return names.get(tap) or tap.removeprefix("qformer.")
