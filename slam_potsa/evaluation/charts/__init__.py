"""Small charts as inline SVG, written by hand: no library, no script, no font to load.

Every function returns one `<svg>` element with a title and a description for screen readers, whose
colours follow the page (`drawing.py`); series differ in shape or dash besides. The drawing is 480
units wide, so that it can be read on a phone, where two stand below each other, and on a desktop,
where they stand side by side. `standalone` makes a file of one.
"""

from slam_potsa.evaluation.charts.bars import Bar, bar_chart
from slam_potsa.evaluation.charts.drawing import (
    DASHES,
    FONT,
    OKABE_ITO,
    WIDTH,
    color,
    empty_chart,
    standalone,
)
from slam_potsa.evaluation.charts.grids import heat_map, schedule_chart
from slam_potsa.evaluation.charts.lines import POINTS, Series, line_chart
from slam_potsa.evaluation.charts.points import Arrow, arrow_chart, scatter_chart

__all__ = [
    "DASHES",
    "FONT",
    "OKABE_ITO",
    "POINTS",
    "WIDTH",
    "Arrow",
    "Bar",
    "Series",
    "arrow_chart",
    "bar_chart",
    "color",
    "empty_chart",
    "heat_map",
    "line_chart",
    "scatter_chart",
    "schedule_chart",
    "standalone",
]
