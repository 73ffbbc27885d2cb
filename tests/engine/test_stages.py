import json
import os
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy

import pytest

from slam_potsa.cli import main
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import native
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import best_checkpoint, read_config
from slam_potsa.engine.stages import check_history, check_recipe, start
from tests.engine.test_native import same, same_weights
from tests.support import refusal, refused
from tests.support.tiny_recipe import again, train, write
from tests.support.torchrun import environment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe that has been trained; tests work on copies."""
    folder = tmp_path_factory.mktemp("recipe")
    recipe = load_recipe(str(write(folder)))
    train(recipe)
    return folder, recipe


def metrics(stage):
    return read_log(stage.folder / "metrics.jsonl")


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


def test_a_finished_stage_stays_unless_what_it_came_from_differs(finished):
    folder, _ = finished
    file = str(folder / "recipe.yaml")
    load = ["decode.num_beams=1", "train_config.num_workers_dataloader=1", "processes=2"]
    for same_training in ([], load):
        said = train(load_recipe(file, same_training), lambda *_: 3)
        assert [line.count("done") for line in said] == [1, 1, 1]
    for option, before, now in (("lr", 0.001, 0.01), ("num_epochs", 1, 2)):
        error = refusal(train, load_recipe(file, [f"asr.train_config.{option}={now}"]))
        change = f"train_config.{option}: {before} then, {now} now"
        text = str(error)
        assert f"stage asr is done, and differs now: {change}" in text
        assert "another output_dir" in text and "1_asr" in text


def test_other_data_or_another_start_under_the_same_name_is_refused(finished, tmp_path):
    """A stage that is done, and one that has begun; the same content elsewhere is the same."""
    folder, _ = finished
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copytree(folder / "world/data", tmp_path / "data")
    manifest = tmp_path / "data/manifest.jsonl"
    keys = ("train_data_path", "val_data_path", "test_data_path")
    recipe = again(folder, tmp_path, *(f"dataset_config.{key}={manifest}" for key in keys))
    text, best = manifest.read_text(), best_checkpoint(recipe.stages[1].folder)
    (recipe.stages[1].folder / "done.json").unlink()
    check_recipe(recipe)
    manifest.write_text("".join(text.splitlines(keepends=True)[:-2]))
    best.write_bytes(best.read_bytes() + b"more")
    problems = "\n".join(refusal(check_recipe, recipe, recordings=False).problems)
    for said in ("asr is done, and", "checkpoint-6 was made from something", "potsa is done, and"):
        assert said in problems
    assert problems.count("content of dataset_config.train_data_path") == 3
    assert "content of ckpt_path" in problems and "another output_dir" in problems
    for gone in (manifest, *recipe.stages[0].folder.parent.rglob("model.pt")):
        gone.unlink()  # what has served and is not there any more cannot have changed
    for stage in recipe.stages:
        check_history(stage)


def test_a_scheduler_that_ends_the_command_ends_its_process(finished, tmp_path, monkeypatch):
    def end(*_):
        raise SystemExit(143)

    recipe = again(finished[0], tmp_path)
    stage, line = recipe.stages[0], [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr("slam_potsa.engine.stages.command", lambda *_: line)
    before = signal.signal(signal.SIGALRM, end)
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda line: started.append(popen(line)) or started[0])
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(SystemExit):
            start(recipe, stage)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert started.pop().returncode == -signal.SIGTERM
    line[-1] = "raise SystemExit(2)"
    assert start(recipe, stage) == 2
    assert read_config(stage.folder, "stage.yaml") == stage.config


def test_dry_run_writes_nothing_and_a_failing_stage_ends_the_recipe(finished, tmp_path, capsys):
    folder, _ = finished
    file = f"recipe={folder / 'recipe.yaml'}"
    assert main(["run", file, f"output_dir={tmp_path / 'out'}", "processes=2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("--nproc_per_node 2") == 3 and "3/3 potsa: to be trained" in out
    assert "2_s2tt/best/model.pt, at most" in out
    assert not (tmp_path / "out").exists()
    assert main(["run", file, "--dry-run"]) == 0
    assert capsys.readouterr().out.count(": done") == 3
    assert main(["run", "train_config.lr=1"]) == 2
    assert "expected one recipe=NAME" in capsys.readouterr().err
    recipe = again(folder, tmp_path)
    first = recipe.stages[0].folder
    refused("stage asr ended with exit code 3", train, recipe, lambda *_: 3)
    assert not (first / "done.json").exists()
    first.mkdir(parents=True)
    (first / "model.pt").write_bytes(b"weeks of work")
    refused("asr: .*holds a trained model.pt", check_recipe, recipe)


def test_tests_are_decoded_and_scored_once(finished, capsys):
    folder, recipe = finished
    command, last = ["run", f"recipe={folder / 'recipe.yaml'}"], recipe.stages[-1].folder
    assert main(command) == 0 and "BLEU" in capsys.readouterr().out
    assert json.loads((last / "scores.json").read_text())["test"]
    os.utime(last / "test_predictions.jsonl", (1, 1))
    assert main(command) == 0 and "BLEU" in capsys.readouterr().out
    assert (last / "test_predictions.jsonl").stat().st_mtime == 1
    (last / "test_predictions.jsonl").write_text("`slam-potsa decode --beams 1` wrote here")
    assert main(command) == 0 and "not the one that was written" in capsys.readouterr().out
    assert len(read_predictions(last / "test_predictions.jsonl")) == 18


@pytest.mark.slow
def test_a_killed_command_continues_in_processes_of_its_own(finished, tmp_path):
    killed_in_the_second_stage(*finished, tmp_path)


def killed_in_the_second_stage(folder, whole, tmp_path) -> None:
    """SIGKILL of everything there; then the same command, to the end."""
    recipe = again(folder, tmp_path)
    line = [sys.executable, "-m", "slam_potsa.cli", "run", f"recipe={folder / 'recipe.yaml'}"]
    line += [f"output_dir={tmp_path / 'out'}"]
    second, place = recipe.stages[1].folder, {"env": environment(), "cwd": tmp_path}
    first = subprocess.Popen(line, start_new_session=True, **place)
    end = time.monotonic() + 200
    while not list(second.glob("checkpoint-*/complete")) and first.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "is running the recipe" in (tmp_path / "out/.lock").read_text()
    worker = int((second / ".lock").read_text().split()[0])
    os.killpg(first.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    first.wait()
    assert not (second / "done.json").exists()
    done = subprocess.run(line, capture_output=True, text=True, **place)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    count, names = len(recipe.stages), [stage.name for stage in recipe.stages]
    assert f"1/{count} {names[0]}: done" in done.stdout
    assert f"2/{count} {names[1]}: continues from" in done.stdout
    assert "BLEU" in done.stdout
    assert_same_run(recipe, whole)
