"""TensorBoard and W&B get the numbers of metrics.jsonl."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from slam_potsa.config import PotsaConfig
from slam_potsa.engine import native
from slam_potsa.model.metrics import MetricsLog, logged, read_metrics, scalars
from tests.support import tiny

RECORD = {
    "step": 7,
    "ce": 2.5,
    "ot": 0.25,
    "ot/matched": float("nan"),
    "schedule/1/ucb": None,
    "layers": (2,),
    "lr": 1e-3,
    "tokens": 90,
    "seconds": 0.5,
}


def test_scalars_are_what_can_be_drawn():
    assert scalars(RECORD) == {
        "ce": 2.5, "ot": 0.25, "lr": 1e-3, "tokens": 90.0, "seconds": 0.5, "layer/2": 1.0,
    }  # fmt: skip


def test_a_run_writes_its_metrics_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny.world(tmp_path, sentences=3)
    config.native.max_steps, config.alignment.insight_interval = 4, 2
    config.log_config.use_tensorboard = True
    native.finetune(config)
    folder = Path(config.train_config.output_dir)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    lines = read_metrics(folder / "metrics.jsonl")
    written = [(e.step, pytest.approx(e.value, rel=1e-6)) for e in events.Scalars("ce")]
    assert [(line["step"], line["ce"]) for line in lines] == written and len(written) == 4
    for name in ("conflict/1/cosine", "schedule/1/probability"):
        assert [event.step for event in events.Scalars(name)] == [0, 2]


def test_wandb_continues_its_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = PotsaConfig()
    config.train_config.output_dir = str(tmp_path)
    config.log_config.use_wandb, config.log_config.wandb_dir = True, str(tmp_path)
    identities = []
    for _ in range(2):
        controller = SimpleNamespace(listeners=[])
        with logged(controller, config, 0, writes=True):
            controller.listeners[0](RECORD | {"ot/matched_tokens": 2.515625})
        identities.append((tmp_path / "wandb_run").read_text())
    assert identities[0] == identities[1]
    # W&B's file holds keys and values as they are: JSON text within its records.
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.wandb"))
    assert b"ot/matched_tokens" in written and b"2.515625" in written


def test_a_second_run_keeps_the_first_and_never_mixes_with_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    record = {"ce": 1.0, "tokens": 3, "seconds": 1.0}
    for ce in (1.0, 2.0):
        log = MetricsLog(path)
        for step in (0, 1):
            log(record | {"step": step, "ce": ce})
    assert [line["ce"] for line in read_metrics(path)] == [2.0, 2.0]
    assert [line["ce"] for line in read_metrics(tmp_path / "metrics.before.jsonl")] == [1.0, 1.0]
    code = "import sys; from slam_potsa.model.metrics import MetricsLog; MetricsLog(sys.argv[1])"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}({record | {'step': 0}!r})", str(path)],
        capture_output=True,
        text=True,
    )
    assert "another training writes there" in told.stderr
