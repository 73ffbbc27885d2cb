"""Lines over training steps, or over named places such as the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slam_potsa.evaluation.charts.drawing import (
    DASHES,
    Frame,
    color,
    empty_chart,
    frame,
    legend,
    mark,
    span,
    svg,
)

POINTS = 240  # a longer line is drawn as the mean and the range of this many stretches
MARKED = 24  # lines of at most so many points over named places show each point


@dataclass(frozen=True)
class Series:
    """A line, or one member of each group of bars.

    Attributes:
        name: in the legend.
        x, y: as long as each other; points that are not finite are left out.
        color: index into the palette; by default the place of the series.
        dash: index into DASHES.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int | None = None
    dash: int = 0


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    x_label: str = "step",
    y_label: str = "",
    x_names: Sequence[str] = (),
    log: bool = False,
    zero: bool = True,
    height: int = 280,
) -> str:
    """Lines over a shared x axis. A long series is drawn as stretches: mean, with range behind.

    `x_names` stand at x = 0, 1, … in the place of numbers, and each point is marked. `log` makes
    the y axis logarithmic and leaves out values that are not positive. `zero` begins the axis of
    values that are not negative at 0.
    """
    cleaned = [(item, _finite(item, log)) for item in series]
    cleaned = [(item, points) for item, points in cleaned if points]
    if not cleaned:
        return empty_chart(title, "nothing was recorded")
    entries = [(item.name, _index(item, series), item.dash) for item, _ in cleaned]
    key, top = legend(entries, "line")
    xs = [x for _, points in cleaned for x, _ in points]
    ys = [y for _, points in cleaned for _, y in points]
    width = (-0.4, len(x_names) - 0.6) if x_names else span(xs)
    plot = frame(width, span(ys, log=log, zero=zero and not log), top, height, log=log)
    parts = [key, plot.axes(x_label, y_label, x_names=x_names)]
    for item, points in cleaned:
        marked = bool(x_names) and len(points) <= MARKED
        parts.append(_line(plot, points, _index(item, series), item.dash, marked))
    return svg(parts, height, title, description)


def _line(
    plot: Frame, points: list[tuple[float, float]], index: int, dash: int, marked: bool
) -> str:
    paint, parts = color(index), []
    means, band = _stretches(points)
    if band:
        outline = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in band)
        parts.append(f'<polygon points="{outline}" style="fill:{paint}" opacity=".16"/>')
    line = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in means)
    parts.append(
        f'<polyline points="{line}" fill="none" style="stroke:{paint}" stroke-width="1.8" '
        f'stroke-linejoin="round" stroke-dasharray="{DASHES[dash % len(DASHES)]}"/>'
    )
    if marked:
        path = "".join(mark(index, plot.x(x), plot.y(y)) for x, y in points)
        parts.append(f'<path d="{path}" style="fill:{paint}"/>')
    return "".join(parts)


def _index(item: Series, series: Sequence[Series]) -> int:
    return list(series).index(item) if item.color is None else item.color


def _finite(item: Series, log: bool) -> list[tuple[float, float]]:
    pairs = [(float(x), float(y)) for x, y in zip(item.x, item.y, strict=True)]
    pairs = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
    return [(x, y) for x, y in pairs if y > 0 or not log]


def _stretches(
    points: list[tuple[float, float]],
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(means, outline of the range) of a line of at most POINTS stretches; short lines as is."""
    if len(points) <= POINTS:
        return points, []
    size = math.ceil(len(points) / POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    middles = [sum(x for x, _ in part) / len(part) for part in parts]
    means = [sum(y for _, y in part) / len(part) for part in parts]
    upper = [(x, max(y for _, y in part)) for x, part in zip(middles, parts, strict=True)]
    lower = [(x, min(y for _, y in part)) for x, part in zip(middles, parts, strict=True)]
    return list(zip(middles, means, strict=True)), upper + lower[::-1]
