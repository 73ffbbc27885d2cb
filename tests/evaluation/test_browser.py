"""The report in a real browser: it loads nothing, sorts, filters, plays, prints, fits a phone."""

from __future__ import annotations

import base64
import shutil

import pytest

from slam_potsa.evaluation.report import Request, collect, write_page
from tests.support import run_directories

BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), "chromedriver"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and shutil.which(DRIVER)),
        reason="no browser to open the report in: apt-get install chromium chromium-driver",
    ),
]
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         "--autoplay-policy=no-user-gesture-required")  # fmt: skip
ROWS = "[...document.querySelectorAll('table.samples tbody tr')]"
OPENED = "document.querySelectorAll('details').forEach(each => { each.open = true })"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of two runs with all that runs can hold but models."""
    folder = tmp_path_factory.mktemp("report")
    manifest = run_directories.data(folder / "data", seconds=1.0)
    first, second = (run_directories.predictions(words) for words in ("well ", "a" * 90 + " "))
    runs = [
        run_directories.write(folder / "base", manifest, first),
        run_directories.write(folder / "ours", manifest, second, aligned=True),
    ]
    return write_page(folder / "report.html", collect(runs, Request(bootstrap=20)))


@pytest.fixture(scope="module")
def browser():
    selenium = pytest.importorskip("selenium", reason="selenium drives the browser")
    from selenium.webdriver.chrome.service import Service

    options = selenium.webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    driver = selenium.webdriver.Chrome(options, Service(shutil.which(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, page):
    """The page; whatever was done with it, it must not have complained, or loaded anything."""
    show(browser, page)
    yield browser
    assert browser.get_log("browser") == []
    requests = [line["message"] for line in browser.get_log("performance")]
    assert not any('"url":"http' in line for line in requests if "requestWillBeSent" in line)


def show(browser, page, width=1200, dark=False, scripts=True):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.get(page.as_uri())


def find(opened, selector):
    return opened.find_elements("css selector", selector)


def column(opened, place, table="samples"):
    return [cell.text for cell in find(opened, f"table.{table} td:nth-child({place})")]


def choose(opened, label, wanted):
    from selenium.webdriver.support.select import Select

    chosen = next(each for each in find(opened, ".tools label") if each.text.startswith(label))
    Select(chosen.find_element("css selector", "select")).select_by_visible_text(wanted)


def test_a_click_sorts_another_turns_it_round_and_so_does_the_keyboard(opened):
    before = column(opened, 5)
    assert before != sorted(before)
    find(opened, "table.samples th:nth-child(5) button")[0].click()
    assert column(opened, 5) == sorted(before)
    assert find(opened, "[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
    find(opened, "table.samples th:nth-child(5) button")[0].send_keys("\n")
    assert column(opened, 5) == sorted(before, reverse=True)
    assert len(find(opened, "[aria-sort]")) == 1


def test_numbers_are_sorted_as_numbers(opened):
    find(opened, "table.worst th:nth-child(5) button")[0].click()
    values = list(map(float, column(opened, 5, "worst")))
    assert values == sorted(values) and len(set(values)) > 1


def test_a_language_and_an_order_can_be_chosen(opened):
    before = column(opened, 5)
    choose(opened, "Sort", "reference")
    assert column(opened, 5) == sorted(before)
    choose(opened, "Language", "fr")
    visible = [row for row in find(opened, "table.samples tbody tr") if row.is_displayed()]
    assert len(visible) == 3 and find(opened, "[role=status]")[0].text == "3 of 9 rows"
    choose(opened, "Language", "all")
    choose(opened, "Sort", "as in the files")
    assert column(opened, 5) == before


def test_a_recording_plays_and_stops_the_one_before(opened):
    paused, duration, error = opened.execute_async_script(
        "const done = arguments[0], [a, b] = document.querySelectorAll('audio');"
        "b.ontimeupdate = () => done([a.paused, b.duration, b.error]); a.play(); b.play()"
    )
    assert paused and duration == pytest.approx(1.0, abs=0.1) and error is None


@pytest.mark.parametrize("width", [320, 390, 768, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(opened, page, width, dark):
    show(opened, page, width, dark)
    opened.execute_script(OPENED)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_small_tables_are_lists_on_a_phone(opened, page):
    show(opened, page, 390)
    label = "return getComputedStyle(document.querySelector('#what-was-run .cards td'), '::before')"
    assert opened.execute_script(f"{label}.content") == '"base"'
    cards = "[...document.querySelectorAll('.wide:has(.cards)')]"
    wide = opened.execute_script(f"return {cards}.map(each => each.scrollWidth > each.clientWidth)")
    assert len(wide) == 4 and not any(wide)


def test_without_scripts_the_tables_are_whole(opened, page):
    show(opened, page, scripts=False)
    assert not find(opened, "button, select") and len(find(opened, "table.samples tbody tr")) == 9


def test_it_prints_and_marks_do_not_speak_by_colour_alone(opened):
    mark = find(opened, "mark")[0]
    assert "underline" in mark.value_of_css_property("text-decoration")
    assert base64.b64decode(opened.print_page()).startswith(b"%PDF")
