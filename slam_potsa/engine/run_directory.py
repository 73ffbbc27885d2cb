"""A run directory: what it holds, and what it was trained from.

It holds config.yaml (resolved), language_bias.safetensors, metrics.jsonl, model.pt (the last),
best/model.pt (by validation loss), and checkpoint-N/ to resume from. Where SLAM-LLM's loop trained,
<model_name>_epoch_E_step_S/ takes the place of the last two.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from slam_potsa.config import DatasetConfig, PotsaConfig, defaults, flat
from slam_potsa.data.feature_store import FeatureStore, has_features
from slam_potsa.data.manifest import recordings_hash
from slam_potsa.errors import InputError, refuse
from slam_potsa.files import TEMPORARY
from slam_potsa.model.checkpoint import weights_file
from slam_potsa.model.metrics import METRICS, WANDB_RUN
from slam_potsa.provenance import (
    content_hash,
    differences,
    folder_hash,
    refuse_damaged,
    seal,
    sealed,
    why_outdated,
    write_record,
)

logger = logging.getLogger(__name__)
CONFIG, BIAS, MODEL = "config.yaml", "language_bias.safetensors", "model.pt"
BEST = f"best/{MODEL}"
COMPLETE = "complete"  # in checkpoint-N/, written last: the record of all its files
TEACHER = "teacher.pt"  # in checkpoint-N/: the weights of an average
CONTROLLER = "controller.json"  # in checkpoint-N/: the schedule's state, and what it was made from
# What a checkpoint is resumed from, by every rank: transformers would begin anew what it lacks.
RESUMED = (MODEL, CONTROLLER, "optimizer.pt", "scheduler.pt", "trainer_state.json")
STAGE, DONE = "stage.yaml", "done.json"  # of a recipe's stage, see engine/stages.py
SCORES = "scores.json"  # of a recipe's tests, in its last stage
DECODED = (".done.json", "_gt", "_predictions.jsonl", "_pred")  # of a test that was decoded there
# SLAM-LLM's folders, its epochs counted from 1, micro-steps within the epoch.
SAVED = re.compile(r".*_epoch_(\d+)_step_(\d+)")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
GONE = "not there"  # in place of a content hash


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """All `checkpoint-N` that were written to their end, oldest first, and whole still or not."""
    return [path for path in _checkpoints(output_dir) if (path / COMPLETE).is_file()]


def complete(checkpoint: Path, processes: int = 1) -> None:
    """Note that it is whole, with the content of its files.

    Raises InputError without what a continuation needs: transformers would go on without a word.
    """
    ranks = [f"_{rank}" for rank in range(processes)] if processes > 1 else [""]
    needed = [*RESUMED, *(f"rng_state{rank}.pth" for rank in ranks)]
    lacking = [name for name in needed if not (checkpoint / name).is_file()]
    shared = "all processes must write into one train_config.output_dir"
    refuse(f"{checkpoint}: {name} was not written; {shared}" for name in lacking)
    files = [path for path in sorted(checkpoint.iterdir()) if path.name != COMPLETE]
    write_record(checkpoint / COMPLETE, {}, files)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps before `checkpoint-N` was written."""
    return int(CHECKPOINT.fullmatch(checkpoint.name)[1])


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `checkpoint-N` says of itself: the controller's state, and what it was made from."""
    return json.loads((checkpoint / CONTROLLER).read_text())


def _checkpoints(output_dir: str | Path) -> list[Path]:
    found = Path(output_dir).glob("checkpoint-*")
    return sorted((path for path in found if CHECKPOINT.fullmatch(path.name)), key=step_of)


def remove_checkpoint(folder: Path) -> None:
    """What says that it is complete goes first, and last what says that it is ours: a removal may
    be killed half-way."""
    (folder / COMPLETE).unlink(missing_ok=True)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == CONTROLLER):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.rmdir()


def remove_older(newest: Path, keep: int) -> None:
    """Of the complete checkpoints up to `newest`, remove all but the last `keep`."""
    found = complete_checkpoints(newest.parent)
    for old in [path for path in found if step_of(path) <= step_of(newest)][:-keep]:
        remove_checkpoint(old)


