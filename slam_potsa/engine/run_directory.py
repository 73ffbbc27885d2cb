"""A run directory: what it holds, and whether a new command continues or contradicts it.

config.yaml  language_bias.safetensors  metrics.jsonl  model.pt  best/model.pt  checkpoint-N/
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import check_manifest
from slam_potsa.engine.encode import estimate_bias
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write
from slam_potsa.model.encoder import load_encoder

logger = logging.getLogger(__name__)
CONFIG, BIAS, MODEL = "config.yaml", "language_bias.safetensors", "model.pt"
COMPLETE = "complete"  # written last into checkpoint-N/
# What may differ between a run and its continuation.
FREE = (
    "native.",
    "log_config.",
    "decode.",
    "decode_log",
    "engine",
    "debug",
    "language_bias.path",
    "train_config.num_epochs",
    "train_config.validation_interval",
    "train_config.num_workers_dataloader",
    "train_config.val_batch_size",
    "dataset_config.test_data_path",
    "dataset_config.check_audio",
)


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete `checkpoint-N`, or None."""
    found = [path.parent for path in Path(output_dir).glob(f"checkpoint-*/{COMPLETE}")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def checkpoint_to_resume(config: PotsaConfig) -> Path | None:
    """By `native.resume`. Raises InputError where another configuration's run is there."""
    wanted, output_dir = config.native.resume, Path(config.train_config.output_dir)
    if wanted == "never":
        return None
    if wanted != "auto":
        path = Path(wanted)
        if not (path / COMPLETE).is_file():
            raise InputError(f"native.resume={wanted!r}: no complete checkpoint there")
        return path
    found = last_checkpoint(output_dir)
    if found is not None:
        _refuse_other_configuration(config, output_dir / CONFIG)
    return found


def write_config(config: PotsaConfig) -> None:
    """The resolved configuration, next to the results."""
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))
    atomic_write(Path(config.train_config.output_dir) / CONFIG, text)


def check_features(config: PotsaConfig) -> None:
    """Raise InputError where the stored features are another encoder's or window's."""
    store, model = config.dataset_config.feature_store, config.model_config
    if store:
        encoder = load_encoder(model.encoder_path_hf, model.encoder_window)
        FeatureStore.open(store, encoder.fingerprint())


def check_recordings(config: PotsaConfig) -> None:
    """Raise InputError with every recording of the manifests that cannot be used."""
    data = config.dataset_config
    if data.feature_store or not data.check_audio:
        return
    manifests = [data.train_data_path]
    if config.train_config.run_validation:
        manifests.append(data.val_data_path)
    for manifest in dict.fromkeys(filter(None, manifests)):
        for warning in check_manifest(manifest, needs=("target",), progress=True).warnings:
            logger.warning("%s: %s", manifest, warning)


def provide_bias(config: PotsaConfig, progress: bool = True) -> None:
    """Estimate the language biases of the training manifest, unless there are some."""
    if not config.language_bias.enabled or config.language_bias.path:
        return
    path = bias_path(config)
    if not path.is_file() and not config.ckpt_path:
        store = config.dataset_config.feature_store
        features = FeatureStore.open(store) if store else None
        encoder = None
        if features is None:
            encoder = load_encoder(
                config.model_config.encoder_path_hf, config.model_config.encoder_window
            )
        manifests = [config.dataset_config.train_data_path]
        estimate_bias(manifests, encoder, features=features, progress=progress).save(path)


def use_bias(config: PotsaConfig) -> None:
    """Let the model load what `provide_bias` wrote (on every rank, after rank 0 wrote it)."""
    path = bias_path(config)
    if config.language_bias.enabled and not config.language_bias.path and path.is_file():
        config.language_bias.path = str(path)


def bias_path(config: PotsaConfig) -> Path:
    return Path(config.train_config.output_dir) / BIAS


def _refuse_other_configuration(config: PotsaConfig, path: Path) -> None:
    from omegaconf import OmegaConf

    if not path.is_file():
        return
    before = _flat(OmegaConf.to_container(OmegaConf.load(path)))
    now = _flat(dataclasses.asdict(config))
    changed = [
        f"{name}: {before.get(name)!r} then, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(FREE)
    ]
    if changed:
        raise InputError(
            [
                f"{path.parent} holds a run with another configuration; choose another "
                "train_config.output_dir, or start it anew with native.resume=never",
                *changed,
            ]
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
