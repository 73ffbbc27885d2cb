"""A run directory: what it holds, what it was trained from, and who trains in it.

It holds config.yaml (resolved), language_bias.safetensors, metrics.jsonl, schedule.json, model.pt
(the last), best/model.pt (by validation loss), and checkpoint-N/ to resume from. Where SLAM-LLM's
loop trained, <model_name>_epoch_E_step_S/ takes the place of the last two.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slam_potsa.config import PotsaConfig, defaults, flat
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write
from slam_potsa.model.checkpoint import weights_file
from slam_potsa.model.metrics import METRICS, TENSORBOARD, WANDB_RUN
from slam_potsa.objective.layer_schedule import LayerSchedule
from slam_potsa.provenance import content_hash, differences

logger = logging.getLogger(__name__)
CONFIG, BIAS, MODEL = "config.yaml", "language_bias.safetensors", "model.pt"
SCHEDULE = "schedule.json"
BEST = f"best/{MODEL}"
COMPLETE = "complete"  # written last into checkpoint-N/
TEACHER = "teacher.pt"  # in checkpoint-N/: the weights of an average
CONTROLLER = "controller.json"  # in checkpoint-N/: the schedule's state, and what it was made from
STAGE, DONE = "stage.yaml", "done.json"  # of a recipe's stage, see engine/stages.py
LOCK, OWNER = ".lock", ".owner"
# SLAM-LLM's folders, its epochs counted from 1, micro-steps within the epoch.
SAVED = re.compile(r".*_epoch_(\d+)_step_(\d+)")
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
GONE = "not there"  # in place of a content hash


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """All `checkpoint-N` that were written to their end, oldest first."""
    found = [path for path in _checkpoints(output_dir) if (path / COMPLETE).is_file()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimizer steps before `checkpoint-N` was written."""
    return int(CHECKPOINT.fullmatch(checkpoint.name)[1])


def _checkpoints(output_dir: str | Path) -> list[Path]:
    found = Path(output_dir).glob("checkpoint-*")
    return [path for path in found if CHECKPOINT.fullmatch(path.name)]


def remove_checkpoint(folder: Path) -> None:
    """What says that it is complete goes first: a removal may be killed half-way."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    return next(reversed(complete_checkpoints(output_dir)), None)


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
    atomic_write(path, OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config))))
    return path


def read_config(run_dir: str | Path, name: str = CONFIG) -> PotsaConfig:
    """What a run was trained with. Raises InputError where it cannot be read."""
    import yaml

    path = Path(run_dir) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the output_dir of a training run")
    try:
        return defaults(PotsaConfig, yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems = getattr(error, "problems", [f"cannot be read ({error})"])
        raise InputError(f"{path}: {problem}" for problem in problems) from None


def write_schedule(output_dir: str | Path, schedule: LayerSchedule | None) -> None:
    """`schedule.json`: reward, count, utility and probability of each candidate layer, to read."""
    if schedule is None:
        return
    statistics = schedule.statistics()
    for layer in statistics["layers"].values():
        layer["ucb"] = layer["ucb"] if math.isfinite(layer["ucb"]) else None  # never tried
    atomic_write(Path(output_dir) / SCHEDULE, json.dumps(statistics, indent=1) + "\n")


def clear(output_dir: Path, *, replace: bool = False) -> None:
    """Remove what an earlier run of ours left, which a new one would be mixed up with.

    Args:
        replace: also what SLAM-LLM's loop saved there, the only weights of a run that was stopped.
    """
    for folder in _checkpoints(output_dir):
        if any((folder / mark).is_file() for mark in (COMPLETE, CONTROLLER)):  # ours
            remove_checkpoint(folder)
    for folder in saved_folders(output_dir) if replace else ():
        shutil.rmtree(folder)
    shutil.rmtree(output_dir / TENSORBOARD, ignore_errors=True)
    for name in (METRICS, SCHEDULE, MODEL, BEST, WANDB_RUN):
        (output_dir / name).unlink(missing_ok=True)


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
    contents = {
        "content of ckpt_path": file_hash(config.ckpt_path),
        "content of alignment.teacher": file_hash(teacher),
        "content of dataset_config.train_data_path": file_hash(data.train_data_path),
        "content of dataset_config.feature_store": features_of(data.feature_store),
    }
    if "outcome" in affects:
        contents["content of dataset_config.val_data_path"] = validated_on(config)
    return flat(options, affects=affects) | contents


def validated_on(config: PotsaConfig) -> str | None:
    """The content of the validation manifest; None where there is no validation."""
    validation = config.train_config.run_validation
    return file_hash(config.dataset_config.val_data_path) if validation else None


def changes_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two of `trained_from`.

    What is not there any more has not changed: who still needs it says so.
    """
    kept = {name: before.get(name) if value == GONE else value for name, value in now.items()}
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


# -- one training a folder -------------------------------------------------------------------------


@contextmanager
def alone(folder: str | Path, patience: float = 10.0) -> Iterator[None]:
    """Hold `folder` while training: a second run there would write into the same files.

    The lock is the process's and ends with it, however it ends. Raises InputError where another
    process holds it still after `patience` seconds: one whose launcher was killed may go on by
    itself; one that was killed itself needs some seconds until its data loaders notice. Where the
    file system has no locks, a warning, and nobody is kept out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # A soft lock, filelock's way out, would outlive a process that was killed on another machine.
    lock = FileLock(folder / LOCK, timeout=patience, fallback_to_soft=False)
    owner = folder / OWNER
    try:
        lock.acquire()
    except Timeout:
        who = owner.read_text().strip() if owner.is_file() else "unknown"
        raise InputError(
            f"{folder}: process {who} is training there; wait for it, or end it"
        ) from None
    except OSError as error:  # Lustre, unless it is mounted with -o flock
        logger.warning("%s: no locks (%s), start only one training there", folder, error.strerror)
    try:
        owner.write_text(str(os.getpid()))
        yield
    finally:
        lock.release()
