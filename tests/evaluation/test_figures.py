"""Charts as XML, which is stricter than the HTML they stand in."""

import base64
import io
import math
import re
import xml.etree.ElementTree as ET
from collections import namedtuple
from functools import partial

import numpy as np
import pytest
from PIL import Image

from slam_potsa.evaluation import figures
from slam_potsa.evaluation.figures import Arrow, Series

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["en", "es", "fr"]
Bar = namedtuple("Bar", "value low high", defaults=(None, None))
ARROWS = [Arrow("en–fr", (10, 0.2), (60, 0.9), "both heard"), Arrow("still", (30, 1), (30, 1))]
BARS = {"ours": [Bar(5, 3, 8), None, Bar(2)], "base": [Bar(6, -1, 7)] * 3}
CHOICES = [(1,), (2,), (2,), (2,), (4, 2)]
LINES = [Series("a & b", range(9), [n**2 for n in range(9)]), Series("c", range(9), range(9))]
LOOKS = np.eye(4)[[0, 2, 1, 3]] * [[0.5], [1], [1], [0]]  # the last token and frame are padding
POINTS = [(0, 0), (1, 1), (2, math.nan)]
# How each chart is drawn, and texts that it shows.
CHARTS = {
    "lines": (partial(figures.line_chart, LINES, y_label="nats"), {"a & b", "c", "nats", "step"}),
    "bars": (partial(figures.bar_chart, NAMES, BARS), {"ours", "base", *NAMES}),
    "schedule": (partial(figures.schedule_chart, range(1, 6), CHOICES), {"1: 20 %", "2: 80 %"}),
    "looks": (partial(figures.reading_chart, LOOKS, frame=1.0), {"seconds", "speech token", "3"}),
    "points": (partial(figures.scatter_chart, POINTS, ["fr", "en", "fr"], order=NAMES), {*NAMES}),
    "arrows": (partial(figures.arrow_chart, ARROWS), {"both heard", "en–fr", "still"}),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_one_element_that_a_page_can_hold(kind):
    draw, shown = CHARTS[kind]
    chart = draw(title="<title>")
    root = ET.fromstring(chart)
    assert root.tag == f"{SVG}svg" and root.find(f"{SVG}title").text == "<title>"
    assert shown <= texts(chart)
    assert not re.search(r"<style|<metadata|<\?xml|font-family|#000000|nan", chart)
    assert "var(--c" in chart or kind in ("schedule", "looks")  # coloured are only cells
    assert not re.search(r'(href="|url\()(?!#|data:)', chart)  # nothing is loaded
    assert draw(title="<title>") == chart  # the same bytes, and other ids under another title
    first, second = (set(re.findall(r' id="([^"]*)"', draw(title=title))) for title in "tu")
    assert not first & second


def texts(chart):
    return {element.text for element in ET.fromstring(chart).iter(f"{SVG}text")}


def polyline(chart):
    """Corners of the longest path of `chart`: its only line."""
    path = max(re.findall(r'<path d="([^"]*)"[^>]*fill: none; stroke: var', chart), key=len)
    return [tuple(map(float, place.split())) for place in re.split("[ML]", path)[1:]]


@pytest.mark.parametrize(
    ("values", "corners", "on_a_log_axis"),
    [([1.0, math.nan, math.inf, 0.0, -1.0, 10.0], 4, 2), ([5.0, 5.0], 2, 2), ([1e-9, 2e-9], 2, 2)],
)
def test_values_that_cannot_be_drawn_are_left_out(values, corners, on_a_log_axis):
    for log, expected in ((False, corners), (True, on_a_log_axis)):
        series = [Series("", range(len(values)), values)]
        assert len(polyline(figures.line_chart(series, title="t", log=log))) == expected
        ET.fromstring(figures.line_chart([Series("a", [0], [math.nan])], title="t", log=log))


def test_a_large_chart_stays_readable():
    """Long lines become means; names of arrows do not cover each other, and all are tooltips."""
    line = Series("a", range(5000), [n % 2 for n in range(5000)])
    assert len(polyline(figures.line_chart([line], title="t"))) <= figures.POINTS
    arrows = [Arrow(f"name {n}", (n, n), (50 + 0.01 * n, 50)) for n in range(30)]
    chart = figures.arrow_chart(arrows, title="t")
    shown = [text for text in texts(chart) if text.startswith("name")]
    tooltips = {element.text for element in ET.fromstring(chart).iter(f"{SVG}title")}
    assert 1 <= len(shown) < 30 and {arrow.name for arrow in arrows} <= tooltips


def shades(chart):
    """Opacity of the pixels of its picture, 0 to 255."""
    picture = base64.b64decode(re.search(r"base64,([^\"]*)", chart)[1])
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))[:, :, 3]


def test_steps_are_shaded_by_how_often_a_layer_was_aligned():
    chart = figures.schedule_chart(range(720), [(1,), (2,), (2,)] * 240, title="t")
    found = sorted({*map(int, shades(chart)[:, 0])})
    assert found == pytest.approx([255 / 3, 255 * 2 / 3], abs=1)


def test_a_token_is_strongest_where_it_looks_most_and_padding_is_left_out():
    looks = [[0.2, 0.1, 0.0, 0.0], [0.0, 0.6, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0]]
    found = shades(figures.reading_chart(looks, title="t"))
    tall, wide = found.shape
    centres = found[tall // 4 :: tall // 2, wide // 6 :: wide // 3]
    assert centres[:2, :3] == pytest.approx(np.array([[255, 128, 0], [0, 255, 255]]), abs=1)
