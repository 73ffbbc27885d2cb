"""What a report finds out about models: analyses and plans, kept for the next report."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.evaluation.analysis import Settings, read_analysis
from slam_potsa.evaluation.report import ReportRequest, Run, build_report, render
from slam_potsa.evaluation.report.manifests import Manifests
from slam_potsa.evaluation.report.models import Models
from slam_potsa.evaluation.report.plan_chart import SHADES, plan_chart
from slam_potsa.evaluation.report.plans import Plan, Spoken, aligned_layer, choose_pairs
from tests.support import trained


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Two runs with fresh weights on one manifest."""
    folder = tmp_path_factory.mktemp("runs")
    first = trained.untrained_run(folder, compensated=False)
    config = first.config
    config.train_config.output_dir = str(folder / "ours")
    trained.save_run(config, compensated=True, seed=1)
    return [folder / "run", folder / "ours"]


@pytest.fixture(scope="module")
def report(runs):
    return build_report(runs, ReportRequest())


def test_models_are_looked_into(report, runs):
    assert not any(report.left_out.values())
    base, ours = report.runs
    assert base.analysis.settings == ours.analysis.settings == Settings(sentences=300)
    assert "compensated" in ours.analysis.taps and "compensated" not in base.analysis.taps
    assert base.retrieval.pairs.keys() == ours.retrieval.pairs.keys()
    assert [len(run.plans) for run in report.runs] == [3, 3]
    page = render(report)
    for piece in ("t-SNE, compensated encoder output, ours", "run to ours, projector output",
                  "slam-potsa analyze", "--against</span>", "Transport plans"):  # fmt: skip
        assert piece in page, piece


def test_what_was_found_is_used_again(report, runs, monkeypatch):
    def refuse(self, run):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Models, "of", refuse)
    again = build_report(runs, ReportRequest(names=["A", "B"]))
    assert [run.analysis.name for run in again.runs] == ["A", "B"]
    assert again.runs[0].retrieval == report.runs[0].retrieval
    assert again.runs[1].plans == report.runs[1].plans


def test_what_is_stale_or_of_another_request_is_made_anew(report, runs, monkeypatch):
    loaded = []
    of = Models.of
    monkeypatch.setattr(Models, "of", lambda self, run: (loaded.append(run.name), of(self, run))[1])
    later = time.time() + 5
    os.utime(runs[1] / "model.pt", (later, later))
    build_report(runs, ReportRequest())
    assert set(loaded) == {"ours"}
    loaded.clear()
    fewer = build_report(runs, ReportRequest(sentences=4))
    assert set(loaded) == {"run", "ours"}
    assert {run.analysis.sentences for run in fewer.runs} == {4}


def test_the_users_own_analysis_is_taken_as_a_pattern_and_kept(report, runs, tmp_path):
    own = runs[0] / "analysis" / "analysis.json"
    found, _ = read_analysis(runs[0] / "analysis" / "report.json")
    settings = replace(found.settings, sentences=5, codes=8)
    content = {"analysis": replace(found, settings=settings).as_dict()}
    own.write_text(text := json.dumps(content))
    try:
        made = build_report(runs, ReportRequest())
        assert [run.analysis.settings for run in made.runs] == [settings] * 2
        assert own.read_text() == text
    finally:
        own.unlink()


def test_a_run_without_its_model_says_so(report, runs, tmp_path):
    (tmp_path / "gone").mkdir()
    text = (runs[0] / "config.yaml").read_text()
    (tmp_path / "gone" / "config.yaml").write_text(text)
    found = build_report([runs[0], tmp_path / "gone"], ReportRequest())
    assert found.runs[0].analysis and not found.runs[1].analysis
    assert "no model.pt there" in found.left_out["analysis"][0]
    assert "no model.pt there" in render(found)


def test_without_parallel_sentences_nothing_is_analysed(runs, tmp_path):
    manifest = tmp_path / "alone.jsonl"
    config = trained.load_run(runs[0])
    rows = [u for u in read_manifest(config.dataset_config.train_data_path) if u.language == "en"]
    write_manifest(manifest, rows)
    found = build_report(runs[:1], ReportRequest(manifests=[manifest]))
    assert found.runs[0].analysis is None
    assert any("expected at least 2" in reason for reason in found.left_out["analysis"])
    assert "no two recordings" in found.left_out["plans"][0]


def test_tests_are_analysed_together_where_they_share_sentences(tmp_path):
    def manifest(name, languages, sentences):
        rows = [
            Utterance(f"{name}-{language}-{n}", f"{n}.wav", language, f"s{n}")
            for language in languages
            for n in sentences
        ]
        write_manifest(tmp_path / f"{name}.jsonl", rows)
        return tmp_path / f"{name}.jsonl"

    seen = manifest("seen", ("en", "es", "ru"), range(8))
    unheard = manifest("unheard", ("fr", "it"), range(2, 10))
    other = manifest("other", ("fr", "it"), range(20, 30))
    together = Manifests().together
    assert together([unheard, seen, other]) == [unheard, seen]
    assert together([other]) == [other] and together([]) == []


def test_pairs_are_of_all_kinds_and_of_different_sentences(runs):
    config = trained.load_run(runs[0])
    path = Path(config.dataset_config.train_data_path)
    pairs = choose_pairs([path], ["en", "es"], Manifests())
    assert pairs == [(path, "en-0", "es-0"), (path, "en-1", "ru-1"), (path, "es-2", "ru-2")]
    assert choose_pairs([path.with_name("none.jsonl")], [], Manifests()) == []


def test_the_layer_of_the_plans_is_the_one_aligned_most():
    lines = [{"layers": [3]}, {"layers": [3, 1]}, {"layers": None}, {}]
    assert aligned_layer([Run("a", Path("a")), Run("b", Path("b"), metrics=lines)]) == 3
    assert aligned_layer([Run("a", Path("a"))]) == 2


def test_a_plan_is_drawn_in_proportion_and_stays_small():
    spans = [[0.1 * n, 0.1 * n + 0.3] for n in range(80)]
    side = Spoken("a", "en", "said", spans)
    identity = [[1 / 80 if i == j else 0.0 for j in range(80)] for i in range(80)]
    identity[0][1] = 1 / 160
    drawing = plan_chart(Plan(side, side, 2, identity, 1.0, 1.0), "t <", "d")
    assert drawing.count('opacity="1.000"') == 1 and drawing.count('opacity="0.500"') == 1
    assert "t &lt;" in drawing and len(drawing) < 12_000
    full = [[1.0] * 80] * 80
    assert len(plan_chart(Plan(side, side, 2, full, 1.0, 0.0), "t", "d")) < 250_000
    assert SHADES > 1
