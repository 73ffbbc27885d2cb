"""The figures of an analysis, each a chart with one sentence on how to read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import Analysis, View
from slam_potsa.evaluation.figures import Arrow, Series
from slam_potsa.evaluation.measures import TapMeasures
from slam_potsa.files import atomic_write

ORDER = "encoder output, after compensation, Q-Former layers, projector"
METHODS = {"pca": "PCA", "tsne": "t-SNE"}
TAPS = {  # as a reader knows them, in full and at an axis
    "encoder": ("encoder output", "enc."),
    "compensated": ("compensated encoder output", "comp."),
    "projector": ("projector output", "proj."),
}


class Curve(NamedTuple):
    """A measure over the taps: what stands at its axis, and the name of each of its lines."""

    name: str
    title: str
    axis: str
    lines: dict[str, str]  # name in TapMeasures.numbers -> name of the line
    caption: str
    chance: str = ""  # the number that is chance


CURVES = (
    Curve(
        "recall",
        "Cross-lingual retrieval, layer by layer",
        "R@1, %",
        {"R@1, among heard": "among heard", "R@1, with an unheard": "with an unheard"},
        "Higher: more recordings have their own sentence as nearest neighbour in the other "
        "language. Dotted: chance.",
        "R@1 chance, all",
    ),
    Curve(
        "overlap",
        "Overlap of languages, layer by layer",
        "1 − JSD",
        {"1-JSD, all": "measured", "1-JSD ceiling, all": "ceiling"},
        "Closer to its ceiling: languages share their codes as often as chance allows.",
    ),
    Curve(
        "probe",
        "Language probe, layer by layer",
        "balanced accuracy, %",
        {"language probe": ""},
        "Lower: a linear classifier tells the language less well; below chance where class means "
        "were made equal on these recordings.",
        "language probe chance",
    ),
    Curve(
        "transport_costs",
        "Transport cost, same and other sentences",
        "⟨Γ, C⟩",
        {"OT matched, all": "same", "OT mismatched, all": "other"},
        "Same below other also without alignment: compare the gap with that of a run without it. "
        "A run whose lines both lie lower has a smaller space.",
    ),
    Curve(
        "rank",
        "Effective rank, layer by layer",
        "effective rank",
        {"effective rank, pooled": "pooled", "effective rank, tokens": "tokens"},
        "Lower: vectors spread over fewer directions; a fall towards 0 is collapse.",
    ),
    Curve(
        "query_share",
        "Token variance that is the query’s own",
        "share, %",
        {"query share": ""},
        "Closer to 100: a token says which query made it, and less of what was said.",
    ),
)


@dataclass(frozen=True)
class Figure:
    """`svg` is a chart of `figures`; `caption` is plain text."""

    name: str
    title: str
    svg: str
    caption: str


def draw(analysis: Analysis, baseline: Analysis | None = None) -> list[Figure]:
    """Views in the plane, heat maps, arrows, curves of each measure over the taps, plans."""
    views = [_view(analysis, view) for view in analysis.views]
    for view in baseline.views if baseline else ():
        if view.tap == "projector":
            views.append(_view(baseline, view, "baseline_"))
    curves = [_curve_figure(analysis, baseline, curve) for curve in CURVES]
    plans = [*_plans(analysis), *(_plans(baseline, "baseline_") if baseline else ())]
    return [*views, *_heat_maps(analysis, baseline), *_arrows(analysis, baseline), *curves, *plans]


def write_figures(folder: Path, drawn: Sequence[Figure]) -> None:
    """Each figure as `<name>.svg`, a file of its own."""
    for figure in drawn:
        atomic_write(folder / f"{figure.name}.svg", figures.standalone(figure.svg))


def tap_title(tap: str) -> str:
    """A tap as a reader knows it: "Q-Former layer 3"."""
    return TAPS[tap][0] if tap in TAPS else f"Q-Former layer {tap.removeprefix('qformer.')}"


def _view(analysis: Analysis, view: View, prefix: str = "") -> Figure:
    title = f"{METHODS[view.method]}, {tap_title(view.tap)}, {analysis.name}"
    axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(view.explained, start=1)]
    share = 100 * analysis.taps[view.tap].numbers["language share"]
    reading = (
        f"of the variance of all recordings {share:.1f} % lies between languages."
        if axes
        else "who is near whom means something, distances across the picture do not."
    )
    labels = {"x_label": axes[0], "y_label": axes[1]} if axes else {}
    labels |= {"title": title, "order": analysis.languages}
    svg = figures.scatter_chart(view.points, view.languages, **labels)
    caption = f"Each point is a recording, colour and shape its language; {reading}"
    return Figure(f"{prefix}{view.method}_{view.tap}", title, svg, caption)


def _heat_maps(analysis: Analysis, baseline: Analysis | None) -> Iterator[Figure]:
    """R@1 at the projector's output; with a baseline both, in the same colours."""
    runs = {"baseline_heat_map": baseline, "heat_map": analysis}
    cells = {
        name: {tuple(pair.split()): 100 * recall for pair, recall in _recalls(run).items()}
        for name, run in runs.items()
        if run is not None
    }
    order, heard, found = analysis.languages, analysis.heard, analysis.taps["projector"]
    unheard = [name for name in order if heard is not None and name not in heard]
    queries = sorted({round(count) for count in found.pairs["R@1 queries"].values()})
    caption = (
        "In per cent at the projector’s output: how often a recording of the row’s language finds "
        "its sentence in the column’s"
        + (f"; never heard in training: {', '.join(unheard)}. " if unheard else ". ")
        + f"A cell is the share of {' to '.join(map(str, {queries[0]: 0, queries[-1]: 0}))} "
        f"recordings that search; chance: {100 * found.numbers['R@1 chance, all']:.1f} %."
    )
    high = max(max(recalls.values()) for recalls in cells.values()) or 1.0
    for name, recalls in cells.items():
        title = f"R@1 of language pairs, {runs[name].name}"
        labels = {"x_label": "searched", "y_label": "searching", "high": high}
        svg = figures.heat_map(order, order, recalls, title=title, **labels)
        yield Figure(name, title, svg, caption)