def remove_unfinished(output_dir: str | Path) -> None:
    """Remove checkpoints that were being written when a training was killed."""
    for path in filter(_is_ours, _checkpoints(output_dir)):
        if not (path / COMPLETE).is_file():
            remove_checkpoint(path)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest that is whole; None where none was ever written to its end.

    Logs which newer ones are not, or all where None is returned. Raises InputError where some were
    written to their end, and none is whole.
    """
    broken = {}
    for path in filter(_is_ours, reversed(_checkpoints(output_dir))):
        if not (why := why_outdated(path / COMPLETE, {})):
            for name, reasons in broken.items():
                _say_once(f"{name}: {'; '.join(reasons)}; {path.name} is taken")
            return path
        broken[path] = why
    if any((path / COMPLETE).is_file() for path in broken):
        anew = "put them back as they were, or start anew with native.resume=never"
        raise InputError(f"{path}: {'; '.join(why)}; {anew}" for path, why in broken.items())
    for path, why in broken.items():  # of a kill, or what lost its record: it will be removed
        _say_once(f"{path}: {'; '.join(why)}; no checkpoint is whole: training begins anew")
    return None


_say_once = cache(logger.warning)


def _is_ours(checkpoint: Path) -> bool:
    """Whether a training of ours made the folder, as far as it came."""
    names = {path.name for path in checkpoint.iterdir()} if checkpoint.is_dir() else set()
    begun = all(name.startswith((MODEL, TEACHER, TEMPORARY)) for name in names)
    return begun or not names.isdisjoint((COMPLETE, CONTROLLER))


def best_checkpoint(run_dir: str | Path) -> Path:
    """The file of a run's best weights, to decode with or to start the next stage from.

    The best by validation loss where the native host trained. SLAM-LLM saves at improvements only,
    so there it is the newest it saved (`model.pt`, or `pytorch_model.bin` under DeepSpeed; what
    DeepSpeed leaves in shards, above 5 GB, is not read). Without any validation it is the last,
    `model.pt`. Raises InputError where nothing was saved.
    """
    run_dir = Path(run_dir)
    for path in (run_dir / BEST, newest_saved(run_dir), run_dir / MODEL):
        if path is not None and path.is_file():
            return path
        if path is not None and seal(path).exists():  # the next in turn would be other weights
            raise InputError(f"{path}: not there, but its record is: put it back, or remove both")
    raise InputError(f"{run_dir}: no trained model there; expected {BEST} or {MODEL}")


def newest_saved(run_dir: str | Path) -> Path | None:
    """The newest checkpoint that SLAM-LLM's loop saved in `run_dir`."""
    # DeepSpeed's folder is there before its weights are put together; above 5 GB they stay shards.
    files = (folder / n for folder in saved_folders(run_dir) for n in (MODEL, "pytorch_model.bin"))
    return next((file for file in files if file.is_file()), None)


def saved_folders(run_dir: str | Path) -> list[Path]:
    """The folders that SLAM-LLM's loop made in `run_dir`, newest first, whole or not."""
    found = {
        tuple(map(int, match.groups())): folder
        for folder in Path(run_dir).glob("*_epoch_*_step_*")
        if (match := SAVED.fullmatch(folder.name))
    }
    return [folder for _, folder in sorted(found.items(), reverse=True)]


# -- written and removed ---------------------------------------------------------------------------


def write_config(config: PotsaConfig, name: str = CONFIG) -> Path:
    """The resolved configuration, next to the results."""
    from omegaconf import OmegaConf

    path = Path(config.train_config.output_dir) / name
    with sealed(path) as temporary:
        OmegaConf.save(OmegaConf.create(dataclasses.asdict(config)), temporary)
    return path


