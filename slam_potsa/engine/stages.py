"""A recipe's stages in sequence: what is done, what continues, what comes next.

A stage's folder holds, beside its run directory (engine/run_directory.py):

    stage.yaml     the resolved configuration, and in its first lines the command that trains it
    started.json   what the stage is made from: options, its data's and its start's content
    done.json      the same, written when the stage has ended: it is not trained again

Both are records of `slam_potsa.provenance`. Every stage starts from the best checkpoint of the one
before.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import conf_dir
from slam_potsa.engine.attempts import attempts, continued, has_begun
from slam_potsa.engine.launch import choose_engine
from slam_potsa.engine.recipe import Recipe, Stage
from slam_potsa.engine.run_directory import (
    BEST,
    MODEL,
    alone,
    best_checkpoint,
    changes_since,
    last_checkpoint,
    newest_saved,
    trained_from,
)
from slam_potsa.errors import InputError, refuse
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.provenance import Record, read_record, write_record

STAGE, STARTED, DONE = "stage.yaml", "started.json", "done.json"
MODULE = "slam_potsa.engine.launch"
STOP_SECONDS = 30  # what an interrupted launcher gets to stop its processes


@dataclass(frozen=True)
class Job(Stage):
    """A stage as a process of its own: `config` has its ckpt_path now."""

    command: list[str]

    def shown(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.command)


def run_stages(
    recipe: Recipe, runner: Callable[[Job], int] | None = None, say: Callable[[str], None] = print
) -> None:
    """Train what is not done yet, in order; what was interrupted continues.

    Args:
        runner: trains a job and returns its exit code; None: `start`.
        say: is told what happens.

    Raises InputError where a stage that is done or begun has another configuration or another
    start now, and where one fails. Check the inputs first: `recipe_check.check_recipe`.
    """
    with alone(recipe.output_dir):
        refuse_other_history(recipe)
        for number, stage in enumerate(recipe.stages):
            say(f"== {number + 1}/{len(recipe.stages)} {stage.name}: {state_of(stage)}")
            if not is_done(stage):
                _train(recipe, number, runner or start, say)


def _train(recipe: Recipe, number: int, runner, say) -> None:
    stage = recipe.stages[number]
    config = started_from(stage, start_of(recipe, number))
    if stage.folder.exists():
        with alone(stage.folder):  # a launcher that was killed may have left a process training
            pass
    made_from = trained_from(config)  # before the training: of what it reads
    begun = _started(stage)
    processes_before = begun.notes["processes"] if begun else recipe.processes
    now = continued(config, choose_engine(config.engine)[0], processes_before)
    if now is not None:
        job = make_job(recipe, stage.name, now)
        write_job(job)
        notes = {"processes": recipe.processes}
        write_record(stage.folder / STARTED, made_from, argv=job.command, notes=notes)
        steps = now.train_config.total_steps
        say(f"from {now.ckpt_path or 'new weights'}, at most {steps} steps")
        say(job.shown())
        code = runner(job)
        if code:
            raise InputError(
                f"stage {stage.name} ended with exit code {code}, and said why above; the same "
                "command continues where it stopped"
            )
    name_the_best(stage.folder)
    write_record(stage.folder / DONE, made_from)
    say(f"trained: {stage.folder / BEST}")


def name_the_best(folder: Path) -> None:
    """`best/model.pt` whoever trained: experiments start from it by this name."""
    found = best_checkpoint(folder)
    if found != folder / BEST:
        with atomic_path(folder / BEST) as temporary:
            temporary.unlink()
            try:
                os.link(found, temporary)  # a second name for the same bytes
            except OSError:  # the file system has no such thing
                shutil.copyfile(found, temporary)


def started_from(stage: Stage, start: str | None) -> PotsaConfig:
    """The stage's configuration with its start; its recordings have been checked before."""
    config = deepcopy(stage.config)  # a host writes into it
    config.dataset_config.check_audio = False
    config.ckpt_path = start
    return config


def start_of(recipe: Recipe, number: int) -> str | None:
    """Where the checkpoint lies, or will, that stage `number` (from 0) starts from.

    None: it starts from new weights.
    """
    if number == 0:
        return recipe.stages[0].config.ckpt_path
    previous = recipe.stages[number - 1]
    return str(_best(previous) or previous.folder / BEST)


def is_done(stage: Stage) -> bool:
    return (stage.folder / DONE).is_file()


