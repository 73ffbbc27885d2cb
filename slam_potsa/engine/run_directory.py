"""A run directory: what it holds, and whether a new command continues or contradicts it.

It holds config.yaml (resolved), language_bias.safetensors, metrics.jsonl, schedule.json, model.pt
(the last), best/model.pt (by validation loss), and checkpoint-N/ to resume from. Where SLAM-LLM's
loop trained, <model_name>_epoch_E_step_S/ takes the place of the last two.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slam_potsa.config import PotsaConfig, defaults, flat
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import (
    check_manifest,
    is_checked,
    manifest_hash,
    read_manifest,
    sentence_warnings,
)
from slam_potsa.data.pairs import ParallelSpeechDataset
from slam_potsa.data.tasks import needed_fields
from slam_potsa.engine.contents import content_changes, data_contents
from slam_potsa.engine.encode import estimate_bias
from slam_potsa.engine.lock import warn_once
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write
from slam_potsa.model.encoder import encoder_config, encoder_fingerprint, load_encoder
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.metrics import METRICS, TENSORBOARD, WANDB_RUN
from slam_potsa.objective.layer_schedule import LayerSchedule
from slam_potsa.provenance import differences

logger = logging.getLogger(__name__)
CONFIG, BIAS, MODEL = "config.yaml", "language_bias.safetensors", "model.pt"
SCHEDULE = "schedule.json"
BEST = f"best/{MODEL}"
COMPLETE = "complete"  # written last into checkpoint-N/
CONTROLLER = "controller.json"  # in checkpoint-N/: the schedule's state, and what it was trained on
# SLAM-LLM's folders, its epochs counted from 1, micro-steps within the epoch.
SAVED = re.compile(r".*_epoch_(\d+)_step_(\d+)")


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """All `checkpoint-N` that were written to their end, oldest first."""
    found = [path.parent for path in Path(output_dir).glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(found, key=lambda path: int(path.name.split("-")[1]))


def last_checkpoint(output_dir: str | Path) -> Path | None:
    return next(reversed(complete_checkpoints(output_dir)), None)


def best_checkpoint(run_dir: str | Path) -> Path:
    """The file of a run's best weights, to decode with or to start the next stage from.

    The best by validation loss where the native host trained. SLAM-LLM saves at improvements only,
    so there it is the newest it saved (`model.pt`, or `pytorch_model.bin` under DeepSpeed). Without
    any validation it is the last, `model.pt`. Raises InputError where nothing was saved.

    Two limits of SLAM-LLM's loop: it compares losses within one attempt only, so after a restart it
    is the best of the last attempt (see attempts.py); and what DeepSpeed saves above 5 GB stays in
    shards, which are not read here: then it is an older checkpoint or the last, with a warning.
    """
    run_dir = Path(run_dir)
    if not (run_dir / BEST).is_file():
        _warn_of_shards(run_dir)
    for path in (run_dir / BEST, newest_saved(run_dir), run_dir / MODEL):
        if path is not None and path.is_file():
            return path
    raise InputError(f"{run_dir}: no trained model there; expected {BEST} or {MODEL}")


def newest_saved(run_dir: str | Path) -> Path | None:
    """The newest checkpoint that SLAM-LLM's loop saved in `run_dir`."""
    # DeepSpeed's folder is there before its weights are put together; above 5 GB they stay shards.
    return next(filter(None, map(_weights, _saved(run_dir))), None)


def _saved(run_dir: str | Path) -> list[Path]:
    """The folders that SLAM-LLM's loop made in `run_dir`, newest first, whole or not."""
    found = {
        tuple(map(int, match.groups())): folder
        for folder in Path(run_dir).glob("*_epoch_*_step_*")
        if (match := SAVED.fullmatch(folder.name))
    }
    return [folder for _, folder in sorted(found.items(), reverse=True)]


def _weights(folder: Path) -> Path | None:
    return next((folder / n for n in (MODEL, "pytorch_model.bin") if (folder / n).is_file()), None)


