"""Everything that can be known to be wrong with a recipe before its first stage starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from slam_potsa.config import PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import check_manifest, read_manifest
from slam_potsa.data.tasks import NEEDS, needed_fields, task_to_decode
from slam_potsa.engine.attempts import has_begun
from slam_potsa.engine.decode import has_features
from slam_potsa.engine.native import check_host, check_sizes
from slam_potsa.engine.preflight import preflight
from slam_potsa.engine.prepare import check_encoder, check_pairs
from slam_potsa.engine.recipe import Launch, Recipe
from slam_potsa.engine.stages import host, is_done, refuse_other_history
from slam_potsa.errors import InputError
from slam_potsa.model.encoder import encoder_config
from slam_potsa.model.llm import load_tokenizer

logger = logging.getLogger(__name__)
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def check_recipe(recipe: Recipe, *, recordings: bool = True) -> None:
    """Raise InputError with every problem of the stages that are not done, and of the tests.

    Args:
        recordings: decode every recording of the stages to come and of the tests, which takes a
            while; not those of a manifest that was checked before, as `slam-potsa prepare` does.

    Each stage's configuration was checked when the recipe was loaded. What a stage shares with
    another is said once.
    """
    found: dict[str, dict[str, None]] = {}  # problem -> who has it
    ahead = [stage for stage in recipe.stages if not is_done(stage)]
    if ahead:
        _note(found, recipe.name, _of_launch(recipe.launch))
    for stage in ahead:
        _note(found, stage.name, _of_stage(stage.config, host(stage), recipe.launch))
    data = recipe.stages[-1].config.dataset_config
    needs = NEEDS[task_to_decode(data.tasks, data.test_task)]
    for test, manifest in recipe.tests.items():
        _note(found, f"test {test}", _problems(read_manifest, manifest, needs=needs))
    _note(found, recipe.name, _problems(refuse_other_history, recipe))
    if recordings and not found:
        _note(found, "recordings", _of_recordings(recipe))
    if found:
        raise InputError([f"{', '.join(who)}: {problem}" for problem, who in found.items()])


def _note(found: dict[str, dict[str, None]], who: str, problems: Iterator[str]) -> None:
    for problem in problems:
        found.setdefault(problem, {})[who] = None


def _problems(check: Callable[..., Any], *arguments: Any, **options: Any) -> Iterator[str]:
    try:
        check(*arguments, **options)
    except InputError as error:
        yield from error.problems


def _of_launch(launch: Launch) -> Iterator[str]:
    processes, there = launch.processes, torch.cuda.device_count()
    if torch.cuda.is_available() and processes > there:
        yield (
            f"processes={processes}, but {there} GPUs are here: set processes={there}, and keep "
            "the batches with train_config.gradient_accumulation_steps and validation_interval "
            f"times {processes}/{there} (docs/recipe.md, Other GPUs)"
        )


def _of_stage(config: PotsaConfig, host: str, launch: Launch) -> Iterator[str]:
    manifests = list(_of_manifests(config))
    yield from manifests
    yield from _of_models(config)
    for name, path in (
        ("ckpt_path", config.ckpt_path),
        ("language_bias.path", config.language_bias.path),
    ):
        if path and not Path(path).exists():
            yield f"{name}={path!r}: no such file"
    if manifests:
        return
    if host == "slam_llm":
        yield from _problems(preflight, config, launch.processes, launched=True)
    else:
        yield from _problems(check_host, config)
        items = len(training_items(config.dataset_config))
        yield from _problems(check_sizes, config, items, launch.processes)


def _of_manifests(config: PotsaConfig) -> Iterator[str]:
    data, needs = config.dataset_config, needed_fields(config.dataset_config.tasks)
    if not data.train_data_path:
        yield "dataset_config.train_data_path is not set: give it a manifest"
    else:
        problems = list(_problems(read_manifest, data.train_data_path, needs=needs))
        yield from problems or _problems(check_pairs, config)
    if config.train_config.run_validation:
        if not data.val_data_path:
            yield (
                "dataset_config.val_data_path is not set: give it a manifest, or "
                "train_config.run_validation=false"
            )
        elif data.val_data_path != data.train_data_path:
            yield from _problems(read_manifest, data.val_data_path, needs=needs)


def _of_models(config: PotsaConfig) -> Iterator[str]:
    """Encoder and LLM are there, and stored features are this encoder's and of all utterances."""
    model, store = config.model_config, config.dataset_config.feature_store
    missing = list(_problems(encoder_config, model.encoder_path_hf))
    yield from missing or _problems(check_encoder, config)
    yield from _problems(load_tokenizer, model.llm_path)
    for name in ("encoder_path_hf", "llm_path"):
        folder = Path(getattr(model, name))
        if folder.is_dir() and not any(any(folder.glob(kind)) for kind in WEIGHTS):
            yield (
                f"model_config.{name}={str(folder)!r}: no weights there ({', '.join(WEIGHTS)}); "
                "fetch the whole model"
            )
    for manifest in _manifests(config) if store and not missing else ():
        yield from _problems(_require_features, store, manifest)


def _manifests(config: PotsaConfig) -> list[str]:
    data = config.dataset_config
    validated = [data.val_data_path] if config.train_config.run_validation else []
    return list(filter(None, [data.train_data_path, *validated]))


def _require_features(store: str, manifest: str) -> None:
    FeatureStore.open(store).require(utterance.key for utterance in read_manifest(manifest))


# -- recordings ------------------------------------------------------------------------------------


def _of_recordings(recipe: Recipe) -> Iterator[str]:
    """Every recording of the stages that have not begun, and of the tests, decoded once."""
    for manifest in manifests_to_hear(recipe):
        yield from _problems(_hear, manifest)


def _hear(manifest: str) -> None:
    for warning in check_manifest(manifest, again=False, pairs=False, progress=True).warnings:
        logger.warning("%s: %s", manifest, warning)


def manifests_to_hear(recipe: Recipe) -> list[str]:
    """Those whose recordings a stage to come or a test will read."""
    found = []
    for stage in recipe.stages:
        data = stage.config.dataset_config
        if data.check_audio and not (data.feature_store or is_done(stage)):
            found += _manifests(stage.config)[1 if has_begun(stage.folder) else 0 :]
    data = recipe.stages[-1].config.dataset_config
    if data.check_audio:  # what has no stored features is decoded from its recordings
        store = data.feature_store
        found += [t for t in recipe.tests.values() if not (store and has_features(store, t))]
    return list(dict.fromkeys(found))