def state_of(stage: Stage) -> str:
    """In words: done, what it continues from, or to be trained."""
    if is_done(stage):
        return f"done, {_best(stage) or 'its weights are gone'}"
    if choose_engine(stage.config.engine)[0] == "native":
        found = last_checkpoint(stage.folder)
        return f"continues from {found.name}" if found else "to be trained"
    before = [stage.folder, *reversed(attempts(stage.folder))]
    found = next(filter(None, map(newest_saved, before)), None)
    if found is None:
        return "to be trained"
    return (
        f"SLAM-LLM cannot resume: a new attempt with the remaining steps, from {found.parent.name}"
    )


# -- is it still the same stage? -------------------------------------------------------------------


def refuse_other_history(recipe: Recipe) -> None:
    """Raise InputError with all that differs between the recipe and what lies in its folders."""
    numbers = range(len(recipe.stages))
    refuse(problem for number in numbers for problem in _history_problems(recipe, number))


def _history_problems(recipe: Recipe, number: int) -> Iterator[str]:
    stage, done = recipe.stages[number], is_done(recipe.stages[number])
    if not (done or has_begun(stage.folder) or (stage.folder / MODEL).is_file()):
        return
    record = read_record(stage.folder / DONE) if done else _started(stage)
    if record is None:
        yield (
            f"{stage.folder} holds a model that this recipe did not train: choose another "
            "output_dir, or move it away"
        )
        return
    config = started_from(stage, start_of(recipe, number))
    changed = changes_since(
        record.made_from, config, ["weights", "outcome"] if done else ["weights"]
    )
    before = recipe.stages[number - 1]
    if number and not (is_done(before) or _best(before)):
        # Weights may be removed once they have served, but not to be trained anew.
        changed.append(f"{before.name} is to be trained anew before it")
    if changed:
        yield (
            f"stage {stage.name} is {'done' if done else 'begun'}, and differs now: "
            f"{'; '.join(changed)}. Take it back; or choose another output_dir; or remove "
            f"{stage.folder}* to train it anew"
        )


def _best(stage: Stage) -> Path | None:
    try:
        return best_checkpoint(stage.folder)
    except InputError:
        return None


def _started(stage: Stage) -> Record | None:
    folders = (stage.folder, *reversed(attempts(stage.folder)))
    return next(filter(None, (read_record(folder / STARTED) for folder in folders)), None)


# -- a process of its own --------------------------------------------------------------------------


def make_job(recipe: Recipe, name: str, config: PotsaConfig) -> Job:
    entry = ["--config-path", str(Path(config.train_config.output_dir).resolve())]
    entry += ["--config-name", Path(STAGE).stem]
    if recipe.launcher == "deepspeed":
        start = ["deepspeed.launcher.runner", "--num_gpus", str(recipe.processes), "--module"]
    else:
        start = ["torch.distributed.run", "--standalone"]
        start += ["--nproc_per_node", str(recipe.processes), "-m"]
    return Job(name, config, [sys.executable, "-m", *start, MODULE, *entry])


def write_job(job: Job) -> Path:
    """`stage.yaml`: everything that the stage's process needs to know, and how to start it."""
    from omegaconf import OmegaConf

    # The hydra section is that of config.yaml: without it Hydra makes folders of its own.
    hydra = OmegaConf.load(conf_dir() / "config.yaml").hydra
    logging = {"override hydra/job_logging": "stdout"}  # as config.yaml: no log file
    head = {"defaults": ["potsa_schema", "_self_", logging], "hydra": hydra}
    path = job.folder / STAGE
    where = shlex.quote(str(Path.cwd()))
    comment = f"# Stage {job.name}, resolved. Alone:\n#   cd {where} && {job.shown()}\n"
    text = OmegaConf.to_yaml(OmegaConf.create(head | asdict(job.config)))
    atomic_write(path, comment + text)
    return path


def start(job: Job) -> int:
    """Run the job's command to its end; returns its exit code."""
    process = subprocess.Popen(job.command)
    try:
        return process.wait()
    except BaseException as stopped:
        # Ctrl-C reached the launcher too. Killed at once it would leave its processes training.
        if not isinstance(stopped, KeyboardInterrupt):
            process.terminate()
        _wait_or_end(process)
        raise


def _wait_or_end(process: subprocess.Popen) -> None:
    for stop in (process.terminate, process.kill):
        try:
            process.wait(STOP_SECONDS)
            return
        except subprocess.TimeoutExpired:
            stop()
    process.wait()
