"""TensorBoard and W&B get the numbers of metrics.jsonl."""

import struct
from types import SimpleNamespace

import pytest

from slam_potsa.config import PotsaConfig
from slam_potsa.data.jsonl import read_log
from slam_potsa.model.metrics import MetricsLog, logged, scalars

RECORD = {"step": 7, "ce": 2.5, "layers": (2,), "lr": 1e-3, "tokens": 90, "seconds": 0.5}
RECORD |= {"ot/matched_tokens": 2.515625, "ot/matched": float("nan"), "schedule/1/ucb": None}


@pytest.mark.parametrize(("kind", "files"), [("tensorboard", "*tfevents*"), ("wandb", "*.wandb")])
def test_records_are_written_where_they_are_drawn(tmp_path, monkeypatch, kind, files):
    pytest.importorskip(kind)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config, runs = PotsaConfig(), []
    config.train_config.output_dir = config.log_config.wandb_dir = str(tmp_path)
    setattr(config.log_config, f"use_{kind}", True)
    for _ in range(2):
        controller = SimpleNamespace(listeners=[])
        with logged(controller, config, 0, writes=True):
            controller.listeners[0](RECORD)
        runs += [path.read_text() for path in tmp_path.glob("wandb_run")]
    assert len(set(runs)) == (kind == "wandb")  # the second continues the first
    written = b"".join(path.read_bytes() for path in tmp_path.rglob(files))
    assert all(name.encode() in written for name in scalars(RECORD))
    assert b"2.515625" in written or struct.pack("<f", 2.515625) in written
    assert {*scalars(RECORD)} == {"ce", "lr", "tokens", "seconds", "layer/2", "ot/matched_tokens"}


def test_a_second_run_keeps_the_first_and_never_mixes_with_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record = {"ce": 1.0, "tokens": 3, "seconds": 1.0}
    for ce in (1.0, 2.0):
        log = MetricsLog(path)
        for step in (0, 1):
            log(record | {"step": step, "ce": ce})
    assert [line["ce"] for line in read_log(path)] == [2.0, 2.0]
    assert [line["ce"] for line in read_log(tmp_path / "metrics.before.jsonl")] == [1.0, 1.0]
