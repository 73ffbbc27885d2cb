"""The report: what is collected from run directories, what stands on the page, what is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from slam_potsa import cli
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report import (
    Report,
    Request,
    Run,
    collect,
    headline_text,
    open_runs,
    parallel_manifests,
    render,
    shown,
    write_page,
)
from slam_potsa.evaluation.report.collect import ends
from slam_potsa.evaluation.report.tables import duration
from slam_potsa.provenance import write_record
from tests.support import run_directories, trained

VOID = {"meta", "br", "link", "img", "input", "hr"}
QUICK = Request(bootstrap=50)


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

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def words(report):
    return Document(render(report)).words


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Two runs of one test, with blind control; the second is aligned."""
    monkeypatch.chdir(tmp_path)
    manifest = run_directories.data(tmp_path / "data")
    first, second = run_directories.predictions("well "), run_directories.predictions()
    runs = [
        run_directories.write(tmp_path / "runs" / "base", manifest, first),
        run_directories.write(tmp_path / "runs" / "ours", manifest, second, aligned=True),
    ]
    blind = [replace(item, prediction="no", source="other.wav") for item in second]
    run_directories.write_predictions(runs[1] / "test_blind_predictions.jsonl", blind)
    return [run.relative_to(tmp_path) for run in runs]


@pytest.fixture
def report(paths):
    return collect(paths, QUICK)


def table(report, name):
    return [re.split(r"\s{2,}", line) for line in shown(name, report.runs).splitlines()]


