"""What every chart is drawn with: frame, axes, legend, marks, text, and the element around them.

Text and grid take `currentColor`, so the page's colours (dark, light, print) reach them; series
take the CSS variables `--c0` … `--c7`, whose fallbacks are the Okabe–Ito palette.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 480
FONT = 12
CHARACTER = 6.4  # mean width of a character at FONT, for the layout of legends
OKABE_ITO = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#4d4d4d",
)  # fmt: skip
# The palette on a dark page, lighter; `page.STYLE` has the same.
ON_DARK = (
    "#4aa8e0", "#f0843a", "#2cc295", "#e29bc3", "#e6b93d", "#9ad6f7", "#b995d6", "#b8b8b8",
)  # fmt: skip
DASHES = ("", "6 3", "2 3", "8 3 2 3")


def color(index: int) -> str:
    """A CSS colour of the palette: `var(--c1,#d55e00)`."""
    index %= len(OKABE_ITO)
    return f"var(--c{index},{OKABE_ITO[index]})"


def svg(parts: Iterable[str], height: float, title: str, description: str) -> str:
    body = "".join(parts)
    name = escape(title, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{name}" class="chart" '
        f'font-size="{FONT}" fill="currentColor"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{body}</svg>"
    )


def standalone(drawing: str) -> str:
    """A chart as a file of its own: namespace, font, background, and colours for a dark screen."""
    light, dark = (
        "".join(f"--c{n}:{shade};" for n, shade in enumerate(palette))
        for palette in (OKABE_ITO, ON_DARK)
    )
    style = (
        f":root{{color:#1c2024;background:#fff;{light}"
        'font-family:system-ui,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}'
        "@media screen and (prefers-color-scheme:dark){"
        f":root{{color:#e7e9ec;background:#15181c;{dark}}}}}"
        ".grid{stroke:currentColor;stroke-width:.6;opacity:.2;fill:none}"
        ".whisker{stroke:currentColor;stroke-width:1.2;fill:none}"
    )
    opening, rest = drawing.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f"{opening}><style>{style}</style>{rest}\n"


def empty_chart(title: str, reason: str) -> str:
    """A drawing that says why there is none."""
    return svg([text(WIDTH / 2, 44, reason, "middle")], 80, title, reason)


@dataclass(frozen=True)
class Frame:
    """The plotting area, and the axes' ranges mapped into it."""

    left: float
    right: float
    top: float
    bottom: float
    xs: tuple[float, float]
    ys: tuple[float, float]
    log: bool

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * ratio(value, *self.xs)

    def y(self, value: float) -> float:
        scale: Callable[[float], float] = math.log10 if self.log else float
        share = ratio(scale(value), scale(self.ys[0]), scale(self.ys[1]))
        return self.bottom - (self.bottom - self.top) * share

    def axes(
        self, x_label: str, y_label: str, *, x_ticks: bool = True, x_names: Sequence[str] = ()
    ) -> str:
        """Grid, ticks and labels. `x_names` stand below x = 0, 1, … in the place of numbers."""
        parts = []
        for tick in log_ticks(*self.ys) if self.log else ticks(*self.ys, 5):
            y = self.y(tick)
            parts.append(f'<path d="M{self.left} {y:.1f}H{self.right}" class="grid"/>')
            parts.append(text(self.left - 7, y + 4, number(tick), "end"))
        named = [(float(place), name) for place, name in enumerate(x_names)]
        numbered = [(tick, number(tick)) for tick in ticks(*self.xs, 5)] if x_ticks else []
        for tick, name in named or numbered:
            parts.append(text(self.x(tick), self.bottom + 16, name, "middle"))
        parts.append(text((self.left + self.right) / 2, self.bottom + 34, x_label, "middle"))
        middle = (self.top + self.bottom) / 2
        if y_label:
            parts.append(
                f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">'
                f"{escape(y_label)}</text>"
            )
        return "".join(parts)

    def box(self) -> str:
        """An outline instead of axes."""
        outline = f"M{self.left} {self.top}H{self.right}V{self.bottom}H{self.left}z"
        return f'<path d="{outline}" class="grid"/>'


def frame(
    xs: tuple[float, float], ys: tuple[float, float], top: float, height: int, log: bool = False
) -> Frame:
    return Frame(58, WIDTH - 10, top, height - 44, xs, ys, log)


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def legend(entries: Sequence[tuple[str, int, int]], kind: str) -> tuple[str, float]:
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
            drawing = f'<path d="{mark(index, x + 8, y - 4)}" style="fill:{paint}"/>'
        else:
            square = f'x="{x + 3:.1f}" y="{y - 9}" width="11" height="11"'
            drawing = f'<rect {square} style="fill:{paint}"/>'
        parts += [drawing, text(x + 21, y, name)]
        x += length + 14
    return "".join(parts), y + 16


def mark(shape: int, x: float, y: float) -> str:
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


def span(values: Sequence[float], *, log: bool = False, zero: bool = False) -> tuple[float, float]:
    """The range of an axis, a little wider than the values; from zero for costs that reach far."""
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    margin = 0.04 * ((high - low) or abs(high) or 1.0)
    if zero and low >= 0:
        return 0.0, high + margin
    return low - margin, high + margin


def ratio(value: float, low: float, high: float) -> float:
    """Where `value` lies between low (0) and high (1); the middle where there is no range."""
    return (value - low) / (high - low) if high > low else 0.5


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers from low to high."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(exponents) < 5 else (1,)
    places = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [place for place in places if low <= place <= high] or [low, high]


def number(value: float) -> str:
    """A short label: 0, 0.05, 1.5, 300, 12k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 10):g}"