def _warn_of_shards(run_dir: Path) -> None:
    newest = next(iter(_saved(run_dir)), None)
    if newest is not None and _weights(newest) is None:
        warn_once(
            f"{newest} is what SLAM-LLM validated best, but holds no {MODEL} or pytorch_model.bin "
            "(DeepSpeed leaves weights above 5 GB in shards): an older checkpoint or the last is "
            "taken instead. To have the best, put the shards together to pytorch_model.bin there"
        )


def checkpoint_to_resume(config: PotsaConfig) -> Path | None:
    """By `native.resume`. Raises InputError where another configuration's run is there."""
    wanted, output_dir = config.native.resume, Path(config.train_config.output_dir)
    if wanted == "never":
        return None
    if wanted != "auto":
        found = Path(wanted)
        if not (found / COMPLETE).is_file():
            raise InputError(f"native.resume={wanted!r}: no complete checkpoint there")
    else:
        found = last_checkpoint(output_dir)
    if found is not None:
        _refuse_other_configuration(config, found.parent / CONFIG)
        _refuse_other_data(config, found)
    elif (output_dir / MODEL).exists():
        raise InputError(
            f"{output_dir} holds a trained {MODEL} but no checkpoint to continue from; choose "
            "another train_config.output_dir, or give native.resume=never to replace it"
        )
    return found


def prepare(config: PotsaConfig, resume: Path | None) -> None:
    """What the first rank does while the others wait: check all inputs, then write the directory.

    Raises InputError; nothing has been written or removed then.
    """
    check_encoder(config)
    check_pairs(config)
    if resume is None:
        check_recordings(config)
        clear(Path(config.train_config.output_dir))
    write_config(config)
    provide_bias(config)


def clear(output_dir: Path) -> None:
    """Remove what an earlier run of ours left, which a new one would be mixed up with."""
    for marker in output_dir.glob(f"checkpoint-*/{CONTROLLER}"):
        shutil.rmtree(marker.parent)
    shutil.rmtree(output_dir / TENSORBOARD, ignore_errors=True)
    for name in (METRICS, SCHEDULE, MODEL, BEST, WANDB_RUN):
        (output_dir / name).unlink(missing_ok=True)


def write_config(config: PotsaConfig) -> None:
    """The resolved configuration, next to the results."""
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))
    atomic_write(Path(config.train_config.output_dir) / CONFIG, text)


def check_encoder(config: PotsaConfig) -> None:
    """Raise InputError where mel bands or stored features are not this encoder's."""
    store, model = config.dataset_config.feature_store, config.model_config
    if store:
        known = encoder_fingerprint(model.encoder_path_hf, model.encoder_window)
        FeatureStore.open(store, known)
        return
    bands = encoder_config(model.encoder_path_hf).num_mel_bins
    if config.dataset_config.mel_size != bands:
        raise InputError(
            f"dataset_config.mel_size={config.dataset_config.mel_size}, but "
            f"{model.encoder_path_hf} reads {bands} mel bands: set it to {bands}"
        )


def training_items(config: PotsaConfig) -> ParallelSpeechDataset:
    """The items of the training manifest: parallel pairs and single utterances."""
    data = config.dataset_config
    return ParallelSpeechDataset(
        read_manifest(data.train_data_path, needs=needed_fields(data.tasks)),
        pairing=data.pairing,
        anchor_language=data.anchor_language,
    )


def check_pairs(config: PotsaConfig) -> None:
    """Say how many pairs there are. Raise InputError where alignment would have none."""
    path, items = config.dataset_config.train_data_path, training_items(config)
    logger.info("%s: %d items, %d of them pairs", path, len(items), items.num_pairs)
    if compares_pairs(config) and not items.num_pairs:
        raise InputError(
            f"{path}: no sentence_id is spoken in two languages, so there is "
            "nothing to align; use the same sentence_id for the same meaning, or alignment=none"
        )


