"""A transport plan as SVG: the matrix, and beside each token the span of speech it attends to.

A Q-Former of the paper has 80 tokens, so the matrix has 6,400 entries: they are drawn as a few
shades, one path each, and entries below the faintest are not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from slam_potsa.evaluation.charts.drawing import color, number, svg, text, ticks
from slam_potsa.evaluation.report.plans import Plan, Spoken

LEFT, TOP, SIDE = 112.0, 112.0, 360.0  # of the matrix
STRIP = 64.0  # seconds beside it
SHADES = 8
NUMBERED = 24  # tokens are numbered up to so many


def plan_chart(plan: Plan, title: str, description: str) -> str:
    """Rows are tokens of the first recording, columns those of the second."""
    rows, columns = len(plan.plan), len(plan.plan[0])
    height, width = SIDE / rows, SIDE / columns
    parts = [_shades(plan.plan, width, height)]
    parts.append(f'<path d="M{LEFT} {TOP}h{SIDE}v{SIDE}h-{SIDE}z" class="grid"/>')
    parts += [_strip(plan.first, height, down=True), _strip(plan.second, width, down=False)]
    parts.append(text(LEFT - STRIP - 6, TOP - 8, plan.first.language))
    parts.append(text(LEFT + SIDE, TOP - STRIP - 26, plan.second.language, "end"))
    return svg(parts, TOP + SIDE + 26, title, description)


def _shades(plan: Sequence[Sequence[float]], width: float, height: float) -> str:
    """Each entry as one of SHADES opacities, in proportion to the largest."""
    top = max(map(max, plan)) or 1.0
    paths: dict[int, list[str]] = {}
    for i, row in enumerate(plan):
        for j, value in enumerate(row):
            shade = round(SHADES * value / top)
            if shade:
                place = f"M{LEFT + j * width:.1f} {TOP + i * height:.1f}"
                paths.setdefault(shade, []).append(
                    f"{place}h{width:.2f}v{height:.2f}h-{width:.2f}z"
                )
    return "".join(
        f'<path d="{"".join(cells)}" style="fill:{color(0)}" opacity="{shade / SHADES:.3f}"/>'
        for shade, cells in sorted(paths.items())
    )


def _strip(side: Spoken, step: float, down: bool) -> str:
    """A bar a token over the seconds of its recording, beside (down) or above the matrix."""
    end = max(stop for _, stop in side.spans)
    zero = (LEFT if down else TOP) - 6  # time runs towards the matrix
    scale = STRIP / end
    places = [zero - STRIP + scale * time for span in side.spans for time in span]
    bars, thick = [], max(0.8, min(8.0, 0.6 * step))
    for token, (begin, stop) in enumerate(zip(places[::2], places[1::2], strict=True)):
        middle = (TOP if down else LEFT) + (token + 0.5) * step
        length = max(stop - begin, 1.0)
        bars.append(
            f"M{begin:.1f} {middle:.1f}h{length:.1f}"
            if down
            else f"M{middle:.1f} {begin:.1f}v{length:.1f}"
        )
    drawn = f'<path d="{"".join(bars)}" style="stroke:{color(1)}" stroke-width="{thick:.1f}"/>'
    return drawn + "".join(_times(end, zero, scale, down)) + "".join(_numbers(side, step, down))


def _times(end: float, zero: float, scale: float, down: bool):
    """Grid lines of the seconds, the outermost two with their numbers."""
    marks = ticks(0.0, end, 3)
    for tick in marks:
        at, words = zero - STRIP + scale * tick, f"{number(tick)} s"
        line = f"M{at:.1f} {TOP}V{TOP + SIDE}" if down else f"M{LEFT} {at:.1f}H{LEFT + SIDE}"
        yield f'<path d="{line}" class="grid"/>'
        if tick in (marks[0], marks[-1]) and down:
            yield text(at, TOP + SIDE + 16, words, "middle")
        elif tick in (marks[0], marks[-1]):
            yield text(LEFT - 6, at + 4, words, "end")


def _numbers(side: Spoken, step: float, down: bool):
    if len(side.spans) > NUMBERED:
        return
    for token in range(len(side.spans)):
        middle = (token + 0.5) * step
        name = str(token + 1)
        if down:
            yield text(LEFT - STRIP - 12, TOP + middle + 4, name, "end")
        else:
            yield text(LEFT + middle, TOP - STRIP - 10, name, "middle")
