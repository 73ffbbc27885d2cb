"""SLAM-LLM cannot resume: what an interrupted run of its has left, and how it goes on."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from slam_potsa import InputError
from slam_potsa.config import TrainConfig
from slam_potsa.engine import attempts, stages
from slam_potsa.engine.run_directory import best_checkpoint
from tests.support.tiny_recipe import again, train


def test_the_rest_of_a_run_follows_the_same_line():
    train = TrainConfig(
        lr=1e-4, warmup_steps=10, total_steps=110, num_epochs=9, validation_interval=8
    )
    left = attempts.remaining(train, 60, batches=12)
    assert (left.warmup_steps, left.total_steps) == (0, 50)
    for step in (0, 7, 49):  # lr (T - s) / (T - W) at s = 60 + step
        now = left.lr * (1 - step / left.total_steps)
        assert now == pytest.approx(1e-4 * (110 - 60 - step) / 100)
    assert left.num_epochs == 4 and left.validation_interval == 8  # 48 of 108 steps are left


def test_a_run_that_was_warming_up_reaches_its_peak_where_it_would_have():
    train = TrainConfig(lr=1e-4, warmup_steps=10, total_steps=110, num_epochs=100)
    left = attempts.remaining(train, 4, batches=12)
    assert (left.lr, left.warmup_steps, left.total_steps) == (1e-4, 6, 106)
    assert left.validation_interval == 12  # once an epoch at least, or nothing would be saved
    assert attempts.remaining(train, 109, batches=12) is None  # nothing is left


@pytest.fixture
def interrupted(finished, tmp_path):
    """A stage as SLAM-LLM leaves it when it is stopped: two saved checkpoints, no model.pt."""
    folder, _ = finished
    recipe = again(folder, tmp_path, "engine=slam_llm")
    run = recipe.stages[0].folder
    shutil.copytree(folder / "out/1_asr", run)
    for step, where in ((2, "checkpoint-4"), (3, "checkpoint-6")):
        (run / f"asr_epoch_1_step_{step}").mkdir()
        shutil.copy(run / where / "model.pt", run / f"asr_epoch_1_step_{step}")
    for path in ("model.pt", "best/model.pt", "done.json"):
        (run / path).unlink()
    for path in run.glob("checkpoint-*"):
        shutil.rmtree(path)
    return recipe


def test_slam_llm_goes_on_as_a_new_attempt(interrupted, caplog):
    stage = interrupted.stages[0]
    config = yaml.safe_load((stage.folder / "config.yaml").read_text())
    config["train_config"]["num_epochs"] = 2  # 12 steps, of which 6 were saved
    (stage.folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert "a new attempt with the remaining steps, from asr_epoch_1_step_3" in stages.state_of(
        stage
    )
    for _ in range(2):  # also when it is stopped before it has saved anything
        new = attempts.continued(stages.started_from(stage, None), "slam_llm", 1)
        before = stage.folder.with_name("1_asr-attempt1")
        assert "judges anew" in caplog.text
        assert new.ckpt_path == str(before / "asr_epoch_1_step_3" / "model.pt")
        assert (new.train_config.num_epochs, new.train_config.total_steps) == (1, 94)
        assert new.train_config.lr == pytest.approx(1e-3 * 94 / 98)
        assert new.train_config.output_dir == str(stage.folder)
        assert best_checkpoint(before) == before / "asr_epoch_1_step_3" / "model.pt"
        stage.folder.mkdir(exist_ok=True)
    with pytest.raises(InputError, match="stage asr is begun, and differs now: train_config.lr"):
        overrides = ["engine=slam_llm", "asr.train_config.lr=0.5"]
        folder = Path(stage.folder).parent.parent
        stages.refuse_other_history(again_like(interrupted, folder, overrides))


def again_like(recipe, folder: Path, overrides):
    path = next(Path(recipe.tests["test"]).parents[2].glob("recipe.yaml"))
    return again(path.parent, folder, *overrides)


def test_the_best_has_one_name_whoever_trained(interrupted):
    def unneeded(job):
        raise AssertionError(job.name)

    stage = interrupted.stages[0]
    (stage.folder / "model.pt").write_bytes(b"the last, written when the loop had ended")
    one = replace(interrupted, stages=interrupted.stages[:1])
    train(one, unneeded)
    newest = stage.folder / "asr_epoch_1_step_3" / "model.pt"
    assert best_checkpoint(stage.folder) == stage.folder / "best" / "model.pt"
    assert best_checkpoint(stage.folder).samefile(newest)  # no second copy of it


def test_the_best_is_copied_where_there_are_no_links(interrupted, monkeypatch):
    def link(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", link)
    stage = interrupted.stages[0]
    stages.name_the_best(stage.folder)
    best, newest = stage.folder / "best/model.pt", stage.folder / "asr_epoch_1_step_3/model.pt"
    assert best.read_bytes() == newest.read_bytes() and not best.samefile(newest)


def test_slam_llms_run_that_had_only_its_last_line_to_write_is_done(interrupted):
    stage = interrupted.stages[0]
    assert attempts.continued(stages.started_from(stage, None), "slam_llm", 1) is None
    assert best_checkpoint(stage.folder).parent.name == "asr_epoch_1_step_3"
