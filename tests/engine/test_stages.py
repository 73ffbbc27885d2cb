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
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

from slam_potsa import InputError
from slam_potsa.commands import run as run_command
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine import native
from slam_potsa.engine.decode_processes import Answer
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import best_checkpoint, read_config
from slam_potsa.engine.stages import check_history, check_recipe, start
from slam_potsa.model.checkpoint import carried_bias, read_checkpoint
from slam_potsa.model.metrics import read_metrics
from tests.engine.test_native import same, same_weights
from tests.support.tiny_recipe import again, train

ROOT = Path(__file__).resolve().parents[2]


def metrics(stage):
    return read_metrics(stage.folder / "metrics.jsonl")


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

    def never(_recipe, stage):
        raise AssertionError(stage.name)

    assert [line.count("done") for line in train(recipe, never)] == [1, 1, 1]


def test_a_stopped_recipe_continues_to_the_same_numbers(finished, tmp_path):
    folder, whole = finished
    shutil.copytree(folder / "out/1_asr", tmp_path / "out/1_asr")
    recipe = again(folder, tmp_path)

    def stop(_recipe, stage):
        config = deepcopy(stage.config)
        config.native.max_steps = 3
        native.finetune(config).unlink()  # as if the machine had gone: it is written at the end
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, stop)
    said = "\n".join(train(recipe))
    assert "1/3 asr: done" in said and "2/3 s2tt: continues from checkpoint-3" in said
    assert_same_run(recipe, whole)


def assert_same_run(ours, theirs) -> None:
    for a, b in zip(ours.stages, theirs.stages, strict=True):
        lines = [[dict(line, ot=line.get("ot", 0)) for line in metrics(s)] for s in (a, b)]
        same(*lines)
        same_weights(best_checkpoint(a.folder), best_checkpoint(b.folder))


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
    with pytest.raises(InputError, match="s2tt is done, and differs now: content of ckpt_path"):
        train(recipe)


def test_other_data_under_the_same_name_is_refused(finished, tmp_path):
    """A stage that is done, and one that has begun; the same content elsewhere is the same."""
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    recipe = another_manifest(folder, tmp_path)
    manifest = Path(recipe.stages[0].config.dataset_config.train_data_path)
    text = manifest.read_text()
    (recipe.stages[1].folder / "done.json").unlink()
    check_recipe(recipe)
    manifest.write_text("".join(text.splitlines(keepends=True)[:-2]))
    with pytest.raises(InputError) as error:
        check_recipe(recipe, recordings=False)
    problems = "\n".join(error.value.problems)
    for said in ("asr is done, and", "checkpoint-6 was made from something", "potsa is done, and"):
        assert said in problems
    assert problems.count("content of dataset_config.train_data_path") == 3
    assert "another output_dir" in problems
    manifest.unlink()  # what is not there any more cannot have changed
    for stage in recipe.stages:
        check_history(stage)


def another_manifest(folder: Path, tmp_path: Path):
    """The finished recipe with a copy of its manifest, to be changed."""
    shutil.copytree(folder / "world/data", tmp_path / "data")
    manifest = tmp_path / "data/manifest.jsonl"
    keys = ("train_data_path", "val_data_path", "test_data_path")
    return again(folder, tmp_path, *(f"dataset_config.{key}={manifest}" for key in keys))


