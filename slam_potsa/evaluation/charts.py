"""Small charts as inline SVG, written by hand: no library, no script, no font to load.

Every function returns one `<svg>` element with a title and a description for screen readers. Text
and grid take `currentColor`, so the page's colours (dark, light, print) reach them; series take the
CSS variables `--c0` … `--c7`, whose fallbacks are the Okabe–Ito palette (safe for colour-blind
readers), and differ in shape or dash besides. The drawing is 480 units wide, so that it can be read
on a phone, where two stand below each other, and on a desktop, where they stand side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 480
FONT = 12
CHARACTER = 6.4  # mean width of a character at FONT, for the layout of legends
OKABE_ITO = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#4d4d4d",
)  # fmt: skip
DASHES = ("", "6 3", "2 3", "8 3 2 3")
POINTS = 240  # a longer line is drawn as the mean and the range of this many stretches


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


@dataclass(frozen=True)
class Bar:
    """A value with its interval; `low` and `high` are left out together."""

    value: float
    low: float | None = None
    high: float | None = None


def color(index: int) -> str:
    """A CSS colour of the palette: `var(--c1,#d55e00)`."""
    index %= len(OKABE_ITO)
    return f"var(--c{index},{OKABE_ITO[index]})"


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    description: str = "",
    x_label: str = "step",
    y_label: str = "",
    log: bool = False,
    height: int = 280,
) -> str:
    """Lines over a shared x axis. A long series is drawn as stretches: mean, with range behind.

    `log` makes the y axis logarithmic and leaves out values that are not positive.
    """
    cleaned = [(item, _finite(item, log)) for item in series]
    cleaned = [(item, points) for item, points in cleaned if points]
    if not cleaned:
        return empty_chart(title, "nothing was recorded")
    entries = [(item.name, _index(item, series), item.dash) for item, _ in cleaned]
    legend, top = _legend(entries, "line")
    xs = [x for _, points in cleaned for x, _ in points]
    ys = [y for _, points in cleaned for _, y in points]
    frame = _frame(_span(xs), _span(ys, log=log, zero=not log), top, height, log=log)
    parts = [legend, frame.axes(x_label, y_label)]
    for item, points in cleaned:
        paint = color(_index(item, series))
        means, band = _stretches(points)
        if band:
            outline = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in band)
            parts.append(f'<polygon points="{outline}" style="fill:{paint}" opacity=".16"/>')
        line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in means)
        parts.append(
            f'<polyline points="{line}" fill="none" style="stroke:{paint}" stroke-width="1.8" '
            f'stroke-linejoin="round" stroke-dasharray="{DASHES[item.dash % len(DASHES)]}"/>'
        )
    return _svg(parts, height, title, description)


def scatter_chart(
    points: Sequence[Sequence[float]],
    labels: Sequence[str],
    *,
    title: str,
    description: str = "",
    x_label: str = "",
    y_label: str = "",
    order: Sequence[str] = (),
    height: int = 330,
) -> str:
    """Points [n, 2], coloured and shaped by label. `order` fixes which label gets which colour."""
    kept = [(float(p[0]), float(p[1]), name) for p, name in zip(points, labels, strict=True)]
    kept = [(x, y, name) for x, y, name in kept if math.isfinite(x) and math.isfinite(y)]
    if not kept:
        return empty_chart(title, "no points")
    names = list(dict.fromkeys([*order, *sorted({name for _, _, name in kept})]))
    legend, top = _legend([(name, place, 0) for place, name in enumerate(names)], "mark")
    xs, ys = _span([x for x, _, _ in kept]), _span([y for _, y, _ in kept])
    frame = _frame(xs, ys, top, height)
    parts = [legend, frame.axes(x_label, y_label)]
    for place, name in enumerate(names):
        path = "".join(_mark(place, frame.x(x), frame.y(y)) for x, y, n in kept if n == name)
        parts.append(f'<path d="{path}" style="fill:{color(place)}" opacity=".72"/>')
    return _svg(parts, height, title, description)


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
    legend, top = _legend([(name, place, 0) for place, name in enumerate(bars)], "bar")
    highest = max(max(bar.value, bar.high or 0.0) for bar in values)
    frame = _frame((0, len(categories)), (0.0, highest * 1.08 or 1.0), top, height)
    parts = [legend, frame.axes("", y_label, x_ticks=False)]
    slot = frame.x(1) - frame.x(0)
    width = min(26.0, 0.72 * slot / max(len(bars), 1))
    for place, category in enumerate(categories):
        middle = frame.x(place + 0.5)
        parts.append(_text(middle, frame.bottom + 16, category, "middle"))
        for number, row in enumerate(bars.values()):
            left = middle + (number - len(bars) / 2) * width
            if row[place] is not None:
                parts.append(_bar(frame, row[place], left, width, number))
    return _svg(parts, height, title, description)


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
    parts = [_text(right + 12, top - 8, "share of steps")]
    for number, layer in enumerate(rows):
        y = top + row_height * (len(rows) - 1 - number)
        taken = [step for step, other in chosen if other == layer]
        share = len(taken) / len(steps)
        places = {round(left + (right - left) * _ratio(step, first, last), 1) for step in taken}
        ticks = "".join(f"M{x} {y + 4}v{row_height - 8}" for x in sorted(places))
        stroke = min(max(0.8, 0.7 * (right - left) / max(len(steps), 1)), 5.0)
        paint = f"stroke:{color(0)};stroke-width:{stroke:.2f}"
        parts.append(_text(left - 8, y + 16, f"{layer}", "end"))
        parts.append(f'<path d="M{left} {y + row_height}H{right}" class="grid"/>')
        parts.append(f'<path d="{ticks}" style="{paint}" opacity=".75"/>')
        parts.append(
            f'<rect x="{right + 12}" y="{y + 6}" width="{56 * share:.1f}" '
            f'height="{row_height - 12}" style="fill:{color(0)}"/>'
        )
        parts.append(_text(WIDTH - 2, y + 16, f"{100 * share:.0f} %", "end"))
    bottom = top + row_height * len(rows)
    for tick in _ticks(first, last, 5):
        x = left + (right - left) * _ratio(tick, first, last)
        parts.append(_text(x, bottom + 16, _number(tick), "middle"))
    parts.append(_text((left + right) / 2, bottom + 34, "step", "middle"))
    parts.append(_text(left - 8, top - 8, "layer", "end"))
    return _svg(parts, height, title, description)


def empty_chart(title: str, reason: str) -> str:
    """A drawing that says why there is none."""
    return _svg([_text(WIDTH / 2, 44, reason, "middle")], 80, title, reason)


@dataclass(frozen=True)
class _Frame:
    """The plotting area, and the axes' ranges mapped into it."""

    left: float
    right: float
    top: float
    bottom: float
    xs: tuple[float, float]
    ys: tuple[float, float]
    log: bool

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * _ratio(value, *self.xs)

    def y(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        share = _ratio(scale(value), scale(self.ys[0]), scale(self.ys[1]))
        return self.bottom - (self.bottom - self.top) * share

    def axes(self, x_label: str, y_label: str, *, x_ticks: bool = True) -> str:
        parts = []
        for tick in _log_ticks(*self.ys) if self.log else _ticks(*self.ys, 5):
            y = self.y(tick)
            parts.append(f'<path d="M{self.left} {y:.1f}H{self.right}" class="grid"/>')
            parts.append(_text(self.left - 7, y + 4, _number(tick), "end"))
        for tick in _ticks(*self.xs, 5) if x_ticks else ():
            parts.append(_text(self.x(tick), self.bottom + 16, _number(tick), "middle"))
        parts.append(_text((self.left + self.right) / 2, self.bottom + 34, x_label, "middle"))
        middle = (self.top + self.bottom) / 2
        if y_label:
            parts.append(
                f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">'
                f"{escape(y_label)}</text>"
            )
        return "".join(parts)


def _frame(
    xs: tuple[float, float], ys: tuple[float, float], top: float, height: int, log: bool = False
) -> _Frame:
    return _Frame(58, WIDTH - 10, top, height - 44, xs, ys, log)


def _svg(parts: Iterable[str], height: float, title: str, description: str) -> str:
    body = "".join(parts)
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}" class="chart" '
        f'font-size="{FONT}" fill="currentColor"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(entries: Sequence[tuple[str, int, int]], kind: str) -> tuple[str, float]:
    """(drawing, height below which the plot may begin) of entries (name, colour, dash)."""
    x, y, parts = 58.0, 14.0, []
    for name, index, dash in entries:
        length = 24 + CHARACTER * len(name)
        if x > 58 and x + length > WIDTH:
            x, y = 58.0, y + 18
        paint = color(index)
        if kind == "line":
            drawing = (
                f'<path d="M{x:.1f} {y - 4}h16" style="stroke:{paint}" stroke-width="2.4" '
                f'stroke-dasharray="{DASHES[dash % len(DASHES)]}"/>'
            )
        elif kind == "mark":
            drawing = f'<path d="{_mark(index, x + 8, y - 4)}" style="fill:{paint}"/>'
        else:
            square = f'x="{x + 3:.1f}" y="{y - 9}" width="11" height="11"'
            drawing = f'<rect {square} style="fill:{paint}"/>'
        parts += [drawing, _text(x + 21, y, name)]
        x += length + 14
    return "".join(parts), y + 16


