import math
import re
import xml.etree.ElementTree as ET

import pytest

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.charts import Bar, Series


def parse(svg):
    """SVG is checked as XML, which is stricter than the HTML it stands in."""
    root = ET.fromstring(svg)
    assert root.tag == "svg" and root.find("title").text and root.get("viewBox")
    return root


def texts(root):
    return [element.text for element in root.iter("text")]


def test_line_chart_draws_each_series_with_its_name():
    steps = range(10)
    root = parse(
        charts.line_chart(
            [Series("a & b", steps, [n**2 for n in steps]), Series("c", steps, steps, dash=1)],
            title="<loss>",
            y_label="nats",
        )
    )
    lines = list(root.iter("polyline"))
    assert len(lines) == 2 and len(lines[0].get("points").split()) == 10
    assert lines[1].get("stroke-dasharray") and not lines[0].get("stroke-dasharray")
    assert {"a & b", "c", "nats", "step"} <= set(texts(root))
    assert root.find("title").text == "<loss>"


def test_long_lines_become_means_with_their_range():
    count = 5000
    root = parse(
        charts.line_chart([Series("a", range(count), [n % 2 for n in range(count)])], title="t")
    )
    line = next(root.iter("polyline")).get("points").split()
    assert len(line) <= charts.POINTS
    assert len(next(root.iter("polygon")).get("points").split()) == 2 * len(line)


def test_values_that_cannot_be_drawn_are_left_out():
    values = [1.0, math.nan, math.inf, 0.0, -1.0, 10.0]
    plain = parse(charts.line_chart([Series("a", range(6), values)], title="t"))
    logarithmic = parse(charts.line_chart([Series("a", range(6), values)], title="t", log=True))
    assert len(next(plain.iter("polyline")).get("points").split()) == 4
    assert len(next(logarithmic.iter("polyline")).get("points").split()) == 2
    assert "nan" not in charts.line_chart([Series("a", range(6), values)], title="t")


def test_a_higher_value_is_drawn_higher_up():
    for log in (False, True):
        root = parse(charts.line_chart([Series("a", [0, 1, 2], [1, 10, 100])], title="t", log=log))
        drawn = root.find("polyline").get("points").split()
        points = [tuple(map(float, point.split(","))) for point in drawn]
        assert points[0][0] < points[1][0] < points[2][0]
        assert points[0][1] > points[1][1] > points[2][1]
        if log:  # equal factors, equal distances
            middle = (points[0][1] + points[2][1]) / 2
            assert points[1][1] == pytest.approx(middle, abs=0.2)


def test_scatter_keeps_colours_by_the_given_order():
    points, labels = [(0, 0), (1, 1), (2, 0)], ["fr", "en", "fr"]
    root = parse(charts.scatter_chart(points, labels, title="t", order=["en", "es", "fr"]))
    marks = [path for path in root.iter("path") if path.get("opacity")]
    assert [path.get("style") for path in marks] == [f"fill:{charts.color(n)}" for n in range(3)]
    assert [path.get("d").count("M") for path in marks] == [1, 0, 2]  # en, es, fr
    assert {"en", "es", "fr"} <= set(texts(root))


def test_bars_have_whiskers_where_there_is_an_interval():
    root = parse(
        charts.bar_chart(
            ["fr", "it"], {"a": [Bar(5, 3, 8), Bar(2)], "b": [Bar(6, -1, 7), None]}, title="t"
        )
    )
    whiskers = [path for path in root.iter("path") if path.get("class") == "whisker"]
    rectangles = [r for r in root.iter("rect") if r.get("height") != "11"]  # 11: the legend's
    assert len(whiskers) == 2 and len(rectangles) == 3
    assert all(float(r.get("height")) > 0 for r in rectangles)


def test_schedule_shows_shares_of_steps():
    layers = [(1,), (2,), (2,), (2,), (4, 2)]
    root = parse(charts.schedule_chart(range(1, 6), layers, title="t"))
    assert {"20 %", "80 %"} <= set(texts(root))
    assert {"1", "2", "4"} <= set(texts(root)) and "3 %" not in texts(root)
    ticks = [p.get("d").count("M") for p in root.iter("path") if p.get("opacity") == ".75"]
    assert ticks == [1, 4, 1]


def test_nothing_to_draw_says_so():
    for svg in (
        charts.line_chart([], title="t"),
        charts.line_chart([Series("a", [0], [math.nan])], title="t"),
        charts.scatter_chart([], [], title="t"),
        charts.bar_chart([], {}, title="t"),
        charts.schedule_chart([], [], title="t"),
    ):
        assert texts(parse(svg))


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0, -1.0], [1e-9, 2e-9], [1e6, 3e6]])
def test_axes_of_odd_ranges_have_ticks(values):
    svg = charts.line_chart([Series("a", range(len(values)), values)], title="t")
    assert not re.search(r"nan|inf", svg)
    assert len(texts(parse(svg))) >= 3
