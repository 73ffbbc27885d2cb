import math
import re
import xml.etree.ElementTree as ET

import pytest

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.charts import Arrow, Bar, Series


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
        charts.heat_map(["en"], ["en"], {("en", "en"): math.nan}, title="t"),
        charts.arrow_chart([Arrow("a", (0, 0), (math.nan, 1))], title="t"),
    ):
        assert texts(parse(svg))


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0, -1.0], [1e-9, 2e-9], [1e6, 3e6]])
def test_axes_of_odd_ranges_have_ticks(values):
    svg = charts.line_chart([Series("a", range(len(values)), values)], title="t")
    assert not re.search(r"nan|inf", svg)
    assert len(texts(parse(svg))) >= 3


def test_lines_over_named_places_mark_their_points():
    svg = charts.line_chart(
        [Series("a", [0, 2], [1.0, 3.0])], title="t", x_label="layer", x_names=["enc.", "1", "2"]
    )
    root = parse(svg)
    assert {"enc.", "1", "2", "layer"} <= set(texts(root))
    marks = [p for p in root.iter("path") if p.get("style", "").startswith("fill:")]
    assert [path.get("d").count("M") for path in marks] == [2]


def test_an_axis_may_begin_above_zero():
    def lowest(**options):
        series = [Series("a", range(3), [0.9, 0.95, 1.0])]
        root = parse(charts.line_chart(series, title="t", x_names=["x", "y", "z"], **options))
        return min(float(text) for text in texts(root) if re.fullmatch(r"[\d.]+", text or ""))

    assert lowest() == 0 and lowest(zero=False) >= 0.9


def test_heat_map_shows_numbers_and_leaves_missing_pairs_empty():
    cells = {("en", "fr"): 12.3, ("fr", "en"): 80.0, ("en", "it"): 400.0}
    root = parse(charts.heat_map(["en", "fr"], ["en", "fr", "it"], cells, title="t"))
    assert {"12", "80", "400"} <= set(texts(root))
    filled = [r for r in root.iter("rect") if r.get("fill-opacity")]
    assert len(filled) == 3 and len(list(root.iter("rect"))) == 6
    depths = [float(r.get("fill-opacity")) for r in filled]  # row by row: 12.3, 400, 80
    assert depths[0] < depths[2] < depths[1] <= 0.55  # beyond `high` is as `high`
    tooltips = [element.text for element in root.iter("title")]
    assert "en → fr: 12" in tooltips


def test_narrow_cells_keep_their_numbers_as_tooltips():
    names = [f"l{n}" for n in range(20)]
    cells = {(a, b): 33.0 for a in names for b in names if a != b}
    root = parse(charts.heat_map(names, names, cells, title="t"))
    assert "33" not in texts(root)
    assert sum(element.text.endswith(": 33") for element in root.iter("title")) == 380


def test_arrows_point_from_start_to_end():
    arrows = [
        Arrow("a–b", (10, 0.2), (60, 0.9), "both heard"),
        Arrow("a–c", (10, 0.1), (12, 0.1), "with an unheard"),
        Arrow("b–c", (30, 0.5), (30, 0.5), "with an unheard"),
    ]
    root = parse(charts.arrow_chart(arrows, title="t", x_label="R@1", y_label="1 − JSD"))
    drawn = [group for group in root.iter("g") if group.get("class") == "arrow"][::-1]
    assert [group.find("title").text for group in drawn] == ["a–b", "a–c", "b–c"]
    shaft, head = (path.get("d") for path in drawn[0].findall("path"))
    start, end = (tuple(map(float, place.split())) for place in shaft[1:].split("L"))
    point = tuple(map(float, head[1:].split("L")[0].split()))
    assert start[0] < end[0] < point[0] and start[1] > end[1] > point[1]  # to the right, upwards
    assert len(drawn[2].findall("path")) == 0 and len(drawn[2].findall("circle")) == 2
    assert {"both heard", "with an unheard", "R@1", "1 − JSD"} <= set(texts(root))


def test_names_of_arrows_do_not_cover_each_other():
    arrows = [Arrow(f"name {n}", (n, n), (50 + 0.01 * n, 50)) for n in range(30)]
    root = parse(charts.arrow_chart(arrows, title="t"))
    names = [e for e in root.iter("text") if (e.text or "").startswith("name")]
    assert 1 <= len(names) < 30  # the others are tooltips
    rows = [round(float(element.get("y"))) for element in names]
    assert all(abs(a - b) >= 8 for n, a in enumerate(rows) for b in rows[:n] if a != b)


def test_points_without_axes():
    root = parse(charts.scatter_chart([(0, 0), (3, 3)], ["a", "a"], title="t", numbers=False))
    assert [text for text in texts(root) if text] == ["a"]


def test_a_chart_as_a_file_of_its_own():
    inline = charts.bar_chart(["x"], {"a": [Bar(1)]}, title="a > b")
    root = ET.fromstring(charts.standalone(inline))
    namespace = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{namespace}svg" and root.find(f"{namespace}title").text == "a > b"
    style = root.find(f"{namespace}style").text
    assert charts.OKABE_ITO[0] in style and "prefers-color-scheme" in style
    assert len(list(root)) == len(list(ET.fromstring(inline))) + 1
