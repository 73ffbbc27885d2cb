"""Everything that can be known to be wrong with a recipe before its first stage starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.tasks import NEEDS, task_to_decode
from slam_potsa.engine.attempts import has_begun
from slam_potsa.engine.decode import has_features
from slam_potsa.engine.launch import choose_engine
from slam_potsa.engine.native import check_host, check_sizes
from slam_potsa.engine.preflight import preflight
from slam_potsa.engine.prepare import check_inputs, check_recordings, manifests_to_hear
from slam_potsa.engine.recipe import Recipe, Stage
from slam_potsa.engine.stages import is_done, refuse_other_history
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.llm import load_tokenizer

WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def check_recipe(recipe: Recipe, *, recordings: bool = True) -> None:
    """Raise InputError with every problem of the stages that are not done, and of the tests.

    Args:
        recordings: decode every recording of the stages to come and of the tests, which takes a
            while; not those of a manifest that was checked before, as `slam-potsa prepare` does.

    Each stage's configuration was checked when the recipe was loaded. What a stage shares with
    another is said once.
    """
    found: dict[str, list[str]] = {}  # problem -> who has it
    data = recipe.stages[-1].config.dataset_config
    needs = NEEDS[task_to_decode(data.tasks, data.test_task)]
    with _noted(found, recipe.name):
        refuse_other_history(recipe)
    for stage in recipe.stages:
        if not is_done(stage):
            with _noted(found, recipe.name):
                _check_processes(recipe.processes)
            with _noted(found, stage.name):
                _check_stage(stage, recipe.processes)
    for test, manifest in recipe.tests.items():
        with _noted(found, f"test {test}"):
            read_manifest(manifest, needs=needs)
    for manifest in recordings_to_hear(recipe) if recordings and not found else ():
        with _noted(found, "recordings"):
            check_recordings(manifest)
    refuse(f"{', '.join(dict.fromkeys(who))}: {problem}" for problem, who in found.items())


@contextmanager
def _noted(found: dict[str, list[str]], who: str) -> Iterator[None]:
    problems: list[str] = []
    with collecting(problems):
        yield
    for problem in problems:
        found.setdefault(problem, []).append(who)


def _check_processes(processes: int) -> None:
    there = torch.cuda.device_count()
    if torch.cuda.is_available() and processes > there:
        raise InputError(
            f"processes={processes}, but {there} GPUs are here: set processes={there}, and keep "
            "the batches with train_config.gradient_accumulation_steps and validation_interval "
            f"times {processes}/{there} (docs/recipe.md, Other GPUs)"
        )


def _check_stage(stage: Stage, processes: int) -> None:
    config, problems = stage.config, []
    with collecting(problems):
        _check_files(config)
    with collecting(problems):
        check_inputs(config)
        if choose_engine(config.engine)[0] == "slam_llm":
            preflight(config, processes, launched=True)
        else:
            check_host(config)
            check_sizes(config, len(training_items(config.dataset_config)), processes)
    refuse(problems)


def _check_files(config: PotsaConfig) -> None:
    """The LLM, weights of both models, start and biases are there."""
    model, problems = config.model_config, []
    with collecting(problems):
        load_tokenizer(model.llm_path)
    for name in ("encoder_path_hf", "llm_path"):
        folder = Path(getattr(model, name))
        if folder.is_dir() and not any(any(folder.glob(kind)) for kind in WEIGHTS):
            problems.append(
                f"model_config.{name}={str(folder)!r}: no weights there ({', '.join(WEIGHTS)}); "
                "fetch the whole model"
            )
    given = {"ckpt_path": config.ckpt_path, "language_bias.path": config.language_bias.path}
    for name, path in given.items():
        if path and not Path(path).exists():
            problems.append(f"{name}={path!r}: no such file")
    refuse(problems)


def recordings_to_hear(recipe: Recipe) -> list[str]:
    """Manifests whose recordings a stage that has not begun, or a test, will read."""
    found = []
    for stage in recipe.stages:
        if not (is_done(stage) or has_begun(stage.folder)):
            found += manifests_to_hear(stage.config)
    data = recipe.stages[-1].config.dataset_config
    if data.check_audio:  # what has no stored features is decoded from its recordings
        store = data.feature_store
        found += [t for t in recipe.tests.values() if not (store and has_features(store, t))]
    return list(dict.fromkeys(found))
