"""Everything that can be known to be wrong with a recipe before its first stage starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import check_manifest, is_checked, read_manifest
from slam_potsa.data.tasks import NEEDS, needed_fields, task_to_decode
from slam_potsa.engine.attempts import has_begun
from slam_potsa.engine.preflight import preflight
from slam_potsa.engine.recipe import Launch, Recipe, Stage
from slam_potsa.engine.run_directory import check_encoder, check_pairs, training_items
from slam_potsa.engine.stages import host, is_done, refuse_other_history
from slam_potsa.errors import InputError
from slam_potsa.model.encoder import encoder_config

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
    found: dict[str, list[str]] = {problem: [recipe.name] for problem in _of_launch(recipe)}
    for stage in recipe.stages:
        if not is_done(stage):
            for problem in _of_stage(stage, recipe.launch):
                found.setdefault(problem, []).append(stage.name)
    for test, manifest in recipe.tests.items():
        for problem in _of_test(recipe.stages[-1].config, manifest):
            found.setdefault(problem, []).append(f"test {test}")
    for problem in _problems(refuse_other_history, recipe):
        found.setdefault(problem, []).append(recipe.name)
    if recordings and not found:
        for problem in _of_recordings(recipe):
            found.setdefault(problem, []).append("recordings")
    if found:
        names = {problem: dict.fromkeys(who) for problem, who in found.items()}
        raise InputError([f"{', '.join(who)}: {problem}" for problem, who in names.items()])


def _of_launch(recipe: Recipe) -> Iterator[str]:
    if all(map(is_done, recipe.stages)) or not torch.cuda.is_available():
        return
    processes, there = recipe.launch.processes, torch.cuda.device_count()
    if processes > there:
        yield (
            f"processes={processes}, but {there} GPUs are here: set processes={there}, and keep "
            "the batches with train_config.gradient_accumulation_steps and validation_interval "
            f"times {processes}/{there} (docs/recipe.md, Other GPUs)"
        )


def _of_stage(stage: Stage, launch: Launch) -> Iterator[str]:
    config, data = stage.config, stage.config.dataset_config
    if not data.train_data_path:
        yield "dataset_config.train_data_path is not set: give it a manifest"
        return
    manifests = list(_of_manifests(config))
    yield from manifests
    yield from _of_models(config)
    for name in ("ckpt_path", "language_bias.path"):
        path = config.ckpt_path if name == "ckpt_path" else config.language_bias.path
        if path and not Path(path).exists():
            yield f"{name}={path!r}: no such file"
    if not manifests:
        yield from _of_host(stage, launch)


def _of_manifests(config: PotsaConfig) -> Iterator[str]:
    data = config.dataset_config
    needs = needed_fields(data.tasks)
    problems = list(_problems(read_manifest, data.train_data_path, needs=needs))
    yield from problems
    if not problems:
        yield from _problems(check_pairs, config)
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
    from slam_potsa.model.llm import load_tokenizer

    model, data = config.model_config, config.dataset_config
    missing = list(_problems(encoder_config, model.encoder_path_hf))
    yield from missing
    if not missing:
        yield from _problems(check_encoder, config)
    yield from _problems(load_tokenizer, model.llm_path)
    for name in ("encoder_path_hf", "llm_path"):
        folder = Path(getattr(model, name))
        if folder.is_dir() and not any(any(folder.glob(kind)) for kind in WEIGHTS):
            yield (
                f"model_config.{name}={str(folder)!r}: no weights there ({', '.join(WEIGHTS)}); "
                "fetch the whole model"
            )
    if data.feature_store and not missing:
        manifests = [data.train_data_path]
        manifests += [data.val_data_path] if config.train_config.run_validation else []
        for manifest in filter(None, manifests):
            yield from _problems(_require_features, data.feature_store, manifest)


def _require_features(store: str, manifest: str) -> None:
    FeatureStore.open(store).require(utterance.key for utterance in read_manifest(manifest))


def _has_features(data: DatasetConfig, manifest: str) -> bool:
    store = data.feature_store
    return bool(store) and not list(_problems(_require_features, store, manifest))


def _of_host(stage: Stage, launch: Launch) -> Iterator[str]:
    """What this trainer cannot do with these sizes on this number of processes."""
    if host(stage) == "native":
        from slam_potsa.engine.native import check_host, check_sizes

        yield from _problems(check_host, stage.config)
        items = len(training_items(stage.config))
        yield from _problems(check_sizes, stage.config, items, launch.processes)
    else:
        with _as_launched():
            yield from list(_problems(preflight, stage.config, launch.processes))


@contextmanager
def _as_launched() -> Iterator[None]:
    """The preflight of SLAM-LLM asks for a launcher; the recipe will start one."""
    set_here = "LOCAL_RANK" not in os.environ
    os.environ.setdefault("LOCAL_RANK", "0")
    try:
        yield
    finally:
        if set_here:
            del os.environ["LOCAL_RANK"]


def _of_test(config: PotsaConfig, manifest: str) -> Iterator[str]:
    data = config.dataset_config
    needs = NEEDS[task_to_decode(data.tasks, data.test_task)]
    yield from _problems(read_manifest, manifest, needs=needs)


def _of_recordings(recipe: Recipe) -> Iterator[str]:
    """Every recording of the stages that have not begun, and of the tests, decoded once."""
    for manifest in _manifests_to_hear(recipe):
        if not is_checked(manifest):
            yield from _problems(_hear, manifest)


def _hear(manifest: str) -> None:
    for warning in check_manifest(manifest, pairs=False, progress=True).warnings:
        logger.warning("%s: %s", manifest, warning)


def _manifests_to_hear(recipe: Recipe) -> list[str]:
    manifests = []
    for stage in recipe.stages:
        data = stage.config.dataset_config
        if data.check_audio and not (data.feature_store or is_done(stage)):
            manifests += [] if has_begun(stage.folder) else [data.train_data_path]
            manifests += [data.val_data_path] if stage.config.train_config.run_validation else []
    data = recipe.stages[-1].config.dataset_config
    if data.check_audio:  # what has no stored features is decoded from its recordings
        manifests += [test for test in recipe.tests.values() if not _has_features(data, test)]
    return list(dict.fromkeys(manifests))


def _problems(check: Callable, *arguments, **options) -> Iterator[str]:
    try:
        check(*arguments, **options)
    except InputError as error:
        yield from error.problems
