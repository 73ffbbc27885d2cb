"""W&B gets the numbers of metrics.jsonl."""

from types import SimpleNamespace

import pytest

from slam_potsa.config import PotsaConfig
from slam_potsa.data.jsonl import read_log
from slam_potsa.model.metrics import MetricsLog, logged, scalars

RECORD = {"step": 7, "ce": 2.5, "layers": (2,), "lr": 1e-3, "tokens": 90, "seconds": 0.5}
RECORD |= {"ot/matched_tokens": 2.515625, "ot/matched": float("nan"), "schedule/1/ucb": None}


def test_w_and_b_gets_the_numbers_and_a_second_run_continues_the_first(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config, runs = PotsaConfig(), []
    config.train_config.output_dir = config.log_config.wandb_dir = str(tmp_path)
    config.log_config.use_wandb = True
    for _ in range(2):
        controller = SimpleNamespace(listeners=[])
        with logged(controller, config, writes=True):
            controller.listeners[0](RECORD)
        runs.append((tmp_path / "wandb_run").read_text())
    assert len(set(runs)) == 1
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert all(name.encode() in written for name in (*scalars(RECORD), "2.515625"))
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
