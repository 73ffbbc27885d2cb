import base64
import io
import re
import shutil
import tarfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from slam_potsa import cli
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.data.predictions import Origin, read_predictions, write_pred_gt
from slam_potsa.evaluation import analysis
from slam_potsa.evaluation.report.collect import Report, Request, Run, collect
from slam_potsa.evaluation.report.page import (
    Players,
    changes,
    headline_text,
    render,
    runs_table,
    systems,
    write_page,
)
from slam_potsa.evaluation.tap_measures import MeasureSettings
from tests.support import refusal, refused, run_directories, trained

VOID = {"meta", "br", "link", "img", "input", "hr"}
UNSURE = Request(bootstrap=0)  # without intervals and comparisons, which take most of the time


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
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += [] if self.open[-1:] in (["style"], ["script"]) else [data]

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def words(report):
    return " ".join(" ".join(Document(render(report)).text).split())


def write_runs(folder):
    """Two runs of one test, with blind control; the second is aligned."""
    manifest = run_directories.data(folder / "data")
    first, second = run_directories.predictions("well "), run_directories.predictions()
    runs = [
        run_directories.write(folder / "base", manifest, first),
        run_directories.write(folder / "ours", manifest, second, aligned=True),
    ]
    blind = [replace(item, prediction="no", source="other.wav") for item in second]
    run_directories.write_predictions(runs[1] / "test_blind_predictions.jsonl", blind)
    return runs


@pytest.fixture
def paths(tmp_path):
    return write_runs(tmp_path)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return collect(write_runs(tmp_path_factory.mktemp("runs")), Request(bootstrap=50))


@pytest.fixture(scope="module")
def text(report, tmp_path_factory):
    page = write_page(tmp_path_factory.mktemp("page") / "new" / "report.html", report)
    return page.read_text(encoding="utf-8")