def _mark(shape: int, x: float, y: float) -> str:
    """Path data of a small circle, square, triangle, diamond, cross, or triangle downwards."""
    start = f"M{x:.1f} {y:.1f}"
    return (
        start + "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
        start + "m-2.7 -2.7h5.4v5.4h-5.4z",
        start + "m0 -3.6l3.6 6.2h-7.2z",
        start + "m0 -3.8l3.8 3.8l-3.8 3.8l-3.8 -3.8z",
        start + "m-1.2 -3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",
        start + "m0 3.6l3.6 -6.2h-7.2z",
    )[shape % 6]


def _bar(frame: _Frame, bar: Bar, left: float, width: float, number: int) -> str:
    top = frame.y(max(bar.value, 0.0))
    drawing = (
        f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
        f'height="{max(frame.bottom - top, 0.5):.1f}" style="fill:{color(number)}"/>'
    )
    if bar.low is None or bar.high is None:
        return drawing
    middle, high, low = left + width / 2, frame.y(bar.high), frame.y(max(bar.low, 0.0))
    whisker = f"M{middle:.1f} {high:.1f}V{low:.1f}M{middle - 3:.1f} {high:.1f}h6"
    return drawing + f'<path d="{whisker}M{middle - 3:.1f} {low:.1f}h6" class="whisker"/>'


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


def _span(values: Sequence[float], *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """The range of an axis, a little wider than the values; from zero for costs that reach far."""
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    margin = 0.04 * ((high - low) or abs(high) or 1.0)
    if zero and low >= 0:
        return 0.0, high + margin
    return low - margin, high + margin


def _ratio(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(exponents) < 5 else (1,)
    ticks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [tick for tick in ticks if low <= tick <= high] or [low, high]


def _number(value: float) -> str:
    """A short label: 0, 0.05, 1.5, 300, 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 10):g}"
