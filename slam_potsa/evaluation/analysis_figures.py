"""The figures of an analysis, each a chart with one sentence on how to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import SHOWN, VIEWED, Analysis, View
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


class Figure(NamedTuple):
    """`svg` is a chart of `figures`; `caption` is plain text."""

    name: str
    title: str
    svg: str
    caption: str


def draw(analysis: Analysis, baseline: Analysis | None = None) -> list[Figure]:
    """Views in the plane, heat map, arrows, curves of each measure over the taps, and plans."""
    found, runs = _of_one(analysis, VIEWED), [analysis]
    if baseline is not None:
        theirs, runs = _of_one(baseline, ("projector",)), [baseline, analysis]
        found += [figure._replace(name=f"baseline_{figure.name}") for figure in theirs]
    return [*found, _arrows(*runs), *(_curve(runs, curve) for curve in SHOWN["curves"])]


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
    reading = "who is near whom means something, distances across the picture do not."
    if axes:
        reading = f"of the variance of all recordings {share:.1f} % lies between languages."
    how = {"title": title, "order": analysis.languages, "components": axes}
    svg = figures.scatter_chart(view.points, view.languages, **how)
    caption = f"Each point is a recording, colour and shape its language; {reading}"
    return Figure(f"{view.method}_{view.tap}", title, svg, caption)


def _heat_map(analysis: Analysis) -> Figure:
    found, title = analysis.taps["projector"], f"R@1 of language pairs, {analysis.name}"
    cells = {tuple(pair.split()): 100 * recall for pair, recall in found.pairs["R@1"].items()}
    labels = {"title": title, "x_label": "searched", "y_label": "searching"}
    heard = analysis.languages if analysis.heard is None else analysis.heard
    unheard = ", ".join(name for name in analysis.languages if name not in heard)
    never = f"; never heard in training: {unheard}" if unheard else ""
    caption = (
        "In per cent at the projector’s output: how often a recording of the row’s language finds "
        f"its sentence in the column’s{never}. "
        f"Chance: {100 * found.numbers['R@1 chance, all']:.1f} %."
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


def _arrows(source: Analysis, analysis: Analysis | None = None) -> Figure:
    """From the baseline to the analysis, at the projector's output (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling: the raw one falls where its ceiling falls, although
    the languages came closer to it. The paper does not say at which tap. Of one run alone: from
    the encoder's output to the projector's.
    """
    title = f"From encoder output to projector output, {source.name}"
    if analysis is not None:
        title = f"{source.name} to {analysis.name}, projector output"
    before = _places(source.taps["encoder" if analysis is None else "projector"])
    analysis = analysis or source
    arrows = [
        Arrow("–".join(pair), before[pair], after, _group(pair, analysis.heard))
        for pair, after in _places(analysis.taps["projector"]).items()
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


def _curve(runs: Sequence[Analysis], curve: dict[str, Any]) -> Figure:
    """A measure over the taps; of two runs the first is the baseline."""
    taps = list(max(runs, key=lambda run: len(run.taps)).taps)  # who subtracts biases has one more
    lines, factor = curve["lines"], 100 if curve["axis"].endswith("%") else 1
    if runs[-1].heard is None:
        lines = curve.get("heard_unknown", lines)

    def line(run: Analysis, key: str, name: str, color: int, dash: int) -> Series:
        numbers = [run.taps[tap].numbers if tap in run.taps else {} for tap in taps]
        values = [factor * found.get(key, math.nan) for found in numbers]
        return Series(name or run.name, range(len(taps)), values, color, dash)

    series = [
        line(run, key, f"{run.name}, {name}" if name and runs[1:] else name, color, dash)
        for color, run in enumerate(runs)
        for dash, (key, name) in enumerate(lines.items())
    ]
    if "chance" in curve:
        series.append(line(runs[0], curve["chance"], "chance", 7, 2))
    svg = figures.line_chart(
        series,
        title=curve["title"],
        x_label=ORDER,
        y_label=curve["axis"],
        x_names=[TAPS[tap][1] if tap in TAPS else tap.removeprefix("qformer.") for tap in taps],
        log=curve["name"] == "transport_costs",
        zero=curve["name"] != "overlap",
    )
    return Figure(curve["name"], curve["title"], svg, curve["caption"])
