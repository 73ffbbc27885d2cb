"""The report in a real browser: it loads nothing, sorts, filters, plays, prints, fits a phone."""

import base64

import pytest

from slam_potsa.evaluation.report.collect import Request, collect
from slam_potsa.evaluation.report.page import write_page
from tests.support import run_directories
from tests.support.browser import NEEDED, opened, requested, resize

pytestmark = NEEDED


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
def browser(page):
    """Whatever is done with the page, it must not complain, or load anything."""
    with opened() as driver:
        yield driver
        complaints, sent = driver.get_log("browser"), requested(driver)
    assert complaints == [] and sent and not any('"url":"http' in message for message in sent)


def show(browser, page, width=1200, scripts=True):
    resize(browser, width)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.get(page.as_uri())


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def column(browser, place, table="samples"):
    return [cell.text for cell in find(browser, f"table.{table} td:nth-child({place})")]


def choose(browser, label, wanted):
    from selenium.webdriver.support.select import Select

    chosen = next(each for each in find(browser, ".tools label") if each.text.startswith(label))
    Select(chosen.find_element("css selector", "select")).select_by_visible_text(wanted)


def test_tables_are_sorted_and_filtered(browser, page):
    show(browser, page)
    before = column(browser, 5)
    assert before != sorted(before)
    find(browser, "table.samples th:nth-child(5) button")[0].click()
    assert column(browser, 5) == sorted(before)
    assert find(browser, "[aria-sort]")[0].get_attribute("aria-sort") == "ascending"
    find(browser, "table.samples th:nth-child(5) button")[0].send_keys("\n")
    assert column(browser, 5) == sorted(before, reverse=True)
    assert len(find(browser, "[aria-sort]")) == 1
    choose(browser, "Sort", "reference")
    assert column(browser, 5) == sorted(before)
    choose(browser, "Language", "fr")
    visible = [row for row in find(browser, "table.samples tbody tr") if row.is_displayed()]
    assert len(visible) == 3 and find(browser, "[role=status]")[0].text == "3 of 9 rows"
    find(browser, "table.worst th:nth-child(5) button")[0].click()
    values = list(map(float, column(browser, 5, "worst")))  # as numbers
    assert values == sorted(values) and len(set(values)) > 1


def test_a_recording_plays_and_stops_the_one_before_and_the_page_prints_and_fits(browser, page):
    show(browser, page)
    paused, duration, error = browser.execute_async_script(
        "const done = arguments[0], [a, b] = document.querySelectorAll('audio');"
        "b.ontimeupdate = () => done([a.paused, b.duration, b.error]); a.play(); b.play()"
    )
    assert paused and duration == pytest.approx(1.0, abs=0.1) and error is None
    assert base64.b64decode(browser.print_page()).startswith(b"%PDF")
    show(browser, page, width=390)
    cards = "[...document.querySelectorAll('.wide:has(.cards)')]"  # lists on a phone
    wide = f"return {cards}.map(each => each.scrollWidth > each.clientWidth)"
    assert browser.execute_script(wide) == [False] * 3
    show(browser, page, scripts=False)
    assert not find(browser, "button, select") and len(column(browser, 1)) == 9


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_window(browser, page, width):
    show(browser, page, width)
    browser.execute_script("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
