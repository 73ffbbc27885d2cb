"""`slam-potsa plan | run`: what a recipe would need, and its stages and tests, run."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine.decode import decode_to, predictions_file, why_decode
from slam_potsa.engine.launch import quieten
from slam_potsa.engine.plan.plan import plan_stages, text
from slam_potsa.engine.recipe import Recipe, load_recipe
from slam_potsa.engine.run_directory import SCORES, best_checkpoint
from slam_potsa.engine.stages import check_recipe, described, run_stages
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import score
from slam_potsa.files import write_json


def plan(
    assignments: Sequence[str] = (),
    gpu: Sequence[str] = (),
    gpus: int | None = None,
    json: Path | None = None,
    **assumptions: float,
) -> None:
    quieten()
    name, stages, processes = read_stages(assignments)
    gpus = processes if gpus is None else gpus
    if gpus < 1:
        raise InputError(f"--gpus={gpus}: expected 1 or more")
    found = plan_stages(stages, name=name, gpus=gpus, gpu_names=gpu, assumptions=assumptions)
    print(text(found))
    if json:
        write_json(json, found)
    if found["problems"]:
        raise InputError(found["problems"])


def read_stages(assignments: Sequence[str]) -> tuple[str, list[tuple[str, PotsaConfig]], int]:
    """`(name, [(stage, configuration)], processes)` of a recipe, or of one configuration."""
    recipe = _recipe_of(assignments)
    if recipe is None:
        config = compose_config(assignments)
        return " ".join(assignments), [(config.train_config.model_name, config)], 1
    stages = [(stage.name, stage.config) for stage in recipe.stages]
    return f"recipe {recipe.name}", stages, recipe.processes


def _recipe_of(assignments: Sequence[str]) -> Recipe | None:
    """The one that `recipe=NAME` names among them, with the others as its overrides."""
    named = [text for text in assignments if text.startswith("recipe=")]
    if len(named) > 1:
        raise InputError(f"expected one recipe=NAME among the arguments, got {len(named)}")
    others = [text for text in assignments if text not in named]
    return load_recipe(named[0].removeprefix("recipe="), others) if named else None


def run(assignments: Sequence[str], dry_run: bool = False) -> None:
    quieten()
    recipe = _recipe_of(assignments)
    if recipe is None:
        raise InputError("expected one recipe=NAME among the arguments, got 0")
    if dry_run:
        for stage in recipe.stages:
            _say("\n".join(described(recipe, stage)))
        for test, (prefix, manifest) in _tests_of(recipe).items():
            _say(f"== {test}: {manifest} -> {prefix}_predictions.jsonl")
        check_recipe(recipe, recordings=False)
        return
    check_recipe(recipe)
    # A scheduler's SIGTERM ends the stage's processes too, and leaves everything resumable.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run_stages(recipe, say=_say)
    _decode_tests(recipe)
    _score_tests(recipe)


def _tests_of(recipe: Recipe) -> dict[str, tuple[Path, str]]:
    """The prefix of each test's files, and its manifest."""
    folder = recipe.stages[-1].folder
    return {test: (folder / test, manifest) for test, manifest in recipe.tests.items()}


def _decode_tests(recipe: Recipe) -> None:
    """Translate the tests with the last stage's best model, where that has not been done yet.

    It has where weights, options, prompts, task and manifest are those of `<test>.done.json`. The
    options are those that the recipe has now; the biases travel inside the checkpoint.
    """
    last = recipe.stages[-1]
    bias = replace(last.config.language_bias, path=None)
    best = str(best_checkpoint(last.folder))
    config = replace(last.config, ckpt_path=best, language_bias=bias)
    for test, (prefix, manifest) in _tests_of(recipe).items():
        if reasons := why_decode(prefix, config, manifest):
            _say(f"== decoding {test}: {manifest} ({'; '.join(reasons)})")
            decode_to(prefix, config, manifest, processes=recipe.processes)


def _score_tests(recipe: Recipe) -> None:
    """Print a table a test, and write them as `scores.json` into the last stage's folder."""
    last = recipe.stages[-1]
    data = last.config.dataset_config
    rows = read_manifest(data.train_data_path, needs=())
    heard, joined = {row.language for row in rows if row.audio}, {*data.joining}
    tables = {}
    for test, (prefix, _) in _tests_of(recipe).items():
        predictions = read_predictions(predictions_file(prefix))
        languages = {prediction.language for prediction in predictions}
        groups = {"seen": languages & heard - joined, "joined": languages & joined}
        groups["zero_shot"] = languages - heard - joined
        tables[test] = score(predictions, **{group: sorted(own) for group, own in groups.items()})
        _say(f"\n{test}\n{tables[test].text()}")
    write_json(last.folder / SCORES, {test: asdict(table) for test, table in tables.items()})
    _say(f"\n{last.folder / SCORES}")


def _say(text: str) -> None:
    print(text, flush=True)