def test_the_page_is_well_formed_has_every_section_and_needs_no_network(text):
    page, drawn = Document(text), re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\((?!#)", drawn)
    assert "default-src 'none'" in text and len(page.all("h1")) == 1
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources and all(source.startswith("data:audio/mpeg;base64,") for source in sources)
    sections = {section["id"] for section in page.all("section")}
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in sections}
    rows = [row["data-language"] for row in page.all("tr") if "data-language" in row]
    assert rows[:9] == ["en"] * 3 + ["es"] * 3 + ["fr"] * 3
    shown = " ".join(" ".join(page.text).split())
    for piece in (
        "that differ", "seen, pooled", "fr (zero-shot)", "p = ", "tok:13a", "exchanged recordings",
        "Cross-entropy", "Alignment cost, ot", "Reward R, ours", "Probability p, ours",
        "falls below mismatched also without alignment", "Worst rows",
        "Whole configuration of base",
    ):  # fmt: skip
        assert piece in shown, piece


def test_runs_are_compared_with_the_first_and_the_headline_has_their_rows(report):
    first, second = (run.scored["test"] for run in report.runs)
    assert not any(row.against or row.blind for row in first.rows)
    assert all(row.against and row.blind for row in second.rows)
    assert report.heard == ["en", "es"] and report.zero_shot == ["fr"]
    assert list(report.tests) == ["test"]  # the blind control is no test of its own
    lines = headline_text(report).splitlines()
    rows = [("seen", "base"), ("seen", "ours"), ("zero-shot", "base"), ("zero-shot", "ours")]
    assert [tuple(line.split()[1:3]) for line in lines[1:5]] == rows
    assert lines[3].split()[3] == f"{first.row('zero-shot, pooled').bleu.value:.1f}"
    rows = {row[0]: row[1:] for row in runs_table(report.runs).rows}
    assert rows["alignment.terms.ot.weight"] == ("0.0", "3.0")
    assert not any("output_dir" in name or "model_name" in name for name in rows)
    assert rows["loss"] == ("cross-entropy", "cross-entropy + 3 · ot")


def test_what_a_run_heard_without_translations_is_a_group_of_its_own(paths):
    config = paths[1] / "config.yaml"
    text = config.read_text()
    assert "joining: []" in text
    config.write_text(text.replace("joining: []", "joining: [fr]"))
    report = collect(paths, UNSURE)
    assert (report.heard, report.joined, report.zero_shot) == (["en", "es"], ["fr"], [])
    assert report.groups == ["seen", "joined"] and "joined" in headline_text(report)
    (paths[0].parent / "data" / "train.jsonl").unlink()
    assert collect(paths, UNSURE).groups == ["all"]


def test_runs_with_little_in_them_have_no_empty_sections(paths):
    (paths[1] / "metrics.jsonl").write_text('{"step": 0, "ce": 1.0}\n{"step": 1}\n{"cut')
    (paths[0].parent / "data" / "train.jsonl").unlink()
    report = collect(paths[1:], UNSURE)
    assert report.heard == report.zero_shot == []  # no groups without known languages
    page = words(report)
    assert "Cross-entropy" in page and "Layer schedule" not in page
    least = words(Report([Run("one", Path("runs/one"))]))
    assert "What was run" in least and "Training" not in least and "Samples" not in least


@pytest.mark.parametrize(("file", "change", "told"), [
    ("test_blind_predictions.jsonl", {"key": "another"}, "decoded by the blind control only"),
    ("test_predictions.jsonl", {"key": "another"}, "not compared with base"),
    ("test_predictions.jsonl", {"reference": None}, "reference"),
])  # fmt: skip
def test_what_does_not_fit_is_left_out_and_said(paths, file, change, told):
    first, *others = run_directories.predictions()
    run_directories.write_predictions(paths[1] / file, [replace(first, **change), *others])
    report = collect(paths, Request(bootstrap=2))
    assert told in " ".join(report.left_out) and report.runs[0].scored["test"].rows
    assert told in words(report)


def test_what_slam_llm_decoded_is_read_with_its_manifest(paths):
    write_pred_gt(paths[0] / "slam", run_directories.predictions())
    manifest = paths[0].parent / "data" / "test.jsonl"
    found = collect(paths[:1], replace(UNSURE, origin=Origin(manifest=manifest)))
    assert found.scores("slam")["base"].row("fr").bleu.value == pytest.approx(100)
    assert "--target-language" in collect(paths[:1], UNSURE).left_out[0]


def test_seeds_of_one_system_are_one_bar(tmp_path):
    runs, manifest = [], run_directories.data(tmp_path / "data")
    for name, prefix in {"a1": "well ", "a2": "so well ", "b1": "", "b2": ""}.items():
        texts = run_directories.predictions(prefix)
        runs.append(run_directories.write(tmp_path / name, manifest, texts, aligned=name[0] == "b"))
        config = runs[-1] / "config.yaml"
        text = config.read_text()
        config.write_text(re.sub(r"(?m)^( +seed:) \d+$", rf"\1 {name[1]}", text))
    report = collect(runs, UNSURE)
    names = [[run.name for run in own] for own in systems(report.runs)]
    assert names == [["a1", "a2"], ["b1", "b2"]]
    categories, bars = changes(report)
    assert [name.split()[-1] for name in categories] == ["en", "es", "fr"]
    assert bars["a1"] == [None] * 3 and all(bar.low < bar.value < bar.high for bar in bars["b1"])
    assert "Did it help" in words(report)


def test_all_text_is_escaped(paths):
    nasty = "<script>alert('x')</script> & more"
    found = [replace(item, prediction=nasty) for item in run_directories.predictions()]
    run_directories.write_predictions(paths[1] / "test_predictions.jsonl", found)
    asked = {"title": "a <b>", "summary": "c & d", "notes": ["<i>"], "names": ["x", "<λ>"]}
    text = render(collect(paths, replace(UNSURE, **asked, titles={"test": "te<s>t"})))
    page = Document(text)
    assert len(page.all("script")) == 1 and "alert(" not in text.split("<script>")[-1]
    assert not page.all("i") and len(page.all("b")) == 2  # the systems' names are bold
    for piece in ("a <b>", "c & d", "<i>", "<λ>", "te<s>t", "</script>"):
        assert piece in "".join(page.text)


def test_everything_wrong_is_said_at_once(paths, tmp_path):
    (paths[0] / "test_predictions.jsonl").write_text("[]\n")
    (tmp_path / "empty").mkdir()
    error = refusal(collect, [paths[0], tmp_path / "empty"], Request(names=["a", "b", "c"]))
    for piece in ("called", "no config.yaml there", "test_predictions.jsonl:1"):
        assert piece in str(error)
    for wrong in ([paths[1]] * 2, []):
        refused("one --names for each", collect, wrong)


def test_the_command_writes_the_page_and_prints_the_headline(paths, capsys, tmp_path):
    line = ["report", *map(str, paths), "--output", str(tmp_path / "x.html"), "--names", "A", "B"]
    assert cli.main([*line, "--preset", "seamless", "--heard", "en", "--bootstrap", "2"]) == 0
    printed, page = capsys.readouterr().out, (tmp_path / "x.html").read_text()
    assert printed.endswith("x.html\n") and "zero-shot" in printed
    assert "chrF++" in page and "slam-potsa decode base test.jsonl" in page


def test_an_analysis_is_shown_without_a_model_unless_it_is_outdated(tmp_path, monkeypatch):
    run = trained.untrained_run(tmp_path)
    folder, manifest = Path(run.config.ckpt_path).parent, run.config.dataset_config.test_data_path
    quick = MeasureSettings(codes=4, codebooks=1, shuffles=1)
    analysis.write_analysis(folder, analysis.analyze(run, [manifest], name="run", settings=quick))
    monkeypatch.setattr("slam_potsa.engine.decode.Translator.__init__", None)
    found = collect([folder], UNSURE)
    assert "cross-lingual retrieval" in headline_text(found)
    page = render(found)
    assert "Where languages meet" in page and "All measures" in page
    with Path(manifest).open("a") as file:
        file.write("\n")
    found = collect([folder], UNSURE)
    assert "cross-lingual" not in headline_text(found) and "analysis.json" in found.left_out[0]


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "short.flac", 0.1 * rng.standard_normal(1600), 16000)
    soundfile.write(tmp_path / "long.wav", 0.1 * rng.standard_normal(16000 * 8), 16000)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "short.flac", "in/b.flac")
    (tmp_path / "text.wav").write_text("no audio")
    named = ["short.flac", "long.wav", "all.tar:in/b.flac", "text.wav", "missing.wav", "/dev/zero"]
    named += ["all.tar:in/c.flac", "../other.flac", str(tmp_path / "../other.flac")]
    write_manifest(tmp_path / "test.jsonl", [Utterance(name, name, "en", name) for name in named])
    return tmp_path / "test.jsonl"


