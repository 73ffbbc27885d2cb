"""Groups of bars with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slam_potsa.evaluation.charts.drawing import (
    Frame,
    color,
    empty_chart,
    frame,
    legend,
    svg,
    text,
)


@dataclass(frozen=True)
class Bar:
    """A value with its interval; `low` and `high` are left out together."""

    value: float
    low: float | None = None
    high: float | None = None


def bar_chart(
    categories: Sequence[str],
    bars: Mapping[str, Sequence[Bar | None]],
    *,
    title: str,
    description: str = "",
    y_label: str = "",
    height: int = 280,
) -> str:
    """Groups of bars with their intervals: `bars[system][i]` stands over `categories[i]`."""
    values = [bar for row in bars.values() for bar in row if bar is not None]
    if not values:
        return empty_chart(title, "no scores")
    key, top = legend([(name, place, 0) for place, name in enumerate(bars)], "bar")
    highest = max(max(bar.value, bar.high or 0.0) for bar in values)
    plot = frame((0, len(categories)), (0.0, highest * 1.08 or 1.0), top, height)
    parts = [key, plot.axes("", y_label, x_ticks=False)]
    slot = plot.x(1) - plot.x(0)
    width = min(26.0, 0.72 * slot / max(len(bars), 1))
    for place, category in enumerate(categories):
        middle = plot.x(place + 0.5)
        parts.append(text(middle, plot.bottom + 16, category, "middle"))
        for number, row in enumerate(bars.values()):
            left = middle + (number - len(bars) / 2) * width
            if row[place] is not None:
                parts.append(_bar(plot, row[place], left, width, number))
    return svg(parts, height, title, description)


def _bar(plot: Frame, bar: Bar, left: float, width: float, number: int) -> str:
    top = plot.y(max(bar.value, 0.0))
    drawing = (
        f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
        f'height="{max(plot.bottom - top, 0.5):.1f}" style="fill:{color(number)}"/>'
    )
    if bar.low is None or bar.high is None:
        return drawing
    middle, high, low = left + width / 2, plot.y(bar.high), plot.y(max(bar.low, 0.0))
    whisker = f"M{middle:.1f} {high:.1f}V{low:.1f}M{middle - 3:.1f} {high:.1f}h6"
    return drawing + f'<path d="{whisker}M{middle - 3:.1f} {low:.1f}h6" class="whisker"/>'
