"""The figures of an analysis, each a chart with one sentence on how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import VIEWED, Analysis, View
from slam_potsa.evaluation.figures import Arrow, Series
from slam_potsa.evaluation.measures import TapMeasures
from slam_potsa.evaluation.transport_view import TransportView
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
    """Views in the plane, heat map, arrows, curves of each measure over the taps, and plans."""
    found = _of_one(analysis, VIEWED)
    if baseline is not None:
        found += [
            replace(figure, name=f"baseline_{figure.name}")
            for figure in _of_one(baseline, ("projector",))
        ]
    found.append(_arrows(analysis, baseline))
    return found + [_curve_figure(analysis, baseline, curve) for curve in CURVES]


def write_figures(folder: Path, drawn: Sequence[Figure]) -> None:
    """Each figure as `<name>.svg`, a file of its own."""
    for figure in drawn:
        atomic_write(folder / f"{figure.name}.svg", figures.standalone(figure.svg))


def _of_one(analysis: Analysis, taps: Sequence[str]) -> list[Figure]:
    views = [_view(analysis, view) for view in analysis.views if view.tap in taps]
    plans = [_plan(analysis, view, n) for n, view in enumerate(analysis.plans, start=1)]
    return [*views, _heat_map(analysis), *plans]


def _view(analysis: Analysis, view: View) -> Figure:
    title = f"{METHODS[view.method]}, {TAPS[view.tap][0]}, {analysis.name}"
    axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(view.explained, start=1)]
    share = 100 * analysis.taps[view.tap].numbers["language share"]
    reading = (
        f"of the variance of all recordings {share:.1f} % lies between languages."
        if axes
        else "who is near whom means something, distances across the picture do not."
    )
    how = {"title": title, "order": analysis.languages, "components": axes}
    svg = figures.scatter_chart(view.points, view.languages, **how)
    caption = f"Each point is a recording, colour and shape its language; {reading}"
    return Figure(f"{view.method}_{view.tap}", title, svg, caption)


def _heat_map(analysis: Analysis) -> Figure:
    found, title = analysis.taps["projector"], f"R@1 of language pairs, {analysis.name}"
    cells = {tuple(pair.split()): 100 * recall for pair, recall in found.pairs["R@1"].items()}
    labels = {"title": title, "x_label": "searched", "y_label": "searching"}
    heard = analysis.languages if analysis.heard is None else analysis.heard
    unheard = [name for name in analysis.languages if name not in heard]
    caption = (
        "In per cent at the projector’s output: how often a recording of the row’s language finds "
        "its sentence in the column’s"
        + (f"; never heard in training: {', '.join(unheard)}" if unheard else "")
        + f". Chance: {100 * found.numbers['R@1 chance, all']:.1f} %."
    )
    svg = figures.heat_map(analysis.languages, cells, **labels)
    return Figure("heat_map", title, svg, caption)


def _plan(analysis: Analysis, view: TransportView, number: int) -> Figure:
    pair = " – ".join(view.languages)
    title = f"Transport plan {number}, {pair}, layer {view.layer}, {analysis.name}"
    svg = figures.plan_chart(view.plan, view.spans, view.languages, title=title)
    said = "; ".join(map("{}: “{}”".format, view.languages, view.said))
    caption = (
        f"{said}. The darker, the more mass goes from one token to the other; bars: the speech "
        f"that tokens attend to. Cost ⟨Γ, C⟩ {view.cost:.3g}; {100 * view.diagonal:.0f} % of the "
        f"mass stays with the same query ({100 / len(view.plan):.0f} % where all tokens are alike)."
    )
    return Figure(f"plan_{number}", title, svg, caption)


def _arrows(analysis: Analysis, baseline: Analysis | None) -> Figure:
    """From the baseline to the analysis, at the projector's output (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling: the raw one falls where its ceiling falls, although
    the languages came closer to it. The paper does not say at which tap. Without a baseline: from
    the encoder's output to the projector's.
    """
    source, tap = (analysis, "encoder") if baseline is None else (baseline, "projector")
    title = f"{source.name} to {analysis.name}, projector output"
    if baseline is None:
        title = f"From encoder output to projector output, {analysis.name}"
    before, after = _places(source.taps[tap]), _places(analysis.taps["projector"])
    arrows = [
        Arrow("–".join(pair), before[pair], after[pair], _group(pair, analysis.heard))
        for pair in after
        if pair in before
    ]
    arrows.sort(key=lambda arrow: arrow.group)
    labels = {"x_label": "R@1, mean of both directions, %", "y_label": "1 − JSD / ceiling"}
    caption = (
        "Each arrow is a pair of languages, from ring to head: to the right it finds more "
        "sentences, upwards the two languages use the space more alike: 1 − JSD over what it would "
        "be if the language said nothing (the ceiling of each pair)."
    )
    svg = figures.arrow_chart(arrows, title=title, **labels)
    return Figure("arrows_projector", title, svg, caption)


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
