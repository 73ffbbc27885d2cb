"""The page as a whole: what stands on it, what is missing, and that its commands print it again."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from slam_potsa import cli
from slam_potsa.commands import report as command
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report import (
    Report,
    ReportRequest,
    Run,
    build_report,
    headline,
    headline_text,
    render,
    shown,
    write_report,
)
from slam_potsa.evaluation.report.directories import ends, open_runs
from slam_potsa.evaluation.report.markup import duration
from tests.support import run_directories

VOID = {"meta", "br", "link", "img", "input", "hr"}
NO_MODELS = ReportRequest(analysis=False, bootstrap=50)


class Document(HTMLParser):
    """Fails on tags that do not match; keeps elements, attributes, visible text and commands."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text, self.code = [], [], [], ""
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
        self.code += "\n" if tag == "code" else ""

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
        if "code" in self.open:
            self.code += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def commands(self):
        return [line for line in self.code.splitlines() if line]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


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
    return build_report(paths, NO_MODELS)


def parsed(*arguments):
    """The command line with the command `report`."""
    parser = cli._parser() if command in cli.GROUPS else None
    if parser is None:
        import argparse

        parser = argparse.ArgumentParser()
        groups = parser.add_subparsers()
        for group in (*cli.GROUPS, command):
            group.add(groups)
    return parser.parse_args(arguments)


def test_the_page_is_well_formed_and_needs_no_network(report, tmp_path):
    text = write_report(tmp_path / "out" / "report.html", report).read_text(encoding="utf-8")
    page = Document(text)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text)
    assert "default-src 'none'" in text and len(page.all("h1")) == 1
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources and all(source.startswith("data:audio/flac;base64,") for source in sources)
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {link["href"] for link in page.all("a")} == {f"#{place}" for place in places}


def test_every_printed_command_runs_and_prints_the_numbers(report, capsys):
    page = Document(render(report))
    output = ""
    for line in dict.fromkeys(page.commands):
        words = shlex.split(line)
        assert words[0] == "slam-potsa"
        args = parsed(*words[1:])
        if words[1] == "report" and "--show" not in words:
            continue  # this page again
        args.command(args)
        output += capsys.readouterr().out
    expected = [f"{score.value:.1f}" for run in report.runs for table in run.scores.values()
                for row in table.rows for score in row.scores.values()]  # fmt: skip
    expected += ["p: paired bootstrap", "guards|", "blind control", "0.02", "-0.500", "3.0"]
    assert all(number in output for number in expected)
    kinds = {shlex.split(line)[1] for line in page.commands}
    assert kinds == {"report", "prepare", "score"}


def test_what_was_run_begins_with_what_differs(report):
    words = Document(render(report)).words
    rows = {row[0]: row[1:] for row in _table(report, "runs")}
    assert rows["alignment.weight"] == ["0.0", "3.0"]
    assert not any("output_dir" in name or "model_name" in name for name in rows)
    assert words.index("What differs") < words.index("Whole configuration of base")
    assert "0.01" in words and "not found, or not a manifest" not in words  # hours of the data


def _table(report, name):
    return [re.split(r"\s{2,}", line) for line in shown(name, report.runs).splitlines()]


def test_scores_are_compared_with_the_first_run(report):
    first, second = (run.scored["test"] for run in report.runs)
    assert not first.comparisons and {c.name for c in second.comparisons} >= {"fr", "all, pooled"}
    assert second.blind and not first.blind
    assert report.heard == ["en", "es"] and report.zero_shot == ["fr"]
    words = Document(render(report)).words
    for piece in ("seen, pooled", "zero-shot, pooled", "p = ", "tok:13a", "exchanged recordings"):
        assert piece in words
    assert report.tests == ["test"]  # the blind control is no test of its own