def test_weights_that_have_served_may_be_removed(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    recipe = again(folder, tmp_path)
    for path in recipe.stages[0].folder.rglob("model.pt"):
        path.unlink()
    check_recipe(recipe)
    assert [line.count("done") for line in train(recipe)] == [1, 1, 1]


def test_a_failing_stage_ends_the_recipe(finished, tmp_path):
    folder, _ = finished
    recipe = again(folder, tmp_path)
    first = recipe.stages[0].folder
    with pytest.raises(InputError, match="stage asr ended with exit code 3"):
        train(recipe, lambda *_: 3)
    assert not (first / "done.json").exists()
    first.mkdir(parents=True)
    (first / "model.pt").write_bytes(b"weeks of work")
    with pytest.raises(InputError, match="asr: .*holds a trained model.pt"):
        check_recipe(recipe)


def test_a_scheduler_that_ends_the_command_ends_its_process(finished, tmp_path, monkeypatch):
    def end(*_):
        raise SystemExit(143)

    recipe = again(finished[0], tmp_path)
    stage, line = recipe.stages[0], [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("slam_potsa.engine.stages.command", lambda *_: line)
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begin = time.monotonic()
    try:
        with pytest.raises(SystemExit):
            start(recipe, stage)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 20
    line[-1] = "raise SystemExit(2)"
    assert start(recipe, stage) == 2
    assert read_config(stage.folder, "stage.yaml") == stage.config


# -- the command ---------------------------------------------------------------------------------


def test_dry_run_writes_nothing(finished, tmp_path, capsys):
    folder, _ = finished
    file = f"recipe={folder / 'recipe.yaml'}"
    command(file, f"output_dir={tmp_path / 'out'}", "processes=2", "--dry-run")
    out = capsys.readouterr().out
    assert out.count("--nproc_per_node 2") == 3 and "3/3 potsa: to be trained" in out
    assert "2_s2tt/best/model.pt, at most" in out
    assert not (tmp_path / "out").exists()
    command(file, "--dry-run")
    assert capsys.readouterr().out.count(": done") == 3
    with pytest.raises(InputError, match="expected one recipe=NAME"):
        command("train_config.lr=1")


def test_tests_are_decoded_and_scored_once(finished, capsys):
    _, recipe = finished
    run_command.decode_tests(recipe)
    run_command.score_tests(recipe)
    predictions = recipe.stages[-1].folder / "test_predictions.jsonl"
    assert len(predictions.read_text().splitlines()) == 18
    scores = json.loads((recipe.stages[-1].folder / "scores.json").read_text())
    assert scores["test"] and "BLEU" in capsys.readouterr().out
    before = predictions.stat().st_mtime_ns
    capsys.readouterr()
    run_command.decode_tests(recipe)
    assert predictions.stat().st_mtime_ns == before and capsys.readouterr().out == ""


@pytest.fixture
def decoded(finished, tmp_path, monkeypatch):
    """The finished recipe with a manifest of its own; its decoder only notes what it was asked."""
    folder, _ = finished
    undecoded = shutil.ignore_patterns("test*")
    shutil.copytree(folder / "out/3_potsa", tmp_path / "out/3_potsa", ignore=undecoded)
    recipe = another_manifest(folder, tmp_path)
    asked = []

    def decode(_processes, _job, journal, config, manifest, _shuffle_audio):
        asked.append(config)
        journal.add(0, [[Answer(row.key, ["text"]) for row in read_manifest(manifest)]])

    monkeypatch.setattr("slam_potsa.engine.decode.in_processes", decode)

    def decode_tests(*overrides):
        """What was decoded with, None where nothing was."""
        before = len(asked)
        tests = [f"tests.test={tmp_path / 'data/manifest.jsonl'}"]
        run_command.decode_tests(again(folder, tmp_path, *tests, *overrides))
        return asked[-1] if len(asked) > before else None

    assert decode_tests() is not None and decode_tests() is None
    return recipe, decode_tests


def test_decoded_again_where_an_option_the_task_or_the_batch_changes(decoded, capsys):
    _, decode_tests = decoded
    assert decode_tests("train_config.val_batch_size=1", "processes=4") is None
    again = decode_tests("decode.num_beams=1")
    assert again.decode.num_beams == 1
    assert "decode.num_beams: 2 then, 1 now" in capsys.readouterr().out
    assert decode_tests("decode.num_beams=1") is None
    task = decode_tests("potsa.dataset_config.test_task=asr", "decode.num_beams=1")
    assert task.dataset_config.test_task == "asr"
    assert "task: 's2tt' then, 'asr' now" in capsys.readouterr().out


def test_decoded_again_where_the_manifest_the_weights_or_the_file_changes(
    decoded, tmp_path, capsys
):
    recipe, decode_tests = decoded
    manifest, last = tmp_path / "data/manifest.jsonl", recipe.stages[-1].folder
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))
    os.utime(manifest, (1, 1))  # older than the predictions, and yet another
    assert decode_tests() and "the manifest's content" in capsys.readouterr().out
    (last / "test_predictions.jsonl").write_text("`slam-potsa decode --beams 1` wrote here")
    assert decode_tests() and "not the one that was written" in capsys.readouterr().out
    (last / "test.done.json").unlink()
    assert decode_tests() and "nothing there says" in capsys.readouterr().out
    with (last / "best/model.pt").open("ab") as file:
        file.write(b"more")
    os.utime(last / "best/model.pt", (1, 1))
    assert decode_tests() and "the model's weights" in capsys.readouterr().out
    assert decode_tests() is None


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
    line = [sys.executable, "-m", "slam_potsa.cli", "run", f"recipe={folder / 'recipe.yaml'}"]
    line += [f"output_dir={tmp_path / 'out'}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    second = recipe.stages[1].folder
    first = subprocess.Popen(line, env=environment, start_new_session=True, cwd=tmp_path)
    wait_for(lambda: list(second.glob("checkpoint-*/complete")) or first.poll() is not None)
    worker = int((second / ".owner").read_text())
    os.killpg(first.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    first.wait()
    assert not (second / "done.json").exists()
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "1/3 asr: done" in done.stdout and "2/3 s2tt: continues from" in done.stdout
    assert "BLEU" in done.stdout
    assert_same_run(recipe, whole)


def wait_for(happened, seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