@pytest.mark.parametrize(
    ("audio", "seconds"), [("short.flac", 0.1), ("all.tar:in/b.flac", 0.1), ("long.wav", 8)]
)
def test_recordings_are_compressed(recordings, audio, seconds):
    player = Players().player("a", audio, recordings)
    data = base64.b64decode(re.search(r'src="data:audio/mpeg;base64,([^"]+)"', player)[1])
    samples, rate = soundfile.read(io.BytesIO(data))
    assert rate == 16000 and len(samples) / rate == pytest.approx(seconds, abs=0.15)
    assert len(data) < 6_000 * max(seconds, 1)


def test_a_recording_counts_once_and_it_is_said_why_there_is_no_player(recordings):
    players = Players(budget=len(Players().player("a", "short.flac", recordings)))
    assert "<audio" in players.player("a<", "short.flac", recordings)
    assert "recording a&lt;: plays above" in players.player("a<", "short.flac", recordings)
    assert "too large" in players.player("b", "all.tar:in/b.flac", recordings)
    for audio in ("missing.wav", "text.wav", "all.tar:in/c.flac"):
        assert "not found" in Players().player("k", audio, recordings)
    assert "manifest" in Players().player("k", "short.flac", None)


def test_a_page_holds_what_its_manifests_name_in_their_folders_or_a_root(recordings, tmp_path):
    other = shutil.copy(tmp_path / "short.flac", tmp_path.parent / "other.flac")
    (tmp_path / "link.flac").symlink_to(other)
    for audio in ("/dev/zero", "../other.flac", str(other), "link.flac"):
        assert "--audio-root" in Players().player("k", audio, recordings)
    shutil.copy(other, tmp_path / "mine.flac")
    assert "does not name it" in Players().player("k", "mine.flac", recordings)
    assert "<audio" in Players([tmp_path.parent]).player("k", "../other.flac", recordings)


def test_text_runs_its_own_way_and_what_cannot_be_seen_is_shown(paths):
    file = paths[1] / "test_predictions.jsonl"
    rows = [replace(row, prediction="שלום\x1b[1m\0") for row in read_predictions(file)]
    run_directories.write_predictions(file, rows)
    own = "שלום"
    asked = {"title": own, "summary": own, "notes": [own], "titles": {"test": own}}
    page = render(collect(paths, Request(names=["base", own], **asked, bootstrap=2)))
    assert f'<div dir="auto">{own}\ufffd[1m\ufffd</div>' in page and "\x1b" not in page
    text = re.sub(r"(?s)<svg.*?</svg>|<title>.*?</title>", "", page)
    tags = {*re.findall(rf"<[^>]*>(?=\s*{own})", text)}
    assert len(tags) > 5 and all("<bdi" in tag or 'dir="auto"' in tag for tag in tags), tags
