"""Points in the plane by label, and arrows from one place to another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from slam_potsa.evaluation.charts.drawing import (
    CHARACTER,
    FONT,
    WIDTH,
    Frame,
    color,
    empty_chart,
    frame,
    legend,
    mark,
    span,
    svg,
    text,
)

HEAD = 6.0  # length of an arrow's head


@dataclass(frozen=True)
class Arrow:
    """From `start` to `end`, each (x, y); arrows of one `group` have one colour."""

    name: str
    start: tuple[float, float]
    end: tuple[float, float]
    group: str = ""


def scatter_chart(
    points: Sequence[Sequence[float]],
    labels: Sequence[str],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    order: Sequence[str] = (),
    numbers: bool = True,
    height: int = 330,
) -> str:
    """Points [n, 2], coloured and shaped by label. `order` fixes which label gets which colour.

    `numbers=False` leaves the axes away, where coordinates mean nothing.
    """
    kept = [(float(p[0]), float(p[1]), name) for p, name in zip(points, labels, strict=True)]
    kept = [(x, y, name) for x, y, name in kept if math.isfinite(x) and math.isfinite(y)]
    if not kept:
        return empty_chart(title, "no points")
    names = list(dict.fromkeys([*order, *sorted({name for _, _, name in kept})]))
    key, top = legend([(name, place, 0) for place, name in enumerate(names)], "mark")
    xs, ys = span([x for x, _, _ in kept]), span([y for _, y, _ in kept])
    plot = frame(xs, ys, top, height)
    parts = [key, plot.axes(x_label, y_label) if numbers else plot.box()]
    for place, name in enumerate(names):
        path = "".join(mark(place, plot.x(x), plot.y(y)) for x, y, n in kept if n == name)
        parts.append(f'<path d="{path}" style="fill:{color(place)}" opacity=".72"/>')
    return svg(parts, height, title, description)


def arrow_chart(
    arrows: Sequence[Arrow],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    height: int = 380,
) -> str:
    """An arrow each, its name beside the head where there is room (and as its tooltip).

    Arrows with an end that is not finite are left out.
    """
    kept = [a for a in arrows if all(map(math.isfinite, (*a.start, *a.end)))]
    if not kept:
        return empty_chart(title, "no pairs")
    groups = list(dict.fromkeys(arrow.group for arrow in kept))
    named = [(name, place, 0) for place, name in enumerate(groups) if name]
    key, top = legend(named, "bar") if named else ("", 16.0)
    # Wider than the arrows, so that names find room.
    xs = span(span([x for arrow in kept for x, _ in (arrow.start, arrow.end)]))
    ys = span(span([y for arrow in kept for _, y in (arrow.start, arrow.end)]))
    plot = frame(xs, ys, top, height)
    parts = [key, plot.axes(x_label, y_label)]
    # The first ones on top.
    parts += [_arrow(plot, arrow, groups.index(arrow.group)) for arrow in reversed(kept)]
    parts += _names(plot, kept)
    return svg(parts, height, title, description)


def _arrow(plot: Frame, arrow: Arrow, place: int) -> str:
    """A ring at the start, a shaft, and a head whose point is the end; a disc where none fits."""
    (x0, y0), (x1, y1) = ((plot.x(x), plot.y(y)) for x, y in (arrow.start, arrow.end))
    length = math.hypot(x1 - x0, y1 - y0)
    paint = color(place)
    ring = f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="2.6" fill="none" style="stroke:{paint}"/>'
    shaft = f'<circle cx="{x1:.1f}" cy="{y1:.1f}" r="1.6" style="fill:{paint}"/>'
    if length > HEAD:
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        bx, by = x1 - HEAD * ux, y1 - HEAD * uy  # where the head begins
        wx, wy = 0.45 * HEAD * uy, -0.45 * HEAD * ux
        shaft = (
            f'<path d="M{x0:.1f} {y0:.1f}L{bx:.1f} {by:.1f}" style="stroke:{paint}" '
            f'stroke-width="1.5"/><path d="M{x1:.1f} {y1:.1f}L{bx + wx:.1f} {by + wy:.1f}'
            f'L{bx - wx:.1f} {by - wy:.1f}z" style="fill:{paint}"/>'
        )
    name = escape(arrow.name)
    return f'<g class="arrow" opacity=".85"><title>{name}</title>{ring}{shaft}</g>'


def _names(plot: Frame, arrows: Sequence[Arrow]) -> Iterator[str]:
    """Names beside heads, the farthest from the middle first; who finds no room goes without."""
    ends = [(plot.x(arrow.end[0]), plot.y(arrow.end[1])) for arrow in arrows]
    starts = [(plot.x(arrow.start[0]), plot.y(arrow.start[1])) for arrow in arrows]
    taken = [box for start, end in zip(starts, ends, strict=True) for box in _along(start, end)]
    middle = (sum(x for x, _ in ends) / len(ends), sum(y for _, y in ends) / len(ends))
    order = sorted(range(len(ends)), key=lambda i: -math.dist(ends[i], middle))
    for i in order:
        width = CHARACTER * len(arrows[i].name)
        for box, x, y, anchor in _places(*ends[i], width):
            inside = box[0] > plot.left and box[2] < WIDTH and box[1] > plot.top - 12
            if inside and box[3] < plot.bottom and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield text(x, y, arrows[i].name, anchor)
                break


def _along(
    start: tuple[float, float], end: tuple[float, float]
) -> Iterator[tuple[float, float, float, float]]:
    """Small boxes that cover a straight line."""
    count = max(1, round(math.dist(start, end) / 4))
    for step in range(count + 1):
        x, y = (a + (b - a) * step / count for a, b in zip(start, end, strict=True))
        yield x - 2, y - 2, x + 2, y + 2


def _places(
    x: float, y: float, width: float
) -> Iterator[tuple[tuple[float, ...], float, float, str]]:
    """(box, x, y, anchor) of a name to the right, left, above and below of a point."""
    yield (x + 5, y - 5, x + 5 + width, y + 5), x + 5, y + 4, "start"
    yield (x - 5 - width, y - 5, x - 5, y + 5), x - 5, y + 4, "end"
    yield (x - width / 2, y - 4 - FONT, x + width / 2, y - 4), x, y - 6, "middle"
    yield (x - width / 2, y + 4, x + width / 2, y + 4 + FONT), x, y + 14, "middle"
    for across, anchor in ((5, "start"), (-5 - width, "end")):
        for down in (-11, 11):
            box = (x + across, y + down - 5, x + across + width, y + down + 5)
            yield box, x + math.copysign(5, across), y + down + 4, anchor


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
