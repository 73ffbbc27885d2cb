"""`make demo` from end to end, with tiny parts in place of the real ones."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import yaml
from markupsafe import escape

import demo
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.sources import corpus
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]


def small_corpus(folder: Path) -> corpus.Corpus:
    """The four manifests of the real corpus, from noise in five languages."""
    manifest = tiny.recordings(folder, sentences=10, languages=("en", "es", "ru", "fr", "it"))
    recordings = []
    for row in read_manifest(manifest):
        heard = row.language in ("en", "es", "ru")
        split = "train" if row.sentence_id < "s7" else "dev" if row.sentence_id == "s7" else "test"
        name = split if heard or split == "test" else "zero_shot" if split == "train" else ""
        audio = str(folder.resolve() / row.audio)
        recordings.append(corpus.Recording(name, row.key, replace(row, audio=audio)))
    return corpus.write(folder, [found for found in recordings if found.manifest], {})


def test_demo_writes_its_table_metrics_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setattr(demo.asterisk, "build", lambda out, **_: small_corpus(out))
    monkeypatch.setattr(demo.whisper, "find_packaged", lambda: None)
    monkeypatch.setattr(demo.whisper, "convert_encoder", lambda _, out: tiny.whisper(out))
    monkeypatch.setattr(demo.smollm2, "build", lambda out, texts: tiny.llm(out))
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path), "--steps", "2"])
    demo.main()
    printed = capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["systems"]) == {"Baseline", "POTSA"}
    assert all(name in printed for name in ("Baseline", "POTSA", "BLEU", "R@1"))
    assert set(metrics) == {"systems", "comparisons", "wall_seconds", "torch", "threads"}
    for found in metrics["systems"].values():
        assert list(found["scores"]) == list(demo.TESTS.values()) == list(metrics["comparisons"])
        assert list(found["retrieval"]) == [demo.RETRIEVAL]
    report = (tmp_path / "report.html").read_text()
    assert "data:audio" in report and "Transport cost" in report and "Left out" not in report
    assert f"demo.py --output {tmp_path}" in report
    assert all(escape(note) in report for note in demo.NOTES)
    assert (tmp_path / "table.txt").read_text().strip() in printed
    assert (tmp_path / "potsa" / "zero_shot_pred").is_file()
    baseline, potsa = (
        yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in demo.SYSTEMS
    )
    differing = {
        f"{section}.{name}"
        for section, options in potsa.items()
        if isinstance(options, dict) and section != "log_config"
        for name in options
        if options[name] != baseline[section][name]
    }
    runs = {"train_config.model_name", "train_config.output_dir"}
    assert differing - runs == {"alignment.terms", "language_bias.enabled"}
