"""`make demo` from end to end, with tiny parts in place of the real ones."""

from __future__ import annotations

import html
import json
import sys
from pathlib import Path

import demo
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.data.sources.asterisk import AsteriskCorpus
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]


def small_corpus(folder: Path) -> AsteriskCorpus:
    """The four manifests of the real corpus, from noise in five languages."""
    manifest = tiny.recordings(folder, sentences=10, languages=("en", "es", "ru", "fr", "it"))
    utterances = read_manifest(manifest)
    heard = [u for u in utterances if u.language in ("en", "es", "ru")]
    splits = {
        "train": [u for u in heard if u.sentence_id < "s7"],
        "dev": [u for u in heard if u.sentence_id == "s7"],
        "test": [u for u in utterances if u.sentence_id > "s7"],
        "zero_shot": [u for u in utterances if u not in heard and u.sentence_id < "s7"],
    }
    for name, part in splits.items():
        write_manifest(folder / f"{name}.jsonl", part)
    paths = {name: folder / f"{name}.jsonl" for name in splits}
    counts = {name: {"en": len(part)} for name, part in splits.items()}
    return AsteriskCorpus(
        train=paths["train"],
        dev=paths["dev"],
        test_unheard=paths["test"],
        zero_shot=paths["zero_shot"],
        sentences={name: len({u.sentence_id for u in part}) for name, part in splits.items()},
        utterances=counts,
        seconds={name: {"en": 1.0} for name in splits},
    )


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
    assert "data:audio" in report and "Transport plans" in report and "Left out" not in report
    assert f"slam-potsa analyze {tmp_path / 'potsa'}" in report
    assert all(html.escape(note) in report for note in demo.NOTES)
    assert (tmp_path / "table.txt").read_text().strip() in printed
    assert (tmp_path / "potsa" / "zero_shot_pred").is_file()
    baseline = (tmp_path / "baseline" / "config.yaml").read_text()
    potsa = (tmp_path / "potsa" / "config.yaml").read_text()
    differing = set(baseline.splitlines()) ^ set(potsa.splitlines())
    assert {line.split(":")[0].strip() for line in differing} == {
        "enabled",
        "model_name",
        "output_dir",
        "log_file",
        "weight",
    }
