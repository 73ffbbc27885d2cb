"""Rows of cells: which layer was aligned at which step; one number for each pair of names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from slam_potsa.evaluation.charts.drawing import (
    CHARACTER,
    WIDTH,
    color,
    empty_chart,
    number,
    ratio,
    svg,
    text,
    ticks,
)

DEEPEST = 0.55  # opacity of the highest cell, so that its number stays legible on every page
NARROWEST = 25  # a cell narrower than this shows its number as a tooltip only


def schedule_chart(
    steps: Sequence[int],
    layers: Sequence[Iterable[int]],
    *,
    title: str,
    description: str = "",
) -> str:
    """Which layer was aligned at which step, a row a layer, and each layer's share at the right.

    Args:
        steps: optimizer steps.
        layers: the layers of each step, numbered from 1.
    """
    chosen = [(step, layer) for step, row in zip(steps, layers, strict=True) for layer in row]
    if not chosen:
        return empty_chart(title, "no layer was scheduled")
    rows = sorted({layer for _, layer in chosen})
    row_height, top = 24, 26
    height = top + row_height * len(rows) + 42
    left, right = 48, WIDTH - 116
    first, last = min(steps), max(steps)
    parts = [text(right + 12, top - 8, "share of steps")]
    for place, layer in enumerate(rows):
        y = top + row_height * (len(rows) - 1 - place)
        taken = [step for step, other in chosen if other == layer]
        share = len(taken) / len(steps)
        places = {round(left + (right - left) * ratio(step, first, last), 1) for step in taken}
        marks = "".join(f"M{x} {y + 4}v{row_height - 8}" for x in sorted(places))
        stroke = min(max(0.8, 0.7 * (right - left) / max(len(steps), 1)), 5.0)
        paint = f"stroke:{color(0)};stroke-width:{stroke:.2f}"
        parts.append(text(left - 8, y + 16, f"{layer}", "end"))
        parts.append(f'<path d="M{left} {y + row_height}H{right}" class="grid"/>')
        parts.append(f'<path d="{marks}" style="{paint}" opacity=".75"/>')
        parts.append(
            f'<rect x="{right + 12}" y="{y + 6}" width="{56 * share:.1f}" '
            f'height="{row_height - 12}" style="fill:{color(0)}"/>'
        )
        parts.append(text(WIDTH - 2, y + 16, f"{100 * share:.0f} %", "end"))
    bottom = top + row_height * len(rows)
    for tick in ticks(first, last, 5):
        x = left + (right - left) * ratio(tick, first, last)
        parts.append(text(x, bottom + 16, number(tick), "middle"))
    parts.append(text((left + right) / 2, bottom + 34, "step", "middle"))
    parts.append(text(left - 8, top - 8, "layer", "end"))
    return svg(parts, height, title, description)


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], float],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    low: float = 0.0,
    high: float = 100.0,
    decimals: int = 0,
) -> str:
    """A table of numbers, coloured from `low` (none) to `high` (full); missing cells stay empty.

    The number stands in its cell: the colour is a second way to see it, never the only one.
    """
    shown = {pair: value for pair, value in cells.items() if math.isfinite(value)}
    if not shown:
        return empty_chart(title, "no pairs")
    left = 30 + CHARACTER * max(map(len, rows))
    top, width = 42.0, (WIDTH - 10 - left) / len(columns)
    row_height = min(34.0, max(22.0, width))
    height = top + row_height * len(rows) + 8
    parts = [text(left + width * len(columns) / 2, 14, x_label, "middle")]
    parts.append(
        f'<text transform="translate(12 {(top + height) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    for place, name in enumerate(columns):
        parts.append(text(left + width * (place + 0.5), top - 8, name, "middle"))
    for line, row in enumerate(rows):
        y = top + row_height * line
        parts.append(text(left - 8, y + row_height / 2 + 4, row, "end"))
        for place, column in enumerate(columns):
            value = shown.get((row, column))
            box = (left + width * place, y, width, row_height)
            words = "" if value is None else f"{value:.{decimals}f}"
            share = None if value is None else min(max(ratio(value, low, high), 0.0), 1.0)
            parts.append(_cell(box, share, words, f"{row} → {column}: {words}"))
    return svg(parts, height, title, description)


def _cell(box: tuple[float, ...], share: float | None, words: str, tooltip: str) -> str:
    x, y, width, height = box
    place = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{height - 2:.1f}"'
    if share is None:
        return f'<rect {place} class="grid"/>'
    depth = f'style="fill:{color(0)}" fill-opacity="{DEEPEST * share:.3f}"'
    inside = text(x + width / 2, y + height / 2 + 4, words, "middle") if width > NARROWEST else ""
    return f"<g><title>{escape(tooltip)}</title><rect {place} {depth}/>{inside}</g>"