def _keep_in_training(paths, place, kept):
    """A training manifest of its own for the run at `place`: the rows that `kept` takes."""
    rows = [row for row in read_manifest(Path("data/test.jsonl")) if kept(row)]
    write_manifest(Path(f"data/train{place}.jsonl"), rows)
    config = yaml.safe_load((paths[place] / "config.yaml").read_text())
    config["dataset_config"]["train_data_path"] = f"data/train{place}.jsonl"
    (paths[place] / "config.yaml").write_text(yaml.safe_dump(config))


def test_runs_that_heard_other_languages_are_warned_about(paths, report):
    assert report.warnings == []
    _keep_in_training(paths, 1, lambda row: row.language == "en")
    warned = build_report(paths, NO_MODELS)
    assert "base on en, es; ours on en." in warned.warnings[0]
    text = render(warned)
    assert text.index('<p class="warning">') < text.index("<table")
    assert headline_text(warned).startswith("The runs were trained on different languages")
    for given in ({"heard": ["en"]}, {"zero_shot": ["fr"]}):
        assert build_report(paths, replace(NO_MODELS, **given)).warnings == []
    Path("data/train1.jsonl").unlink()
    assert "ours on languages not known" in build_report(paths, NO_MODELS).warnings[0]


def test_sentences_that_are_also_in_training_are_told(paths):
    _keep_in_training(paths, 0, lambda row: row.sentence_id == "s0")
    report = build_report(paths, NO_MODELS)
    tested = next(item for item in report.data if item.tests)
    assert tested.trained == {"base": 0.25, "ours": 1.0}
    words = Document(render(report)).words
    assert "base 25 %, ours 100 %" in words and "sentences also in training" in words
    for place in (0, 1):  # the same texts under other names are not known to be the same
        _keep_in_training(paths, place, lambda row: True)
        rows = read_manifest(Path("data/test.jsonl"))
        other = [replace(row, sentence_id=f"other {row.sentence_id}") for row in rows]
        write_manifest(Path(f"data/train{place}.jsonl"), other)
    report = build_report(paths, NO_MODELS)
    assert next(item for item in report.data if item.tests).trained_text() == "0 %"
    assert "also in training, in" not in headline_text(report)


