"""The figures of an analysis, each a chart with one sentence on how to read it.

Captions, and which curves there are, stand in analysis.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from slam_potsa.evaluation import figures
from slam_potsa.evaluation.analysis import SHOWN, Analysis
from slam_potsa.evaluation.figures import Arrow, Series
from slam_potsa.files import atomic_write

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
    """Views in the plane, heat map, arrows, and curves of each measure over the taps.

    Of a baseline too what is of the projector's output; its names begin with "baseline_".
    """
    runs = [analysis] if baseline is None else [baseline, analysis]
    found = [*_of_one(analysis, [*analysis.planes])]
    if baseline is not None:
        theirs = _of_one(baseline, ["pca_projector", "tsne_projector"])
        found += [figure._replace(name=f"baseline_{figure.name}") for figure in theirs]
    return [*found, _arrows(runs), *(_curve(runs, name) for name in SHOWN["curves"])]


def write_figures(folder: Path, drawn: Sequence[Figure]) -> None:
    """Each figure as `<name>.svg`, a file of its own."""
    for figure in drawn:
        atomic_write(folder / f"{figure.name}.svg", figures.standalone(figure.svg))


def _of_one(run: Analysis, planes: Sequence[str]) -> Iterator[Figure]:
    for name in planes:
        method, tap = name.split("_")
        shares = run.numbers[tap]["PCA, first"], run.numbers[tap]["PCA, second"]
        axes = [f"component {n} ({100 * s:.0f} %)" for n, s in enumerate(shares, start=1)]
        how = {"order": run.languages, "components": axes if method == "pca" else ()}
        title = f"{METHODS[method]}, {TAPS[tap][0]}, {run.name}"
        svg = figures.scatter_chart(run.planes[name], run.shown, title=title, **how)
        yield Figure(name, title, svg, SHOWN["captions"][method])
    recalls, title = run.pairs["projector"]["R@1"], f"R@1 of language pairs, {run.name}"
    cells = {tuple(pair.split()): 100 * recall for pair, recall in recalls.items()}
    how = {"x_label": "searched", "y_label": "searching"}
    svg = figures.heat_map(run.languages, cells, title=title, **how)
    yield Figure("heat_map", title, svg, SHOWN["captions"]["heat_map"])


def _arrows(runs: Sequence[Analysis]) -> Figure:
    """From the baseline, or else from the encoder's output, to the projector's (Fig. 3 bottom).

    1 − JSD is drawn relative to its ceiling: the raw one falls where its ceiling falls, although
    the languages came closer to it. The paper does not say at which tap.
    """
    run, alone = runs[-1], len(runs) == 1
    before, after = _places(runs[0], "encoder" if alone else "projector"), _places(run, "projector")
    title = f"From {TAPS['encoder'][0] if alone else runs[0].name} to {run.name}, projector output"
    arrows = [Arrow(p.replace(" ", "–"), before[p], after[p], _group(p, run)) for p in after]
    arrows.sort(key=lambda arrow: arrow.group)
    how = {"x_label": "R@1, mean of both directions, %", "y_label": "1 − JSD / ceiling"}
    svg = figures.arrow_chart(arrows, title=title, **how)
    return Figure("arrows_projector", title, svg, SHOWN["captions"]["arrows"])


def _places(run: Analysis, tap: str) -> dict[str, tuple[float, float]]:
    """(R@1 in per cent, 1 − JSD / ceiling) of each pair of languages; R@1 of both directions."""
    found, places = run.pairs[tap], {}
    for pair, overlap in found["1-JSD"].items():
        back = " ".join(reversed(pair.split()))
        recall = 50 * (found["R@1"][pair] + found["R@1"][back])
        places[pair] = recall, overlap / (found["1-JSD ceiling"][pair] or math.nan)
    return places


def _group(pair: str, run: Analysis) -> str:
    unheard = {*pair.split()} - {*(run.heard or ())}
    return "" if run.heard is None else "with an unheard" if unheard else "both heard"


def _curve(runs: Sequence[Analysis], name: str) -> Figure:
    """A measure over the taps; of two runs the first is the baseline."""
    curve = SHOWN["curves"][name]
    taps = list(max((run.numbers for run in runs), key=len))  # who has biases has a tap more
    lines, factor = curve["lines"], 100 if curve["axis"].endswith("%") else 1
    if runs[-1].heard is None:
        lines = curve.get("heard_unknown", lines)

    def line(run: Analysis, key: str, name: str, color: int, dash: int) -> Series:
        values = [factor * run.numbers.get(tap, {}).get(key, math.nan) for tap in taps]
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
        x_label="encoder output, after compensation, Q-Former layers, projector",
        y_label=curve["axis"],
        x_names=[TAPS[tap][1] if tap in TAPS else tap.removeprefix("qformer.") for tap in taps],
        log=name == "transport_costs",
    )
    return Figure(name, curve["title"], svg, curve["caption"])
