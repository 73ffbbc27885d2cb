"""A recipe's stages inside the unmodified SLAM-LLM, which cannot resume."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml

from slam_potsa.engine import stages
from slam_potsa.engine.attempts import steps_trained
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.recipe_check import check_recipe
from slam_potsa.engine.run_directory import best_checkpoint, newest_saved
from slam_potsa.model.checkpoint import carried_bias, read_checkpoint
from slam_potsa.model.metrics import read_metrics
from tests.support import slam_llm, tiny_recipe

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(slam_llm.source() is None, reason="SLAM_LLM_SRC is not set"),
]


def begin(job) -> subprocess.Popen:
    """The job's own command, with the CPU shim between torchrun and the entry."""
    at = job.command.index(stages.MODULE)
    entry = [str(ROOT / "tests/support/cpu_shim.py"), str(ROOT / "slam_potsa/engine/launch.py")]
    environment = {
        **os.environ,
        "SLAM_LLM_SRC": str(slam_llm.source()),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    command = [*job.command[: at - 1], *entry, *job.command[at + 1 :]]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def to_the_end(job) -> int:
    return begin(job).wait(300)


def killed_once_it_saved(job) -> int:
    running, end = begin(job), time.monotonic() + 300
    while not newest_saved(job.folder):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)  # torch.save is not atomic
    worker = int((job.folder / ".owner").read_text())
    os.killpg(running.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    running.wait()
    raise KeyboardInterrupt


def test_two_stages_the_second_of_them_killed(tmp_path):
    content = yaml.safe_load(tiny_recipe.write(tmp_path).read_text())
    content["engine"] = "slam_llm"
    content["all"]["train_config"] |= {"validation_interval": 1, "val_batch_size": 2}
    del content["stages"]["s2tt"]
    content["stages"]["potsa"]["train_config"]["num_epochs"] = 4
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    check_recipe(recipe)
    asr, potsa = recipe.stages

    def runner(job):
        return to_the_end(job) if job.name == "asr" else killed_once_it_saved(job)

    with pytest.raises(KeyboardInterrupt):
        stages.run_stages(recipe, runner)
    assert best_checkpoint(asr.folder) == asr.folder / "best/model.pt"
    assert best_checkpoint(asr.folder).read_bytes() == newest_saved(asr.folder).read_bytes()
    saved = newest_saved(potsa.folder)
    trained = steps_trained(saved)
    assert trained >= 1 and not (potsa.folder / "model.pt").exists()

    said: list[str] = []
    stages.run_stages(recipe, to_the_end, said.append)
    assert "1/2 asr: done" in said[0] and "SLAM-LLM cannot resume" in said[1]
    before = potsa.folder.with_name("2_potsa-attempt1")
    config = yaml.safe_load((potsa.folder / "config.yaml").read_text())
    assert config["ckpt_path"] == str(before / saved.parent.name / "model.pt")
    assert config["train_config"]["total_steps"] == 100 - trained
    rates = [line["lr"] for line in read_metrics(potsa.folder / "metrics.jsonl")]
    assert rates[0] == pytest.approx(5e-4 * min(1, (100 - trained) / 98), rel=1e-4) or trained < 2
    assert stages.is_done(potsa) and carried_bias(read_checkpoint(best_checkpoint(potsa.folder)))
    assert carried_bias(read_checkpoint(best_checkpoint(asr.folder))) is None
    weights = read_checkpoint(best_checkpoint(potsa.folder))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
