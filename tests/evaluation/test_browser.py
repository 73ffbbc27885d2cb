"""The report in a real browser: it loads nothing, sorts, filters, plays, and fits a phone."""

from __future__ import annotations

import pytest

from slam_potsa.evaluation.report import ReportRequest, build_report, write_report
from tests.support import run_directories
from tests.support.browser import Browser, find_browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no Chromium found to open the report in"),
]
HEADS = "[...document.querySelectorAll('table.samples th')]"
ROWS = "[...document.querySelectorAll('table.samples tbody tr')]"
VISIBLE = f"{ROWS}.filter(row => row.getClientRects().length).length"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of two runs with all that runs can hold but models."""
    folder = tmp_path_factory.mktemp("report")
    manifest = run_directories.data(folder / "data", seconds=1.0)
    runs = [
        run_directories.write(folder / "base", manifest, run_directories.predictions("well ")),
        run_directories.write(
            folder / "ours", manifest, run_directories.predictions("a" * 90 + " "), aligned=True
        ),
    ]
    report = build_report(runs, ReportRequest(analysis=False, bootstrap=20))
    return write_report(folder / "report.html", report)


@pytest.fixture(scope="module")
def browser():
    with Browser(find_browser()) as opened:
        yield opened


@pytest.fixture
def opened(browser, page):
    """The page, freshly loaded; whatever happened, it must not have complained."""
    browser.problems.clear()
    browser.scripts(True)
    browser.open(page)
    yield browser
    assert browser.problems == []


def column(opened, name: str) -> list[str]:
    place = f"{HEADS}.findIndex(head => head.textContent.trim() === {name!r})"
    cell = "row => row.cells[place].textContent.trim()"
    return opened.run(f"(place => {ROWS}.map({cell}))({place})")


def test_a_click_sorts_and_another_turns_it_round(opened):
    before = column(opened, "reference")
    assert before != sorted(before)
    opened.click("table.samples th:nth-child(4) button")
    assert column(opened, "reference") == sorted(before)
    assert opened.run(f"{HEADS}[3].getAttribute('aria-sort')") == "ascending"
    opened.click("table.samples th:nth-child(4) button")
    assert column(opened, "reference") == sorted(before, reverse=True)
    assert opened.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_keyboard_sorts(opened):
    opened.run("document.querySelector('table.samples th button').focus()")
    opened.press("Enter", "\r")
    opened.press("Enter", "\r")
    languages = column(opened, "language")
    assert languages == sorted(languages, reverse=True) and len(set(languages)) == 3


def test_numbers_are_sorted_as_numbers(opened):
    heads = "[...document.querySelectorAll('table.worst th')]"
    place = f"{heads}.findIndex(head => head.textContent === 'chrF')"
    opened.run(f"document.querySelectorAll('table.worst th')[{place}].firstChild.click()")
    rows = "[...document.querySelectorAll('table.worst tbody tr')]"
    values = opened.run(f"(p => {rows}.map(r => Number(r.cells[p].textContent)))({place})")
    assert values == sorted(values) and len(set(values)) > 1


def choose(opened, place: int, value: str) -> None:
    select = f"document.querySelectorAll('.tools select')[{place}]"
    opened.run(f"(s => {{ s.value = {value!r}; s.dispatchEvent(new Event('change')) }})({select})")


def test_a_language_can_be_chosen(opened):
    everything = opened.run(VISIBLE)
    choose(opened, 0, "fr")
    assert opened.run(VISIBLE) == 3 < everything
    assert opened.run("document.querySelector('[role=status]').textContent") == "3 of 9 rows"
    choose(opened, 0, "")
    assert opened.run(VISIBLE) == everything


def test_a_choice_sorts_where_a_phone_shows_no_heads(opened, page):
    opened.open(page, width=380)
    before = column(opened, "reference")
    choose(opened, 1, "3")
    assert column(opened, "reference") == sorted(before)
    choose(opened, 1, "")
    assert column(opened, "reference") == before


def test_a_recording_plays_and_stops_the_one_before(opened):
    played = opened.run(
        "(async () => { const [a, b] = document.querySelectorAll('audio');"
        "await a.play(); await b.play();"
        "await new Promise(done => b.addEventListener('timeupdate', done, {once: true}));"
        "return [a.paused, b.duration, a.error] })()"
    )
    assert played[0] is True and played[1] == pytest.approx(1.0, abs=0.1) and played[2] is None


def test_a_command_is_copied_or_selected(opened):
    opened.click(".command button")
    text = opened.run(
        "new Promise(done => setTimeout(() => done("
        "document.querySelector('.command button').textContent), 300))"
    )
    assert text in ("Copied", "Selected")


@pytest.mark.parametrize("width", [320, 380, 768, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(opened, page, width, dark):
    opened.open(page, width=width, dark=dark)
    assert opened.run("document.documentElement.scrollWidth") <= width
    opened.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert opened.run("document.documentElement.scrollWidth") <= width


def test_small_tables_are_lists_on_a_phone_and_wide_ones_show_that_they_scroll(opened, page):
    opened.open(page, width=390)
    opened.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
    cards = "[...document.querySelectorAll('.wide')].filter(w => w.querySelector('.cards'))"
    assert opened.run(f"{cards}.length") > 4
    assert opened.run(f"{cards}.filter(w => w.scrollWidth > w.clientWidth).length") == 0
    label = "document.querySelector('#what-was-run .cards td')"
    assert opened.run(f"getComputedStyle({label}, '::before').content") == '"base"'
    shadow = "getComputedStyle(document.querySelector('.wide')).backgroundImage"
    assert opened.run(f"{shadow}.split('linear-gradient').length") == 5


def test_without_scripts_the_tables_are_whole(opened, page):
    opened.scripts(False)
    opened.open(page)
    assert opened.run("document.querySelectorAll('button, select').length") == 0
    assert opened.run(VISIBLE) == 9
    assert len(column(opened, "reference")) == 9


def test_marks_do_not_speak_by_colour_alone(opened):
    line = "getComputedStyle(document.querySelector('mark')).textDecorationLine"
    assert opened.run(line) == "underline"


def test_it_prints(opened, tmp_path):
    opened.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
