"""Stages in sequence: stopping and continuing, what is refused, tests decoded and scored."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from slam_potsa import InputError
from slam_potsa.commands import run as run_command
from slam_potsa.config import TrainConfig
from slam_potsa.engine import attempts, stages
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import best_checkpoint
from slam_potsa.model.loading import carried_bias, read_checkpoint
from slam_potsa.model.metrics_log import read_metrics
from tests.engine.test_native import same
from tests.support import tiny_recipe

ROOT = Path(__file__).resolve().parents[2]


def train(recipe, runner=tiny_recipe.in_process) -> list[str]:
    """What was said."""
    said: list[str] = []
    stages.run_stages(recipe, runner, said.append)
    return said


def metrics(stage):
    return read_metrics(stage.folder / "metrics.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    recipe = load_recipe(str(tiny_recipe.write(folder)))
    train(recipe)
    return folder, recipe


# -- training --------------------------------------------------------------------------------------


def test_every_stage_starts_from_the_best_of_the_one_before(finished):
    _, recipe = finished
    for before, stage in zip(recipe.stages, recipe.stages[1:], strict=False):
        config = yaml.safe_load((stage.folder / "config.yaml").read_text())
        assert config["ckpt_path"] == str(before.folder / "best" / "model.pt")
    potsa = recipe.stages[-1]
    # Compensation begins in the last stage only: checkpoints before carry no biases.
    found = [carried_bias(read_checkpoint(best_checkpoint(s.folder))) for s in recipe.stages]
    assert found[:2] == [None, None] and found[2] is not None
    assert [bool(line["layers"]) for line in metrics(potsa)] == [True] * 6
    assert not any(line["layers"] for stage in recipe.stages[:2] for line in metrics(stage))
    assert all((stage.folder / "done.json").is_file() for stage in recipe.stages)


def test_what_is_finished_is_not_trained_again(finished):
    _, recipe = finished

    def never(job):
        raise AssertionError(job.name)

    assert [line.count("done") for line in train(recipe, never)] == [1, 1, 1]


def test_a_stopped_recipe_continues_to_the_same_numbers(finished, tmp_path):
    folder, whole = finished
    shutil.copytree(folder / "out/1_asr", tmp_path / "out/1_asr")
    recipe = again(folder, tmp_path)

    def stop(job):
        job.config.native.max_steps = 3
        tiny_recipe.in_process(job)
        (job.folder / "model.pt").unlink()  # as if the machine had gone: it is written at the end
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, stop)
    said = "\n".join(train(recipe))
    assert "1/3 asr: done" in said and "2/3 s2tt: continues from checkpoint-3" in said
    assert_same_run(recipe, whole)


def again(folder: Path, tmp_path: Path, *overrides: str):
    """The finished recipe, in another place."""
    return load_recipe(str(folder / "recipe.yaml"), [f"output_dir={tmp_path / 'out'}", *overrides])


def assert_same_run(ours, theirs) -> None:
    for a, b in zip(ours.stages, theirs.stages, strict=True):
        lines = [[dict(line, ot=line.get("ot", 0)) for line in metrics(s)] for s in (a, b)]
        same(*lines)
        assert_same_weights(best_checkpoint(a.folder), best_checkpoint(b.folder))


def assert_same_weights(ours: Path, theirs: Path) -> None:
    expected = read_checkpoint(theirs)
    for name, tensor in read_checkpoint(ours).items():
        if not name.endswith("as_parameter"):
            torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_another_configuration_of_a_finished_stage_is_refused(finished):
    folder, _ = finished
    changed = load_recipe(str(folder / "recipe.yaml"), ["asr.train_config.lr=0.01"])
    with pytest.raises(InputError) as error:
        train(changed)
    text = str(error.value)
    assert "stage asr is done, and differs now: train_config.lr: 0.001 then, 0.01 now" in text
    assert "another output_dir" in text and "1_asr" in text
    longer = load_recipe(str(folder / "recipe.yaml"), ["asr.train_config.num_epochs=2"])
    with pytest.raises(InputError, match="num_epochs: 1 then, 2 now"):
        train(longer)
    load = ["decode.num_beams=1", "train_config.num_workers_dataloader=1", "processes=2"]
    train(load_recipe(str(folder / "recipe.yaml"), load))  # none of these changes the weights


def test_a_new_start_makes_what_followed_it_stale(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    best = tmp_path / "out/1_asr/best/model.pt"
    state = torch.load(best, weights_only=True)
    state["encoder_projector.query"] = state["encoder_projector.query"] + 1
    torch.save(state, best)
    recipe = again(folder, tmp_path)
    with pytest.raises(
        InputError, match="stage s2tt is done, and differs now: it started from ano"
    ):
        train(recipe)


def test_weights_that_have_served_may_be_removed(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    recipe = again(folder, tmp_path)
    for path in recipe.stages[0].folder.rglob("model.pt"):
        path.unlink()
    assert "its weights are gone" in train(recipe)[0]
    (recipe.stages[0].folder / "done.json").unlink()
    with pytest.raises(InputError, match="asr, before it, is to be trained anew"):
        train(recipe)


def test_a_failing_stage_ends_the_recipe(finished, tmp_path):
    folder, _ = finished
    recipe = again(folder, tmp_path)
    with pytest.raises(InputError, match="stage asr ended with exit code 3"):
        train(recipe, lambda job: 3)
    assert not (recipe.stages[0].folder / "done.json").exists()


def test_a_model_that_is_not_the_recipes_is_left_alone(finished, tmp_path):
    folder, _ = finished
    recipe = again(folder, tmp_path)
    recipe.stages[0].folder.mkdir(parents=True)
    (recipe.stages[0].folder / "model.pt").write_bytes(b"weeks of work")
    with pytest.raises(InputError, match="a model that this recipe did not train"):
        train(recipe)


# -- the command ---------------------------------------------------------------------------------


def test_dry_run_writes_nothing(finished, tmp_path, capsys):
    folder, _ = finished
    file = f"recipe={folder / 'recipe.yaml'}"
    command(file, f"output_dir={tmp_path / 'out'}", "processes=2", "--dry-run")
    out = capsys.readouterr().out
    assert out.count("--nproc_per_node 2") == 3 and "3/3 potsa: to be trained" in out
    assert "the best checkpoint of s2tt" in out
    assert not (tmp_path / "out").exists()
    command(file, "--dry-run")
    assert capsys.readouterr().out.count(": done, ") == 3


def test_tests_are_decoded_and_scored_once(finished, capsys):
    folder, recipe = finished
    run_command.decode_tests(recipe)
    run_command.score_tests(recipe)
    predictions = recipe.stages[-1].folder / "test_predictions.jsonl"
    assert len(predictions.read_text().splitlines()) == 18
    scores = json.loads((recipe.stages[-1].folder / "scores.json").read_text())
    assert scores["test"] and "BLEU" in capsys.readouterr().out
    before = predictions.stat().st_mtime_ns
    run_command.decode_tests(recipe)
    assert predictions.stat().st_mtime_ns == before


def test_the_recipe_must_be_named_once():
    with pytest.raises(InputError, match="expected one recipe=NAME"):
        command("train_config.lr=1")


def command(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    run_command.add(parser.add_subparsers())
    args = parser.parse_args(["run", *arguments])
    args.command(args)


@pytest.mark.slow
def test_a_killed_command_continues_in_processes_of_its_own(finished, tmp_path):
    """SIGKILL of everything in the second stage; then the same command, to the end."""
    folder, whole = finished
    recipe = again(folder, tmp_path)
    line = [sys.executable, "-c", RUN, f"recipe={folder / 'recipe.yaml'}"]
    line += [f"output_dir={recipe.output_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    second = recipe.stages[1].folder
    first = subprocess.Popen(line, env=environment, start_new_session=True, cwd=tmp_path)
    wait_for(lambda: list(second.glob("checkpoint-*/complete")) or first.poll() is not None)
    worker = int((second / ".lock").read_text())
    os.killpg(first.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    first.wait()
    assert not (second / "done.json").exists()
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1/3 asr: done" in done.stdout and "2/3 s2tt: continues from" in done.stdout
    assert "BLEU" in done.stdout
    assert_same_run(recipe, whole)


RUN = """
import argparse, sys, time
from slam_potsa.commands import run
parser = argparse.ArgumentParser()
run.add(parser.add_subparsers())
args = parser.parse_args(["run", *sys.argv[1:]])
args.command(args)
"""


def wait_for(happened, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


# -- SLAM-LLM cannot resume: what an interrupted run of its has left -------------------------------


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


def test_nothing_left_is_none():
    train = TrainConfig(warmup_steps=1, total_steps=50, num_epochs=100)
    assert attempts.remaining(train, 49, batches=10) is None


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


def test_slam_llm_goes_on_as_a_new_attempt(interrupted):
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
    assert best_checkpoint(stage.folder).read_bytes() == newest.read_bytes()


def test_slam_llms_run_that_had_only_its_last_line_to_write_is_done(interrupted):
    stage = interrupted.stages[0]
    assert attempts.continued(stages.started_from(stage, None), "slam_llm", 1) is None
    assert best_checkpoint(stage.folder).parent.name == "asr_epoch_1_step_3"
