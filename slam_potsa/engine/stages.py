"""A recipe's stages in sequence: checked, each trained in processes of its own, none twice.

A stage's folder holds, beside its run directory (engine/run_directory.py):

    stage.yaml   the resolved configuration, which its processes read
    done.json    what it was made from (`slam_potsa.provenance`), written when it has ended
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.feature_store import has_features
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.tasks import NEEDS, task_to_decode
from slam_potsa.engine.launch import choose_engine
from slam_potsa.engine.native import check_host, check_sizes
from slam_potsa.engine.prepare import (
    check_inputs,
    check_recordings,
    check_resumable,
    checkpoint_to_resume,
    manifests_to_hear,
)
from slam_potsa.engine.recipe import Recipe, Stage
from slam_potsa.engine.run_directory import (
    BEST,
    DONE,
    STAGE,
    changes_since,
    last_checkpoint,
    trained_from,
    write_config,
)
from slam_potsa.engine.slam_llm import preflight
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.files import alone
from slam_potsa.model.llm import load_tokenizer
from slam_potsa.provenance import changed_files, read_record


def run_stages(
    recipe: Recipe,
    runner: Callable[[Recipe, Stage], int] | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train what is not done yet, in order; what was interrupted continues.

    Args:
        runner: trains a stage and returns its exit code; None: `start`.
        say: is told what happens.

    Raises InputError where a stage that is done was made from something else, and where one fails.
    Check the inputs first: `check_recipe`.
    """
    with alone(recipe.stages[0].folder.parent, "is running the recipe"):
        for stage in recipe.stages:
            for line in described(recipe, stage):
                say(line)
            check_history(stage)
            if not is_done(stage) and (code := (runner or start)(recipe, stage)):
                raise InputError(
                    f"stage {stage.name} ended with exit code {code}, and said why above; the same "
                    "command continues where it stopped"
                )


def described(recipe: Recipe, stage: Stage) -> Iterator[str]:
    """Lines: whether it is done, continues or begins, and the command that trains it."""
    number = recipe.stages.index(stage) + 1
    done, found = is_done(stage), last_checkpoint(stage.folder)
    state = "done" if done else f"continues from {found.name}" if found else "to be trained"
    yield f"== {number}/{len(recipe.stages)} {stage.name}: {state}"
    if not done:
        steps = stage.config.train_config.total_steps
        yield f"from {stage.config.ckpt_path or 'new weights'}, at most {steps} steps"
        yield shlex.join(command(recipe, stage))


def is_done(stage: Stage) -> bool:
    return (stage.folder / DONE).is_file()


def check_history(stage: Stage) -> None:
    """Raise InputError where a stage that is done would be trained otherwise now."""
    changed = [f"{DONE} is damaged"] * is_done(stage)
    if record := read_record(stage.folder / DONE):
        changed = changes_since(record.made_from, trained_from(stage.config))
        changed += changed_files(record, stage.folder) if (stage.folder / BEST).is_file() else []
    if changed:
        raise InputError(
            f"stage {stage.name} is done, and differs now: {'; '.join(changed)}. Take it back; or "
            f"choose another output_dir; or remove {stage.folder} to train it anew"
        )


def command(recipe: Recipe, stage: Stage) -> list[str]:
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(recipe.processes)]
    words = ["-m", *launcher, "-m", "slam_potsa.engine.launch", str(stage.folder)]
    return [sys.executable, *words]


def start(recipe: Recipe, stage: Stage) -> int:
    """Run the stage's command to its end; returns its exit code."""
    write_config(stage.config, STAGE)
    process = subprocess.Popen(command(recipe, stage))
    try:
        return process.wait()
    finally:  # killed at once, the launcher would leave its processes training
        process.terminate()
        process.wait()


# -- before anything starts ------------------------------------------------------------------------


def check_recipe(recipe: Recipe, *, recordings: bool = True) -> None:
    """Raise InputError with every problem of the stages that are not done, and of the tests.

    Args:
        recordings: decode every recording of the stages to come and of the tests, which takes a
            while; not those of a manifest that was checked before, as `slam-potsa prepare` does.

    Each stage's configuration was checked when the recipe was loaded.
    """
    data = recipe.stages[-1].config.dataset_config
    needs = NEEDS[task_to_decode(data.tasks, data.test_task)]
    problems: list[str] = []
    for stage in recipe.stages:
        if is_done(stage):
            with collecting(problems, stage.name):
                check_history(stage)
            continue
        for check in (_check_processes, _check_files, _check_host):
            with collecting(problems, stage.name):
                check(recipe, stage.config)
    for test, manifest in recipe.tests.items():
        with collecting(problems, f"test {test}"):
            read_manifest(manifest, needs=needs)
    refuse(problems)
    for manifest in recordings_to_hear(recipe) if recordings else ():
        with collecting(problems):
            check_recordings(manifest)
    refuse(problems)


def _check_processes(recipe: Recipe, _config: PotsaConfig) -> None:
    processes, there = recipe.processes, torch.cuda.device_count()
    if torch.cuda.is_available() and processes > there:
        raise InputError(
            f"processes={processes}, but {there} GPUs are here: set processes={there}, and keep "
            "the batches with train_config.gradient_accumulation_steps and validation_interval "
            f"times {processes}/{there} (docs/recipe.md, Other GPUs)"
        )


def _check_files(recipe: Recipe, config: PotsaConfig) -> None:
    """The LLM, the start and the biases are there, or a stage to come will make them."""
    problems: list[str] = []
    with collecting(problems):
        load_tokenizer(config.model_config.llm_path)
    to_come = [str(stage.folder / BEST) for stage in recipe.stages if not is_done(stage)]
    given = {"ckpt_path": config.ckpt_path, "language_bias.path": config.language_bias.path}
    for name, path in given.items():
        if path and path not in to_come and not Path(path).exists():
            problems.append(f"{name}={path!r}: no such file")
    refuse(problems)


def _check_host(recipe: Recipe, config: PotsaConfig) -> None:
    check_inputs(config)
    if choose_engine(config)[0] == "slam_llm":
        preflight(config, recipe.processes, launched=True)
    else:
        check_host(config)
        check_sizes(config, len(training_items(config.dataset_config)), recipe.processes)
        check_resumable(config, checkpoint_to_resume(config), recipe.processes)


def recordings_to_hear(recipe: Recipe) -> list[str]:
    """Manifests whose recordings a stage that is not done, or a test, will read."""
    found = [m for s in recipe.stages if not is_done(s) for m in manifests_to_hear(s.config)]
    data = recipe.stages[-1].config.dataset_config
    if data.check_audio:  # what has no stored features is decoded from its recordings
        store = data.feature_store
        found += [t for t in recipe.tests.values() if not (store and has_features(store, t))]
    return list(dict.fromkeys(found))
