"""Charts by matplotlib: data in, one `<svg>` element out, the same bytes for the same data.

The element stands in a page as it is: its text is text in the page's font and colour
(`currentColor`), series take the CSS variables `--c0` … `--c7` where the page sets them, and its
ids have its title mixed in. `standalone` makes a file of one. It is WIDTH units wide, to be read on
a phone, or two beside each other on a desktop. Series differ in dash or mark besides colour; values
that are not finite are left out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from slam_potsa.errors import refuse

WIDTH = 480
# Okabe and Ito's palette; page.css has lighter ones for dark pages.
PALETTE = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#4d4d4d",
)  # fmt: skip
DASHES = ("-", (0, (3.5, 1.7)), (0, (1, 1.7)), (0, (4, 1.5, 1, 1.5)))
MARKS = "os^DPv"
POINTS = 240  # a longer line is drawn as the mean and the range of this many stretches
STYLE = Path(__file__).with_name("charts.mplstyle")
ALONE = "<style>:root{color:#1c2024;background:#fff;font-family:system-ui,sans-serif}</style>"
# What makes matplotlib's drawing a part of a page: no fonts or names of its own, ink from the page.
TIDY = (
    (r" font-family: [^;\"]*;?", ""),
    (r' transform="rotate\(-0 [^)]*\)"', ""),
    (r'<g id="named ([^"]*)">', r"<g><title>\1</title>"),
    (r'<g id="[^"]*"', "<g"),
    (r"#000000", "currentColor"),
    (r"\s*\n\s*", " "),
)


class Series(NamedTuple):
    """A line; `color` is its place in the palette."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int = 0
    dash: int = 0