def compares_pairs(config: PotsaConfig) -> bool:
    """Whether a term of the objective compares a row with its partner's."""
    return any(term.rows == "pairs" for term in config.alignment.active.values())


def check_recordings(config: PotsaConfig) -> None:
    """Raise InputError with every recording of the manifests that cannot be used.

    A manifest that was checked before, by `slam-potsa prepare` or a training, is not heard again.
    """
    data = config.dataset_config
    if data.feature_store or not data.check_audio:
        return
    manifests = [data.train_data_path]
    if config.train_config.run_validation:
        manifests.append(data.val_data_path)
    needs = needed_fields(data.tasks)
    for manifest in dict.fromkeys(filter(None, manifests)):
        aligned = compares_pairs(config) and manifest == data.train_data_path
        for warning in _warnings(manifest, needs, aligned):
            logger.warning("%s: %s", manifest, warning)


def _warnings(manifest: str, needs: Sequence[str], aligned: bool) -> Sequence[str]:
    if not is_checked(manifest):
        return check_manifest(manifest, needs=needs, pairs=aligned, progress=True).warnings
    utterances = read_manifest(manifest, needs=needs)
    return sentence_warnings(utterances) if aligned else ()


def write_schedule(output_dir: str | Path, schedule: LayerSchedule | None) -> None:
    """`schedule.json`: reward, count, utility and probability of each candidate layer, to read."""
    if schedule is None:
        return
    statistics = schedule.statistics()
    for layer in statistics["layers"].values():
        layer["ucb"] = layer["ucb"] if math.isfinite(layer["ucb"]) else None  # never tried
    atomic_write(Path(output_dir) / SCHEDULE, json.dumps(statistics, indent=1) + "\n")


def provide_bias(config: PotsaConfig, progress: bool = True) -> None:
    """Estimate the biases of the training manifest, unless a path is given or they are there."""
    data, model = config.dataset_config, config.model_config
    if not config.language_bias.enabled or config.language_bias.path:
        return
    path, manifests = bias_path(config), [data.train_data_path]
    if path.is_file() and LanguageBias.load(path).manifest == manifest_hash(manifests):
        return
    features = FeatureStore.open(data.feature_store) if data.feature_store else None
    encoder = None
    if features is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        encoder = load_encoder(model.encoder_path_hf, model.encoder_window).to(device)
    estimate_bias(manifests, encoder, features=features, progress=progress).save(path)


def use_bias(config: PotsaConfig) -> None:
    """Let the model load what `provide_bias` wrote (on every rank, after rank 0 wrote it)."""
    path = bias_path(config)
    if config.language_bias.enabled and not config.language_bias.path and path.is_file():
        config.language_bias.path = str(path)


def bias_path(config: PotsaConfig) -> Path:
    return Path(config.train_config.output_dir) / BIAS


def _refuse_other_configuration(config: PotsaConfig, path: Path) -> None:
    if not path.is_file():
        return
    changed = differences(fixed(read_config(path)), fixed(config))
    if changed:
        raise InputError(
            [
                f"{path.parent} holds a run with another configuration; choose another "
                "train_config.output_dir, or start it anew with native.resume=never",
                *changed,
            ]
        )


def read_config(path: str | Path) -> PotsaConfig:
    """A run's config.yaml."""
    from omegaconf import OmegaConf

    return defaults(PotsaConfig, OmegaConf.load(path))


def fixed(config: PotsaConfig) -> dict[str, Any]:
    """What a continuation must have as the run that it continues, by name."""
    return flat(config, affects=["weights"])


def _refuse_other_data(config: PotsaConfig, checkpoint: Path) -> None:
    path = checkpoint / CONTROLLER
    # A checkpoint of an older version does not say what it was trained on.
    before = json.loads(path.read_text()).get("data", {}) if path.is_file() else {}
    changed = content_changes(before, data_contents(config))
    if changed:
        raise InputError(
            [
                f"{checkpoint} was trained on other data than lies there now; put it back, choose "
                "another train_config.output_dir, or start anew with native.resume=never",
                *changed,
            ]
        )