def test_the_page_is_well_formed_and_needs_no_network(report, tmp_path):
    text = write_page(tmp_path / "out" / "report.html", report).read_text(encoding="utf-8")
    page = Document(text)
    without_names = re.sub(r'xmlns(:xlink)?="[^"]*"', "", text)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\((?!#)", without_names)
    assert "default-src 'none'" in text and len(page.all("h1")) == 1
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources and all(source.startswith("data:audio/flac;base64,") for source in sources)
    sections = {section["id"] for section in page.all("section")}
    assert {link["href"] for link in page.all("a")} == {f"#{name}" for name in sections}


def test_scores_are_compared_with_the_first_run(report):
    first, second = (run.scored["test"] for run in report.runs)
    assert not first.comparisons and {c.name for c in second.comparisons} >= {"fr", "all, pooled"}
    assert second.blind and not first.blind
    assert report.heard == ["en", "es"] and report.zero_shot == ["fr"]
    assert list(report.tests) == ["test"]  # the blind control is no test of its own
    page = words(report)
    for piece in ("seen, pooled", "fr (zero-shot)", "p = ", "tok:13a", "exchanged recordings"):
        assert piece in page, piece


def test_the_headline_has_a_row_a_test_group_and_run(report):
    lines = headline_text(report).splitlines()
    assert lines[0].split()[:4] == ["test", "languages", "system", "BLEU"]
    assert [line.split()[1:3] for line in lines[1:5]] == [
        ["seen", "base"], ["seen", "ours"], ["zero-shot", "base"], ["zero-shot", "ours"],
    ]  # fmt: skip
    pooled = report.runs[0].scored["test"].row("zero-shot, pooled")
    assert lines[3].split()[3] == f"{pooled.bleu.value:.1f}"
    assert lines[5].startswith("“test”: 100 % of the sentences are also in training")


def test_without_known_languages_there_are_no_groups(paths):
    Path("data/train.jsonl").unlink()
    report = collect(paths, QUICK)
    assert report.heard == report.zero_shot == []
    assert [line.split()[1] for line in headline_text(report).splitlines()[1:]] == ["all", "all"]


def test_what_differs_is_told_but_for_names_and_places(report):
    rows = {row[0]: row[1:] for row in table(report, "runs")}
    assert rows["alignment.terms.ot.weight"] == ["0.0", "3.0"]
    assert not any("output_dir" in name or "model_name" in name for name in rows)
    assert rows["loss"] == ["cross-entropy", "cross-entropy + 3 · ot"]


def test_curves_and_their_tables(report):
    page = words(report)
    for piece in ("Cross-entropy", "Alignment cost, ot", "Reward R, ours", "Probability p, ours",
                  "Cosine of the two gradients, ours", "Cosine by depth", "below 0 they conflict",
                  "Matched falls below mismatched also without alignment"):  # fmt: skip
        assert piece in page, piece
    rows = [row for row in table(report, "layers") if row[0] == "ours"]
    schedule, conflict = rows[:2], rows[2:]
    assert [row[2:5] for row in schedule] == [["15", "50", "0.01"], ["15", "50", "0.02"]]
    assert [row[-2:] for row in conflict] == [["0.25", "0"], ["-0.5", "100"]]
    assert table(report, "training")[-1][1:3] == ["30", "0.173"]  # mean of 5/28, 5/29, 5/30


def test_a_run_without_lines_of_the_schedule_has_those_of_its_schedule_file(paths):
    lines = [json.loads(line) for line in (paths[1] / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if "schedule/" not in k} for line in lines]
    (paths[1] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = {"reward": 0.25, "count": 3, "ucb": None, "probability": 0.5}
    (paths[1] / "schedule.json").write_text(json.dumps({"step": 30, "layers": {"1": state}}))
    report = collect(paths, QUICK)
    row = next(row for row in table(report, "layers") if row[:2] == ["ours", "1"])
    assert row[2:] == ["15", "50", "0.25", "–", "0.5"]
    assert "Reward R, ours" not in words(report)


def test_runs_with_little_in_them_have_no_empty_sections(paths):
    (paths[1] / "metrics.jsonl").write_text('{"step": 0, "ce": 1.0}\n{"step": 1}\n{"cut')
    report = collect(paths, QUICK)
    assert "Cross-entropy" in words(report) and "Layer schedule" not in words(report)
    assert shown("layers", report.runs) == "nothing was recorded"
    least = words(Report([Run("one", "runs/one")]))
    assert "no metrics.jsonl" in least and "Training" not in least and "Samples" not in least


def keep_in_training(paths, place, kept):
    """A training manifest of its own for the run at `place`: the rows that `kept` takes."""
    rows = [row for row in read_manifest(Path("data/test.jsonl")) if kept(row)]
    write_manifest(Path(f"data/train{place}.jsonl"), rows)
    config = yaml.safe_load((paths[place] / "config.yaml").read_text())
    config["dataset_config"]["train_data_path"] = f"data/train{place}.jsonl"
    (paths[place] / "config.yaml").write_text(yaml.safe_dump(config))


def test_runs_that_heard_other_languages_are_warned_about(paths, report):
    assert report.warnings == []
    keep_in_training(paths, 1, lambda row: row.language == "en")
    warned = collect(paths, QUICK)
    assert "base on en, es; ours on en." in warned.warnings[0]
    assert words(warned).index("different languages") < words(warned).index("At a glance")
    assert headline_text(warned).startswith("The runs were trained on different languages")
    for given in ({"heard": ["en"]}, {"zero_shot": ["fr"]}):
        assert collect(paths, replace(QUICK, **given)).warnings == []


def test_sentences_that_are_also_in_training_are_told(paths):
    keep_in_training(paths, 0, lambda row: row.sentence_id == "s0")
    report = collect(paths, QUICK)
    assert report.trained == {"test": {"base": 0.25, "ours": 1.0}}
    assert "base 25 %, ours 100 % of the sentences" in words(report)


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("test_blind_predictions.jsonl", {"prediction": "no"}, "own recording"),
        ("test_predictions.jsonl", {"key": "another"}, "not compared with base"),
        ("test_predictions.jsonl", {"reference": None}, "reference"),
    ],
)
def test_what_does_not_fit_is_left_out_and_said(paths, file, change, told):
    first, *others = run_directories.predictions()
    run_directories.write_predictions(paths[1] / file, [replace(first, **change), *others])
    report = collect(paths, QUICK)
    assert told in " ".join(report.left_out) and told in words(report)
    assert report.runs[0].scored["test"].rows


def test_all_text_is_escaped(paths):
    nasty = "<script>alert('x')</script> & more"
    found = [replace(item, prediction=nasty) for item in run_directories.predictions()]
    run_directories.write_predictions(paths[1] / "test_predictions.jsonl", found)
    asked = {"title": "a <b>", "summary": "c & d", "notes": ["<i>"], "names": ["x", "<λ>"]}
    text = render(collect(paths, replace(QUICK, **asked, titles={"test": "te<s>t"})))
    page = Document(text)
    assert len(page.all("script")) == 1 and "alert(" not in text.split("<script>")[-1]
    assert len(page.all("i")) == len(page.all("b")) - 2 == 0  # the systems' names are bold
    for piece in ("a <b>", "c & d", "<i>", "<λ>", "te<s>t", "</script>"):
        assert piece in "".join(page.text)


def test_everything_wrong_is_said_at_once(paths, tmp_path):
    (paths[0] / "test_predictions.jsonl").write_text("[]\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        collect([paths[0], tmp_path / "empty"], Request(names=["a"]))
    for piece in ("--names", "no config.yaml there", "test_predictions.jsonl:1"):
        assert piece in str(error.value)
    for wrong, told in (([paths[1]] * 2, "given twice"), ([], "at least one run")):
        with pytest.raises(InputError, match=told):
            open_runs(wrong)
    with pytest.raises(InputError, match="its own name"):
        render(Report([]))


def test_recordings_are_of_the_manifest_that_was_decoded(paths, tmp_path):
    manifest = tmp_path / "elsewhere" / "test.jsonl"
    (tmp_path / "data").rename(manifest.parent)
    assert "its manifest was not found" in words(collect(paths, QUICK))
    assert collect(paths, replace(QUICK, manifests=[manifest])).manifests == {"test": manifest}
    argv = ["/usr/bin/slam-potsa", "decode", "runs/base", "test.jsonl"]
    record = paths[0] / "test.done.json"
    write_record(record, {}, argv=argv, notes={"manifest": str(manifest)})
    report = collect(paths, QUICK)
    assert report.manifests == {"test": manifest}
    assert "slam-potsa decode runs/base" in words(report) and "/usr/bin" not in words(report)
    manifest.write_text(manifest.read_text().replace("audio/fr-1.flac", "audio/fr-0.flac"))
    assert collect(paths, QUICK).manifests == {}


def test_samples_are_the_first_of_each_language(report, paths):
    keys = [item.key for item, _ in report.samples("test")]
    assert keys == [f"{language}-{n}" for language in ("en", "es", "fr") for n in range(3)]
    assert len(collect(paths, replace(QUICK, samples=1)).samples("test")) == 3


def test_tests_are_analysed_together_where_they_share_sentences(paths):
    def decode(name, languages, sentences):
        rows = [
            Utterance(f"{name}-{language}-{n}", f"{n}.wav", language, f"s{n}")
            for language in languages
            for n in sentences
        ]
        write_manifest(manifest := Path(f"data/{name}.jsonl").resolve(), rows)
        found = [
            replace(run_directories.predictions()[0], key=row.key, source=row.audio) for row in rows
        ]
        run_directories.write_predictions(paths[0] / f"{name}_predictions.jsonl", found)
        write_record(paths[0] / f"{name}.done.json", {}, notes={"manifest": str(manifest)})
        return manifest

    (paths[0] / "test_predictions.jsonl").unlink()
    other = decode("other", ("fr", "it"), range(20, 30))
    assert parallel_manifests(open_runs(paths[:1])) == [other]
    seen = decode("seen", ("en", "es", "ru"), range(8))
    unheard = decode("unheard", ("fr", "it"), range(2, 10))
    assert parallel_manifests(open_runs(paths[:1])) == [seen, unheard]


def test_the_command_writes_the_page_and_prints_the_headline(paths, capsys):
    words = ["report", *map(str, paths), "--output", "x.html", "--names", "A", "B"]
    words += ["--preset", "seamless", "--heard", "en", "--bootstrap", "20"]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.endswith("x.html\n") and "zero-shot" in printed
    page = Document(Path("x.html").read_text()).words
    assert "chrF++" in page and "case:mixed" in page and "What differs" in page
    assert cli.main(["report", str(paths[0]), "--show", "training"]) == 0
    assert "CE, last tenth" in capsys.readouterr().out
    assert cli.main(["report", str(paths[0]), "--manifest", "none.jsonl"]) == 2


def test_a_model_is_looked_into_only_when_asked_to(tmp_path, monkeypatch, capsys):
    run = Path(trained.untrained_run(tmp_path).config.train_config.output_dir)
    words = ["report", str(run), "--output", str(tmp_path / "x.html")]
    assert cli.main([*words, "--analyze", "--sentences", "4"]) == 0
    assert "cross-lingual retrieval" in capsys.readouterr().out
    monkeypatch.setattr("slam_potsa.engine.decode.Translator.__init__", None)
    assert cli.main(words) == 0
    assert "cross-lingual retrieval" in capsys.readouterr().out
    page = Document((tmp_path / "x.html").read_text()).words
    assert "Where languages meet" in page and "All measures" in page


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    paths = [tmp_path / name for name in ("ours/seed1", "ours/seed2", "base/seed1")]
    assert ends(paths) == ["ours/seed1", "ours/seed2", "base/seed1"]
    assert ends(paths[:2]) == ["seed1", "seed2"]


def test_durations():
    assert [duration(s) for s in (None, 0.4, 59, 60, 185, 7620)] == [
        "–", "0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 07 min",
    ]  # fmt: skip