class Arrow(NamedTuple):
    """From `start` to `end`, each (x, y); arrows of one `group` have one colour."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    group: str = ""


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str = "step",
    y_label: str = "",
    x_names: Sequence[str] = (),
    log: bool = False,
) -> str:
    """Lines over a shared x axis. A long one is drawn as stretches: mean, with range behind.

    Args:
        x_names: stand at x = 0, 1, … in the place of numbers, and each point is marked.
        log: a logarithmic y axis, without values that are not positive. Otherwise the axis of
            values that are not negative begins at 0.
    """
    with _drawing(title, x_label, y_label) as drawing:
        axes = drawing.axes
        for item in series:
            _line(axes, item, log, bool(x_names))
        if x_names:
            axes.set_xticks(range(len(x_names)), x_names)
            axes.set_xlim(-0.4, len(x_names) - 0.6)
        if log:
            axes.set_yscale("log", subs=(2, 5))
            axes.yaxis.set_major_formatter("{x:g}")
            wide = axes.dataLim.ymax > 1000 * axes.dataLim.ymin
            axes.yaxis.set_minor_formatter("" if wide else "{x:g}")
        elif axes.dataLim.ymin >= 0:
            axes.set_ylim(0, 1.05 * axes.dataLim.ymax or 1)
        _legend(axes)
    return drawing.svg


def bar_chart(
    categories: Sequence[str],
    bars: Mapping[str, Sequence[Any]],
    *,
    title: str,
    y_label: str = "",
) -> str:
    """Groups of bars with their intervals: `bars[system][i]` stands over `categories[i]`.

    A bar has a value, and low and high, which are None together; None is no bar.
    """
    with _drawing(title, y_label=y_label) as drawing:
        axes, width = drawing.axes, 0.72 / max(len(bars), 2)
        for number, (name, row) in enumerate(bars.items()):
            shift = (number - (len(bars) - 1) / 2) * width
            drawn = [(n + shift, b.value, b.low, b.high) for n, b in enumerate(row) if b]
            places, values, low, high = np.array(drawn, dtype=float).reshape(-1, 4).T
            axes.bar(places, values, 0.92 * width, color=_color(number), label=name)
            known = np.isfinite(low) & np.isfinite(high)
            axes.vlines(places[known], low[known], high[known], colors="black", linewidth=1.2)
        axes.set_xticks(range(len(categories)), categories)
        axes.set_xlim(-0.5, len(categories) - 0.5)
        if axes.get_ylim()[0] < 0:
            axes.axhline(0, color="black", linewidth=0.8)
        else:
            axes.set_ylim(bottom=0)
        _legend(axes)
    return drawing.svg


def schedule_chart(steps: Sequence[int], layers: Sequence[Sequence[int]], *, title: str) -> str:
    """Which layer was aligned at which step, a row a layer, with each layer's share of the steps.

    `steps` are optimizer steps, in order; `layers` those of each step, numbered from 1.
    """
    rows = sorted({layer for row in layers for layer in row})
    chosen = np.array([[layer in row for row in layers] for layer in rows], dtype=float)
    shares = [f"{row}: {100 * s:.0f} %" for row, s in zip(rows, chosen.mean(axis=1), strict=True)]
    with _drawing(title, "step", "layer", height=24 * len(rows) + 68) as drawing:
        edges = min(steps) - 0.5, max(steps) + 0.5, -0.5, len(rows) - 0.5
        _shade(drawing.axes, _stretches(chosen)[::-1], edges)
        drawing.axes.set_yticks(range(len(rows)), shares)
    return drawing.svg


def reading_chart(weights: Any, *, title: str, frame: float = 0.02) -> str:
    """Where in a recording each speech token looks: a row a token, strongest where it looks most.

    `weights` [N, T] of `activations.reading`, frames of `frame` seconds; the last frames that no
    token reads, and the last tokens that read none, are padding and left out.
    """
    read = np.asarray(weights, dtype=float)
    tokens, frames = (each.max(initial=0) + 1 for each in read.nonzero())
    shades = _stretches(read[:tokens, :frames])
    shades /= shades.max(axis=1, keepdims=True).clip(min=1e-12)
    with _drawing(title, "seconds", "speech token") as drawing:
        _shade(drawing.axes, shades, (0, frames * frame, tokens + 0.5, 0.5))
        drawing.axes.yaxis.get_major_locator().set_params(integer=True)
    return drawing.svg


def scatter_chart(
    points: Sequence[Sequence[float]],
    labels: Sequence[str],
    *,
    title: str,
    order: Sequence[str] = (),
    components: Sequence[str] = (),
) -> str:
    """Points [n, 2], coloured and marked by label, in the order of `order`.

    `components` are what the axes show; without, coordinates mean nothing and are not told.
    """
    places, names = np.asarray(points, dtype=float).reshape(-1, 2), np.asarray(labels)
    with _drawing(title, *components, height=330) as drawing:
        axes = drawing.axes
        for number, name in enumerate(dict.fromkeys([*order, *sorted(set(labels))])):
            look = {"color": _color(number), "alpha": 0.72, "markeredgewidth": 0, "label": name}
            axes.plot(*places[names == name].T, MARKS[number % 6], **look)
        axes.locator_params(axis="x", nbins=6)
        if not components:
            axes.set(xticks=[], yticks=[])
        _legend(axes)
    return drawing.svg


def arrow_chart(
    arrows: Sequence[Arrow], *, title: str, x_label: str = "", y_label: str = ""
) -> str:
    """Arrows from a ring to a head, each with its name at the head where no other name is.

    All have it as a tooltip. Arrows with an end that is not finite are left out.
    """
    arrows = [arrow for arrow in arrows if np.isfinite([arrow.start, arrow.end]).all()]
    colors = {group: _color(n) for n, group in enumerate(dict.fromkeys(a.group for a in arrows))}
    with _drawing(title, x_label, y_label, height=380) as drawing:
        axes = drawing.axes
        for arrow in reversed(arrows):  # the first ones on top
            look = {"arrowstyle": "-|>", "color": colors[arrow.group], "shrinkA": 0, "shrinkB": 0}
            drawn = axes.annotate("", arrow.end, arrow.start, arrowprops=look)
            drawn.arrow_patch.set_gid(f"named {arrow.name}")
            axes.plot(*arrow.start, "o", color=colors[arrow.group], fillstyle="none")
            axes.plot(*arrow.end, ".", color=colors[arrow.group])
        for group, color in colors.items():
            axes.plot([], [], color=color, linewidth=6, label=group)
        axes.margins(0.12)
        _legend(axes)
        axes.figure.draw_without_rendering()
        taken = []
        for arrow in arrows:
            look = {"textcoords": "offset points", "va": "center", "in_layout": False}
            name = axes.annotate(arrow.name, arrow.end, (6, 0), **look)
            box = name.get_window_extent()
            name.set_visible(not box.count_overlaps(taken))
            taken += [box] if name.get_visible() else []
    return drawing.svg


def require(*modules: str) -> None:
    """InputError where one of these packages is missing."""
    refuse(
        f"{name}: not installed; charts, analyses, reports and model cards need it: "
        "pip install slam-potsa[eval]"
        for name in modules
        if find_spec(name) is None
    )


def standalone(chart: str) -> str:
    """A chart as a file of its own: font and background."""
    opening, rest = chart.split(">", 1)
    return f"{opening}>{ALONE}{rest}\n"


@contextmanager
def _drawing(
    title: str, x_label: str = "", y_label: str = "", height: float = 280
) -> Iterator[SimpleNamespace]:
    """Within: empty `.axes` to draw on. After: the element that became of them, `.svg`."""
    require("matplotlib")
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context([STYLE, {"svg.hashsalt": f"title: {title}"}], after_reset=True):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        drawing = SimpleNamespace(axes=figure.subplots())
        drawing.axes.set(xlabel=x_label, ylabel=y_label)
        yield drawing
        drawing.svg = _element(figure, title)


def _element(figure: Any, title: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True)
    # Before the first </defs> stand a header and a style that would hold for all of a page.
    head, body = file.getvalue().split("</defs>", 1)
    for pattern, tidied in TIDY:
        body = re.sub(pattern, tidied, body)
    for place, color in enumerate(PALETTE):
        body = body.replace(color, f"var(--c{place},{color})")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        + re.search(r'viewBox="[^"]*"', head)[0]
        + f' role="img" aria-label="{escape(title)}" class="chart" fill="currentColor" '
        f'stroke-linejoin="round"><title>{escape(title)}</title>{body.strip()}'
    )


def _line(axes: Any, item: Series, log: bool, marked: bool) -> None:
    x, y = np.asarray(item.x, dtype=float), np.asarray(item.y, dtype=float)
    kept = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log))
    x, y, color = x[kept], y[kept], _color(item.color)
    if len(x) > POINTS:
        parts = np.array_split(y, POINTS)
        x = [part.mean() for part in np.array_split(x, POINTS)]
        y, low, high = ([of(part) for part in parts] for of in (np.mean, np.min, np.max))
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
    look = {"color": color, "linestyle": DASHES[item.dash % 4]}
    axes.plot(x, y, label=item.name, marker=MARKS[item.color % 6] if marked else "", **look)


def _stretches(rows: np.ndarray) -> np.ndarray:
    """[R, T] as the means of at most POINTS stretches of T."""
    parts = np.array_split(rows, min(POINTS, rows.shape[1]), axis=1)
    return np.stack([part.mean(axis=1) for part in parts], axis=1)


def _shade(axes: Any, shades: np.ndarray, edges: tuple[float, float, float, float]) -> None:
    """One small picture of values from 0, transparent, to 1, the first colour."""
    from matplotlib.colors import LinearSegmentedColormap

    ink = LinearSegmentedColormap.from_list("ink", [f"{PALETTE[0]}00", PALETTE[0]])
    look = {"cmap": ink, "vmin": 0, "vmax": 1, "interpolation": "none", "aspect": "auto"}
    axes.imshow(shades, extent=edges, origin="upper", **look)


def _color(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _legend(axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    if names:
        columns = max(1, 75 // (6 + max(map(len, names))))  # in characters
        axes.figure.legend(handles, names, loc="outside upper left", ncols=columns)