def test_a_run_without_schedule_lines_shows_those_of_its_schedule_file(paths):
    lines = [json.loads(line) for line in (paths[1] / "metrics.jsonl").read_text().splitlines()]
    lines = [{k: v for k, v in line.items() if "schedule/" not in k} for line in lines]
    (paths[1] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = {"reward": 0.25, "count": 3, "ucb": None, "probability": 0.5}
    (paths[1] / "schedule.json").write_text(json.dumps({"step": 30, "layers": {"1": state}}))
    report = build_report(paths, NO_MODELS)
    row = next(row for row in _table(report, "layers") if row[:2] == ["ours", "1"])
    assert row[2:] == ["15", "50", "0.25", "–", "0.5"]
    words = Document(render(report)).words
    assert "alignment.insight_interval" in words and "values at step 30" in words
    (paths[1] / "schedule.json").write_text('{"step": 3')
    assert "values at step" not in Document(render(build_report(paths, NO_MODELS))).words


def test_a_blind_control_of_the_same_recordings_is_left_out_and_the_scores_stay(paths):
    same = [replace(item, prediction="no") for item in run_directories.predictions()]
    run_directories.write_predictions(paths[1] / "test_blind_predictions.jsonl", same)
    report = build_report(paths, NO_MODELS)
    assert report.runs[1].scored["test"].table.rows and not report.runs[1].scored["test"].blind
    assert "no blind control" in report.left_out["scores"][0]


def test_a_gap_between_costs_is_not_called_alignment(report):
    words = Document(render(report)).words
    assert "Matched falls below mismatched also without alignment" in words
    assert "tokens / s a process" in words


def test_curves_and_their_tables(report):
    words = Document(render(report)).words
    for piece in ("Cross-entropy", "Alignment cost, ot", "Reward R, ours", "Probability p, ours",
                  "Cosine of the two gradients, ours", "Cosine by depth", "below 0 they conflict",
                  "Gradient norms, layers 1 to 2, ours"):  # fmt: skip
        assert piece in words, piece
    rows = [row for row in _table(report, "layers") if row[0] == "ours"]
    schedule, conflict = rows[:2], rows[2:]
    assert [row[2:4] for row in schedule] == [["15", "50"], ["15", "50"]]
    assert [row[4] for row in schedule] == ["0.01", "0.02"]
    assert [row[-2:] for row in conflict] == [["+0.250", "0"], ["-0.500", "100"]]
    assert _table(report, "training")[-1][1:3] == ["30", "0.173"]  # mean of 5/28, 5/29, 5/30


def test_runs_without_the_newer_lines_have_no_empty_sections(paths):
    (paths[1] / "metrics.jsonl").write_text('{"step": 0, "ce": 1.0}\n{"step": 1}\n{"cut')
    report = build_report(paths, NO_MODELS)
    words = Document(render(report)).words
    assert "Cross-entropy" in words and "Cosine of the two" not in words
    assert "Layer schedule" not in words
    assert shown("layers", report.runs) == "nothing was recorded"


def test_all_text_is_escaped(paths):
    nasty = "<script>alert('x')</script> & more"
    found = [replace(item, prediction=nasty) for item in run_directories.predictions()]
    run_directories.write_predictions(paths[1] / "test_predictions.jsonl", found)
    request = replace(
        NO_MODELS, title="a <b>", summary="c & d", notes=["<i>"], names=["x", "<λ>"],
        titles={"test": "te<s>t"},
    )  # fmt: skip
    text = render(build_report(paths, request))
    page = Document(text)
    assert len(page.all("script")) == 1 and "alert(" not in text.split("<script>")[-1]
    assert len(page.all("i")) == len(page.all("b")) == 0
    joined = "".join(page.text)
    for piece in ("a <b>", "c & d", "<i>", "<λ>", "te<s>t", "</script>"):
        assert piece in joined


def test_a_system_that_decoded_other_sentences_is_not_compared(paths):
    other = run_directories.predictions()[1:]
    run_directories.write_predictions(paths[1] / "test_predictions.jsonl", other)
    (paths[1] / "test_blind_predictions.jsonl").unlink()
    report = build_report(paths, NO_MODELS)
    assert (
        report.runs[1].scored["test"].table.rows and not report.runs[1].scored["test"].comparisons
    )
    assert "no comparison with the first run" in report.left_out["scores"][0]
    assert "no comparison with the first run" in Document(render(report)).words


def test_predictions_without_references_are_said_to_be_unscored(paths):
    found = [replace(item, reference=None) for item in run_directories.predictions()]
    run_directories.write_predictions(paths[0] / "test_predictions.jsonl", found)
    (paths[1] / "test_predictions.jsonl").unlink()
    report = build_report(paths, NO_MODELS)
    assert report.runs[0].scored == {}
    assert "have no reference" in Document(render(report)).words
    assert "Samples" in Document(render(report)).words


def test_the_least_report():
    words = Document(render(Report([Run("one", "runs/one")]))).words
    assert "one" in words and "no metrics.jsonl" in words
    assert "Training" not in words and "Samples" not in words


def test_everything_wrong_is_said_at_once(paths, tmp_path):
    (paths[0] / "test_predictions.jsonl").write_text("[]\n")
    (tmp_path / "empty").mkdir()
    request = ReportRequest(
        names=["a"], heard=["en"], zero_shot=["en"], manifests=[tmp_path / "no.jsonl"],
        preset="potsaa", samples=-1, sentences=1,
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        build_report([paths[0], tmp_path / "empty"], request)
    told = str(error.value)
    for piece in ("names:", "both heard and zero-shot", "no.jsonl", "did you mean 'potsa'",
                  "samples:", "sentences:", "no config.yaml there"):  # fmt: skip
        assert piece in told
    with pytest.raises(InputError, match="expected a JSON object"):
        build_report([paths[0]], NO_MODELS)
    with pytest.raises(InputError, match="given twice"):
        open_runs([paths[0], paths[0]])
    with pytest.raises(InputError, match="at least one run"):
        open_runs([])
    with pytest.raises(InputError, match="its own name"):
        render(Report([]))


def test_data_are_found_through_the_configuration_only(paths, tmp_path):
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    report = build_report(paths, NO_MODELS)
    assert [item.holds for item in report.data] == [None]
    assert all(sample.base is None for sample in report.samples)
    words = Document(render(report)).words
    assert "its manifest was not found" in words and "not found, or not a manifest" in words
    given = replace(NO_MODELS, manifests=[tmp_path / "elsewhere" / "test.jsonl"])
    report = build_report(paths, given)
    assert {sample.base for sample in report.samples} == {tmp_path / "elsewhere"}


def test_a_manifest_of_other_recordings_is_not_taken(paths, tmp_path):
    manifest = tmp_path / "data" / "test.jsonl"
    manifest.write_text(manifest.read_text().replace("audio/fr-1.flac", "audio/fr-0.flac"))
    assert all(sample.base is None for sample in build_report(paths, NO_MODELS).samples)


def test_samples_are_the_first_of_each_language(report, paths):
    keys = [sample.key for sample in report.samples]
    assert keys == [f"{language}-{n}" for language in ("en", "es", "fr") for n in range(3)]
    page = Document(render(report))
    languages = [row["data-language"] for row in page.all("tr") if "data-language" in row]
    assert languages[:9] == ["en"] * 3 + ["es"] * 3 + ["fr"] * 3
    assert len(build_report(paths, replace(NO_MODELS, samples=1)).samples) == 3


def test_without_known_languages_there_are_no_groups(paths, tmp_path):
    (tmp_path / "data" / "train.jsonl").unlink()
    report = build_report(paths, NO_MODELS)
    assert report.heard == report.zero_shot == []
    assert {row.group for row in headline(report)} == {"all"}


def test_the_headline_has_a_row_a_test_group_and_run(report):
    assert [(row.group, row.run) for row in headline(report)] == [
        ("seen", "base"),
        ("seen", "ours"),
        ("zero-shot", "base"),
        ("zero-shot", "ours"),
    ]
    table = report.runs[0].scores["test"]
    assert headline(report)[2].scores == table.row("zero-shot, pooled")
    lines = headline_text(report).splitlines()
    assert len(lines) == 6 and lines[0].split()[:3] == ["test", "languages", "system"]
    assert lines[-1].startswith("“test”: 100 % of the sentences are also in training")


def test_the_command_writes_the_page_and_prints_the_headline(paths, capsys, tmp_path):
    words = ["report", *map(str, paths), "--no-analysis", "--output", str(tmp_path / "x.html")]
    words += ["--names", "A", "B", "--preset", "seamless", "--heard", "en"]
    words += ["--bootstrap", "20"]
    args = parsed(*words)
    args.command(args)
    printed = capsys.readouterr().out
    assert "x.html" in printed and "zero-shot" in printed
    page = Document((tmp_path / "x.html").read_text())
    assert "chrF++" in page.words and "case:mixed" in page.words
    again = [line for line in page.commands if line.endswith("--no-analysis")][0]
    assert "--names A B --heard en --preset seamless --bootstrap 20" in again
    score = next(line for line in page.commands if "--baseline" in line)
    assert "--preset seamless --bootstrap 20 --samples 20" in score


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    paths = [tmp_path / name for name in ("ours/seed1", "ours/seed2", "base/seed1")]
    assert ends(paths) == ["ours/seed1", "ours/seed2", "base/seed1"]
    assert ends(paths[:2]) == ["seed1", "seed2"]


def test_durations():
    assert [duration(s) for s in (0.4, 59, 60, 185, 7620)] == [
        "0 s", "59 s", "1 min 00 s", "3 min 05 s", "2 h 07 min",
    ]  # fmt: skip
