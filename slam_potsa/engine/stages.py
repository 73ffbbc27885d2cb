"""A recipe's stages in sequence: what is done, what continues, what comes next.

A stage's folder holds, beside its run directory (engine/run_directory.py):

    stage.yaml     the resolved configuration, and in its first lines the command that trains it
    started.json   the recipe's configuration of the stage, the checkpoint it starts from, its data
    done.json      the same, written when the stage has ended: it is not trained again

Every stage starts from the best checkpoint of the one before; hashes of its content and of the
manifests' are recorded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.engine import jobs
from slam_potsa.engine.attempts import attempts, continued, has_begun
from slam_potsa.engine.contents import content_changes, content_hash, data_contents
from slam_potsa.engine.jobs import Job
from slam_potsa.engine.launch import choose_engine
from slam_potsa.engine.lock import alone
from slam_potsa.engine.recipe import Recipe, Stage
from slam_potsa.engine.run_directory import (
    BEST,
    MODEL,
    best_checkpoint,
    last_checkpoint,
    newest_saved,
)
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.provenance import differences

STARTED, DONE = "started.json", "done.json"


def run_stages(
    recipe: Recipe,
    runner: Callable[[Job], int] = jobs.start,
    say: Callable[[str], None] = print,
) -> None:
    """Train what is not done yet, in order; what was interrupted continues.

    Args:
        runner: trains a job and returns its exit code.
        say: is told what happens.

    Raises InputError where a stage that is done or begun has another configuration or another
    start now, and where one fails. Check the inputs first: `recipe_check.check_recipe`.
    """
    with alone(recipe.output_dir):
        refuse_other_history(recipe)
        for number, stage in enumerate(recipe.stages):
            say(f"== {number + 1}/{len(recipe.stages)} {stage.name}: {state_of(stage)}")
            if not is_done(stage):
                _train(recipe, number, runner, say)


def _train(recipe: Recipe, number: int, runner, say) -> None:
    stage, start = recipe.stages[number], start_of(recipe, number)
    if stage.folder.exists():
        with alone(stage.folder):  # a launcher that was killed may have left a process training
            pass
    config = continued(started_from(stage, start), host(stage), _processes_before(recipe, stage))
    record = _record(recipe, number)  # before the training: of what it reads
    if config is not None:
        job = jobs.make_job(stage.name, config, recipe.launch)
        jobs.write_job(job)
        atomic_write(stage.folder / STARTED, record)
        steps = config.train_config.total_steps
        say(f"from {config.ckpt_path or 'new weights'}, at most {steps} steps")
        say(job.shown())
        code = runner(job)
        if code:
            raise InputError(
                f"stage {stage.name} ended with exit code {code}, and said why above; the same "
                "command continues where it stopped"
            )
    best = _name_the_best(stage.folder)
    atomic_write(stage.folder / DONE, record)
    say(f"trained: {best}")


def _name_the_best(folder: Path) -> Path:
    """`best/model.pt` whoever trained: experiments start from it by this name."""
    found, named = best_checkpoint(folder), folder / BEST
    if found != named:
        with atomic_path(named) as temporary:
            _link_or_copy(found, temporary)
    return named


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same bytes where the file system has that, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def started_from(stage: Stage, start: Path | None) -> PotsaConfig:
    """The stage's configuration with its start; its recordings have been checked before."""
    config = deepcopy(stage.config)  # a host writes into it
    config.dataset_config.check_audio = False
    config.ckpt_path = start and str(start)
    return config


def start_of(recipe: Recipe, number: int) -> Path | None:
    """The checkpoint that stage `number` (from 0) starts from, None for new weights.

    Raises InputError where the stage before has none yet.
    """
    if number == 0:
        path = recipe.stages[0].config.ckpt_path
        return Path(path) if path else None
    return best_checkpoint(recipe.stages[number - 1].folder)


def host(stage: Stage) -> str:
    """The trainer of this stage on this machine: "native" or "slam_llm"."""
    return choose_engine(stage.config.engine)[0]


def is_done(stage: Stage) -> bool:
    return (stage.folder / DONE).is_file()


def state_of(stage: Stage) -> str:
    """In words: done, what it continues from, or to be trained."""
    if is_done(stage):
        return f"done, {_best(stage) or 'its weights are gone'}"
    if host(stage) == "native":
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
    problems = [
        problem
        for number in range(len(recipe.stages))
        for problem in _history_problems(recipe, number)
    ]
    if problems:
        raise InputError(problems)


def _history_problems(recipe: Recipe, number: int) -> Iterator[str]:
    stage = recipe.stages[number]
    if is_done(stage):
        before, free, state = _read_record(stage.folder / DONE), {"ckpt_path"}, "done"
    elif has_begun(stage.folder):
        free = {"ckpt_path", *flat(stage.config, affects=["outcome"])}
        before, state = _started_record(stage), "begun"
    elif (stage.folder / MODEL).is_file():
        before, free, state = None, set(), ""
    else:
        return
    if before is None:
        yield (
            f"{stage.folder} holds a model that this recipe did not train: choose another "
            "output_dir, or move it away"
        )
        return
    then, now = before["configuration"], _configuration(stage.config)
    changed = differences(*({k: v for k, v in c.items() if k not in free} for c in (then, now)))
    changed += _start_problems(recipe, number, before["start"])
    changed += content_changes(before["data"], data_contents(stage.config))
    if changed:
        yield (
            f"stage {stage.name} is {state}, and differs now: {'; '.join(changed)}. Take it back; "
            f"or choose another output_dir; or remove {stage.folder}* to train it anew"
        )


def _start_problems(recipe: Recipe, number: int, before: str | None) -> list[str]:
    previous = recipe.stages[number - 1] if number else None
    if previous and not _best(previous):
        # Weights may be removed once they have served, but not to be trained anew.
        return [] if is_done(previous) else [f"{previous.name}, before it, is to be trained anew"]
    start = start_of(recipe, number)
    if start and not start.is_file():
        return []  # the first stage's own: recipe_check says so where it is still needed
    if before == _start_hash(start):
        return []
    return ["it started from another checkpoint than the one that is there now"]


def _best(stage: Stage) -> Path | None:
    try:
        return best_checkpoint(stage.folder)
    except InputError:
        return None


def _started_record(stage: Stage) -> dict[str, Any] | None:
    for folder in (stage.folder, *reversed(attempts(stage.folder))):
        if (folder / STARTED).is_file():
            return _read_record(folder / STARTED)
    return None


def _processes_before(recipe: Recipe, stage: Stage) -> int:
    record = _started_record(stage)
    return record["processes"] if record else recipe.launch.processes


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
        known = {name: record[name] for name in ("configuration", "start", "processes")}
        return known | {"data": record.get("data", {})}  # not in an older version's
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not written by this version ({error!r}); remove it to train the stage again"
        ) from error


def _record(recipe: Recipe, number: int) -> str:
    config = recipe.stages[number].config
    record = {
        "configuration": _configuration(config),
        "start": _start_hash(start_of(recipe, number)),
        "processes": recipe.launch.processes,
        "data": data_contents(config),
    }
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _configuration(config: PotsaConfig) -> dict[str, Any]:
    """What may not change once the stage is done. Its start is compared by content."""
    return flat(config, affects=["weights", "outcome"])


def _start_hash(path: Path | None) -> str | None:
    """Of the starting checkpoint's content; None for new weights."""
    return content_hash(path) if path is not None and path.is_file() else None