def _recalls(run: Analysis) -> dict[str, float]:
    return run.taps["projector"].pairs["R@1"]


def _arrows(analysis: Analysis, baseline: Analysis | None) -> Iterator[Figure]:
    """From the baseline to the analysis at the aligned layer and at the projector (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling: the raw one falls where its ceiling falls, although
    the languages came closer to it. The paper does not say at which tap. Aligned are the lower
    Q-Former layers; the topmost of them is shown. Without a baseline: from the encoder's output to
    the projector's.
    """
    if baseline is None:
        title = f"From {tap_title('encoder')} to {tap_title('projector')}, {analysis.name}"
        yield _arrow_figure(analysis, analysis, "encoder", "projector", title)
        return
    layers = [tap for tap in analysis.taps if tap in baseline.taps and tap not in TAPS]
    for tap in (*layers[: len(layers) // 2][-1:], "projector"):
        title = f"{baseline.name} to {analysis.name}, {tap_title(tap)}"
        yield _arrow_figure(analysis, baseline, tap, tap, title)


def _arrow_figure(analysis: Analysis, source: Analysis, start: str, end: str, title: str) -> Figure:
    before, after = _places(source.taps[start]), _places(analysis.taps[end])
    arrows = [
        Arrow("–".join(pair), before[pair], after[pair], _group(pair, analysis.heard))
        for pair in after
        if pair in before
    ]
    svg = figures.arrow_chart(
        sorted(arrows, key=lambda arrow: arrow.group),
        title=title,
        x_label="R@1, mean of both directions, %",
        y_label="1 − JSD / ceiling",
    )
    caption = (
        "Each arrow is a pair of languages, from ring to head: to the right it finds more "
        "sentences, upwards the two languages use the space more alike: 1 − JSD over what it would "
        "be if the language said nothing (the ceiling of each pair)."
    )
    return Figure(f"arrows_{end}", title, svg, caption)


def _places(found: TapMeasures) -> dict[tuple[str, str], tuple[float, float]]:
    """(R@1 in per cent, 1 − JSD / ceiling) of each pair of languages; R@1 of both directions."""
    recalls, ceilings = found.pairs["R@1"], found.pairs["1-JSD ceiling"]
    places = {}
    for pair, overlap in found.pairs["1-JSD"].items():
        a, b = pair.split()
        if ceilings[pair] > 0:
            recall = 50 * (recalls[f"{a} {b}"] + recalls[f"{b} {a}"])
            places[a, b] = recall, overlap / ceilings[pair]
    return places


def _group(pair: Sequence[str], heard: Sequence[str] | None) -> str:
    if heard is None:
        return ""
    return "both heard" if set(pair) <= set(heard) else "with an unheard"


def _curve_figure(analysis: Analysis, baseline: Analysis | None, curve: Curve) -> Figure:
    runs = [run for run in (baseline, analysis) if run is not None]
    taps = list(max(runs, key=lambda run: len(run.taps)).taps)  # who subtracts biases has one more
    lines = curve.lines
    if not any(key in found.numbers for key in lines for found in analysis.taps.values()):
        lines = {f"{next(iter(lines)).split(',')[0]}, all": ""}  # who was heard is not known
    series = [
        _series(run, taps, key, name if baseline is None else f"{run.name}, {name}", color, dash)
        for color, run in enumerate(runs)
        for dash, (key, name) in enumerate(lines.items())
    ]
    if curve.chance:
        series.append(_series(runs[0], taps, curve.chance, "chance", 7, 2))
    factor = 100 if curve.axis.endswith("%") else 1
    svg = figures.line_chart(
        [replace(line, y=[factor * value for value in line.y]) for line in series],
        title=curve.title,
        x_label=ORDER,
        y_label=curve.axis,
        x_names=[TAPS[tap][1] if tap in TAPS else tap.removeprefix("qformer.") for tap in taps],
        log=curve.name == "transport_costs",
        zero=curve.name != "overlap",
    )
    return Figure(curve.name, curve.title, svg, curve.caption)


def _series(
    run: Analysis, taps: Sequence[str], key: str, name: str, color: int, dash: int
) -> Series:
    found = {
        tap: measured.numbers[key] for tap, measured in run.taps.items() if key in measured.numbers
    }
    places = [number for number, tap in enumerate(taps) if tap in found]
    values = [found[taps[number]] for number in places]
    return Series(name.removesuffix(", ") or run.name, places, values, color, dash)


def _plans(analysis: Analysis, prefix: str = "") -> Iterator[Figure]:
    """Of pairs of recordings that were chosen by their order in the manifest."""
    for number, view in enumerate(analysis.plans, start=1):
        pair = " – ".join(view.languages)
        title = f"Transport plan {number}, {pair}, layer {view.layer}, {analysis.name}"
        svg = figures.plan_chart(view.plan, view.spans, view.languages, title=title)
        said = "; ".join(map("{}: “{}”".format, view.languages, view.said))
        caption = (
            f"{said}. The darker, the more mass goes from one token to the other; bars: the speech "
            f"that tokens attend to. Cost ⟨Γ, C⟩ {view.cost:.3g}; {100 * view.diagonal:.0f} % of "
            f"the mass stays with the same query ({100 / len(view.plan):.0f} % where all tokens "
            "are alike)."
        )
        yield Figure(f"{prefix}plan_{number}", title, svg, caption)
