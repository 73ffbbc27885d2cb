"""A recipe's stages inside the unmodified SLAM-LLM, which cannot resume."""

import os
import signal
import subprocess
import time

import pytest
import torch
import yaml

from slam_potsa import InputError
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import best_checkpoint, newest_saved, write_config
from slam_potsa.engine.stages import check_recipe, command, run_stages
from slam_potsa.model.checkpoint import carried_bias, read_checkpoint
from tests.support import slam_llm, tiny_recipe
from tests.support.torchrun import ROOT, environment

pytestmark = slam_llm.NEEDED


def begin(recipe, stage) -> subprocess.Popen:
    """The stage's own command, with the CPU shim between torchrun and the entry."""
    write_config(stage.config, "stage.yaml")
    own, entry = command(recipe, stage), [slam_llm.SHIM, ROOT / "slam_potsa/engine/launch.py"]
    line = [*own[: own.index("slam_potsa.engine.launch") - 1], *map(str, entry), own[-1]]
    variables = environment(SLAM_LLM_SRC=str(slam_llm.source()))
    return subprocess.Popen(line, env=variables, start_new_session=True)


def to_the_end(recipe, stage) -> int:
    return begin(recipe, stage).wait(300)


def killed_once_it_saved(recipe, stage) -> int:
    running, end = begin(recipe, stage), time.monotonic() + 300
    while not newest_saved(stage.folder):
        assert running.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.2)  # torch.save is not atomic
    worker = int((stage.folder / ".lock").read_text().split()[0])
    os.killpg(running.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    running.wait()
    raise KeyboardInterrupt


def test_two_stages_the_second_of_them_killed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(slam_llm.source())
    content = yaml.safe_load(tiny_recipe.write(tmp_path).read_text())
    content["all"]["engine"] = "slam_llm"
    content["all"]["train_config"] |= {"validation_interval": 1, "val_batch_size": 2}
    del content["stages"]["s2tt"]
    content["stages"]["potsa"]["train_config"]["num_epochs"] = 4
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    check_recipe(recipe)
    asr, potsa = recipe.stages

    def runner(recipe, stage):
        return (to_the_end if stage is asr else killed_once_it_saved)(recipe, stage)

    with pytest.raises(KeyboardInterrupt):
        run_stages(recipe, runner)
    assert best_checkpoint(asr.folder) == asr.folder / "best/model.pt"
    ours, theirs = (read_checkpoint(path(asr.folder)) for path in (best_checkpoint, newest_saved))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    saved = newest_saved(potsa.folder)
    assert not (potsa.folder / "model.pt").exists()
    with pytest.raises(InputError, match="SLAM-LLM cannot resume: move it away"):
        check_recipe(recipe)

    moved = potsa.folder.rename(tmp_path / "before")
    rest = [f"potsa.ckpt_path={moved / saved.parent.name}/model.pt"]
    recipe = load_recipe(str(tmp_path / "recipe.yaml"), rest)
    check_recipe(recipe)
    said: list[str] = []
    run_stages(recipe, to_the_end, said.append)
    assert "1/2 asr: done" in said[0]
    assert carried_bias(read_checkpoint(best_checkpoint(potsa.folder)))
    assert carried_bias(read_checkpoint(best_checkpoint(asr.folder))) is None
    weights = read_checkpoint(best_checkpoint(potsa.folder))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
