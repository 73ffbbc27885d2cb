import re
import tarfile
from html.parser import HTMLParser

import numpy as np
import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report import (
    Report,
    RunSummary,
    Sample,
    feature_view,
    render,
    write_report,
)
from slam_potsa.evaluation.retrieval import recall_at_1
from slam_potsa.evaluation.samples import AUDIO_BYTES
from slam_potsa.evaluation.scores import score
from slam_potsa.evaluation.sections import duration
from slam_potsa.evaluation.significance import compare
from slam_potsa.evaluation.table import headline, headline_text

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Document(HTMLParser):
    """Fails on tags that do not match; keeps elements, attributes and visible text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def predictions(prefix):
    texts = ["press the pound key now", "your call is important to us", "goodbye and good luck"]
    return [
        Prediction(f"{language}-{n}", language, "x", "en", text, f"{prefix} {text}")
        for language in ("en", "fr")
        for n, text in enumerate(texts)
    ]


def metrics(terms):
    for step in range(1, 31):
        line = {"step": step, "epoch": 0, "ce": 5 / step, "tokens_per_second": 100.0 + step}
        if terms:
            line |= {"ot": 0.5, "ot/matched": 1 / step, "ot/mismatched": 1.0}
            line |= {"layers": [1 + step % 2], "lr": None}
        yield line


@pytest.fixture
def report(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 6))
    languages, sentences = ["en", "fr"] * 10, [str(n // 2) for n in range(20)]
    scores = [
        score(predictions(prefix), seen=["en"], zero_shot=["fr"], bootstrap=20)
        for prefix in ("well", "")
    ]
    recall = recall_at_1(vectors, sentences, languages, heard=["en"])
    runs = [
        RunSummary("baseline", {"test": scores[0]}, list(metrics(False)), {"test": recall}, 62.0),
        RunSummary("POTSA <λ>", {"test": scores[1]}, list(metrics(True)), {}, None, "λ: <10>\n"),
    ]
    (tmp_path / "a.flac").write_bytes(b"fLaC-bytes")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "a.flac", "in/b.flac")
    outputs = {"baseline": "<script>alert('x')</script>", "POTSA <λ>": "good & bad"}
    samples = [
        Sample("a", "fr", tmp_path / "a.flac", "Au revoir.", "Goodbye.", outputs),
        Sample("b", "en", f"{tmp_path}/all.tar:in/b.flac", None, None, {}),
        Sample("c", "en", tmp_path / "missing.wav", "x", "y", {}),
        Sample("d", "en", tmp_path / "raw.g722", "x", "y", {}),
    ]
    return Report(
        "Demo & <more>",
        runs,
        "What was run.",
        {"encoder": "Whisper <tiny>"},
        {"features": 100.0, "training": 62.0},
        {"test": compare(predictions("well"), predictions(""), name="all, pooled", samples=20)},
        [feature_view("before", vectors, languages), feature_view("after", vectors, languages)],
        samples,
        ["Intervals overlap: <no> gain is claimed."],
    )


def test_the_page_is_well_formed_and_needs_no_network(report, tmp_path):
    path = write_report(tmp_path / "out" / "report.html", report)
    text = path.read_text(encoding="utf-8")
    page = Document(text)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text)
    links = [a for _, attributes in page.elements for a in ("src", "href") if a in attributes]
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert len(links) == len(sources) == 2
    assert all(source.startswith("data:audio/flac;base64,") for source in sources)
    assert "default-src 'none'" in text
    # 2 bar charts, 2 of training, 1 schedule, 2 of features
    assert page.count("svg") == 7 and page.count("audio") == 2 and page.count("h1") == 1


def test_all_text_is_escaped(report):
    text = render(report)
    page = Document(text)
    assert page.count("script") == 1 and "alert(" not in text.split("<script>")[-1]
    shown = "".join(page.text)
    for piece in ("<script>alert('x')</script>", "good & bad", "Demo & <more>", "Whisper <tiny>",
                  "POTSA <λ>", "λ: <10>", "<no> gain"):  # fmt: skip
        assert piece in shown


def test_the_page_says_why_a_recording_does_not_play(report):
    shown = "".join(Document(render(report)).text)
    assert "recording c: not found" in shown
    assert "recording d: not a format that browsers play" in shown


def test_recordings_stop_at_the_size_of_the_page(report, tmp_path):
    (tmp_path / "big.wav").write_bytes(bytes(AUDIO_BYTES // 2))
    samples = [Sample(str(n), "fr", tmp_path / "big.wav", "", "", {}) for n in range(3)]
    text = render(Report("t", report.runs, samples=samples))
    assert text.count("<audio") == 1 and text.count("would be too large") == 2
    assert len(text.encode()) < 5_000_000


def test_scores_differences_and_times_are_shown(report):
    shown = " ".join(" ".join(Document(render(report)).text).split())
    assert "all, pooled" in shown and "p = " in shown and "tok:13a" in shown
    assert "1 min 40 s" in shown and "2 min 42 s" in shown  # a phase, and all phases
    assert "η²" in shown and "chance" in shown


@pytest.mark.parametrize("missing", ["scores", "metrics", "retrieval", "config"])
def test_missing_parts_are_left_out(report, missing):
    empty = {"scores": {}, "metrics": (), "retrieval": {}, "config": ""}[missing]
    runs = [RunSummary(**vars(run) | {missing: empty}) for run in report.runs]
    text = render(Report(**vars(report) | {"runs": runs}))
    Document(text)
    heading = {
        "scores": "Translation scores",
        "metrics": "Layer schedule",
        "retrieval": "Cross-lingual retrieval",
        "config": "Resolved configurations",
    }[missing]
    assert heading in render(report) and heading not in text


def test_the_least_report_and_odd_metrics():
    Document(render(Report("t", [RunSummary("one")])))
    lines = [{"step": 1}, {"ce": 1.0}, {"step": 2, "ce": float("nan"), "layers": None}, {}]
    Document(render(Report("t", [RunSummary("one", metrics=lines)])))


def test_runs_need_names_of_their_own():
    with pytest.raises(InputError, match="its own name"):
        render(Report("t", []))
    with pytest.raises(InputError, match="its own name"):
        render(Report("t", [RunSummary("a"), RunSummary("a")]))


def test_the_headline_puts_scores_beside_their_retrieval(report):
    rows = headline(report.runs)
    assert [(row.group, row.run) for row in rows] == [
        ("seen", "baseline"),
        ("seen", "POTSA <λ>"),
        ("zero-shot", "baseline"),
        ("zero-shot", "POTSA <λ>"),
    ]
    baseline, system = rows[2:]
    assert baseline.scores == report.runs[0].scores["test"].row("zero-shot, pooled")
    assert baseline.recall == report.runs[0].retrieval["test"].means["with an unheard"]
    assert system.recall is None and rows[0].recall is None  # one heard language makes no pair
    lines = headline_text(report.runs).splitlines()
    assert len(lines) == 5 and lines[0].split()[:3] == ["test", "languages", "system"]


def test_durations():
    assert [duration(s) for s in (0.4, 59, 60, 185, 7620)] == [
        "0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 07 min",
    ]  # fmt: skip