def read_config(run_dir: str | Path, name: str = CONFIG) -> PotsaConfig:
    """What a run was trained with. Raises InputError where it cannot be read."""
    import yaml

    path = Path(run_dir) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the output_dir of a training run")
    refuse_damaged(path)
    try:
        return defaults(PotsaConfig, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems = getattr(error, "problems", [f"cannot be read ({error})"])
        raise InputError(f"{path}: {problem}" for problem in problems) from None


def clear(output_dir: Path, *, replace: bool = False) -> None:
    """Remove what an earlier run of ours left, which a new one would be mixed up with.

    Args:
        replace: also what SLAM-LLM's loop saved there, the only weights of a run that was stopped,
            the biases, which may be of another encoder, and what the weights were found to do.
    """
    decoded = [*output_dir.glob("*_predictions.jsonl"), *output_dir.glob("*_pred")] * replace
    for path in filter(Path.is_file, decoded):
        test = str(path).removesuffix("_predictions.jsonl").removesuffix("_pred")
        for end in DECODED:  # those that are looked for go last
            Path(test + end).unlink(missing_ok=True)
    for folder in filter(_is_ours, _checkpoints(output_dir)):
        remove_checkpoint(folder)
    for folder in saved_folders(output_dir) if replace else ():
        shutil.rmtree(folder)
    also = [DONE, SCORES, Path(METRICS).with_suffix(".before.jsonl"), BIAS] * replace
    for name in (*also, METRICS, MODEL, BEST, WANDB_RUN):
        for path in (seal(output_dir / name), output_dir / name):
            path.unlink(missing_ok=True)
    if (output_dir / BEST).parent.is_dir() and not any((output_dir / BEST).parent.iterdir()):
        (output_dir / BEST).parent.rmdir()


# -- is it still what it was made from? ------------------------------------------------------------


def trained_from(
    config: PotsaConfig, affects: Collection[str] = ("weights", "outcome")
) -> dict[str, Any]:
    """All that a training depends on, by name: its options, and the content of what they name.

    Args:
        affects: see `slam_potsa.config.option`; without "outcome" a continuation may be longer, or
            validate otherwise.
    """
    data = config.dataset_config
    # Compared by what they are, not by where they lie.
    placeless = replace(data, train_data_path="", val_data_path="", feature_store=None)
    alignment, teacher = config.alignment, config.alignment.teacher_path(config.ckpt_path)
    alignment = replace(alignment, teacher=None if teacher else alignment.teacher)
    options = replace(config, ckpt_path=None, dataset_config=placeless, alignment=alignment)
    # A training reads stored features alone, or none; the store may go when it has ended.
    heard = None if data.feature_store else data.train_data_path
    contents = frozen_models(config, heard) | {
        "content of ckpt_path": file_hash(config.ckpt_path),
        "content of alignment.teacher": file_hash(teacher),
        "content of dataset_config.train_data_path": file_hash(data.train_data_path),
        "content of dataset_config.feature_store": features_of(data.feature_store),
    }
    if "outcome" in affects:
        contents["content of dataset_config.val_data_path"] = validated_on(config)
    return flat(options, affects=affects) | contents


def frozen_models(config: PotsaConfig, manifest: str | None) -> dict[str, str | None]:
    """The options that name the LLM and the encoder, by what lies there (a hub's name is one), and
    the content of a manifest's recordings."""
    named = vars(config.model_config)
    found = {f"model_config.{n}": model_hash(named[n]) for n in ("llm_path", "encoder_path_hf")}
    return found | {"content of the recordings": _recordings_of(config.dataset_config, manifest)}


def model_hash(path: str) -> str:
    if Path(path).is_dir():
        return folder_hash(path)
    return GONE if Path(path).is_absolute() or path.count("/") > 1 else path


def _recordings_of(data: DatasetConfig, manifest: str | None) -> str | None:
    """The content of a manifest's recordings; None where stored features are read instead, GONE
    where they are not to be read before they are needed."""
    store = data.feature_store
    try:
        if not manifest or (store and has_features(store, manifest)):
            return None
        return recordings_hash(manifest) if data.check_audio else GONE
    except InputError:
        return GONE


def validated_on(config: PotsaConfig) -> str | None:
    """The content of the validation manifest; None where there is no validation."""
    validation = config.train_config.run_validation
    return file_hash(config.dataset_config.val_data_path) if validation else None


def changes_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two of `trained_from`.

    What is not there any more has not changed: who still needs it says so.
    """
    kept = {
        name: before.get(name) if GONE in (value, before.get(name)) else value
        for name, value in now.items()
    }
    return differences(before, kept)


def file_hash(path: str | Path | None) -> str | None:
    """Of a file's content, or of a folder's weights; None for None, GONE without a file."""
    if not path:
        return None
    file = weights_file(path)
    return content_hash(file) if file.is_file() else GONE


def features_of(folder: str | None) -> str | None:
    """The encoder of stored features; they may become more. None and GONE as in `file_hash`."""
    if not folder:
        return None
    try:
        return FeatureStore.open(folder).fingerprint if Path(folder).is_dir() else GONE
    except InputError:
        return GONE  # a folder without a store in it
