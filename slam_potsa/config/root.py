"""The whole configuration, and how it is made of a mapping."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slam_potsa.config.alignment import AlignmentConfig, LanguageBiasConfig
from slam_potsa.config.data import DatasetConfig
from slam_potsa.config.hosts import DecodeConfig, NativeConfig
from slam_potsa.config.model import ModelConfig
from slam_potsa.config.option import SLAM, option, section
from slam_potsa.config.training import FsdpConfig, LogConfig, TrainConfig
from slam_potsa.errors import InputError


@dataclass
class PotsaConfig:
    """The whole configuration."""

    train_config: TrainConfig = section(TrainConfig)
    model_config: ModelConfig = section(ModelConfig)
    dataset_config: DatasetConfig = section(DatasetConfig)
    log_config: LogConfig = section(LogConfig)
    fsdp_config: FsdpConfig = section(FsdpConfig)
    language_bias: LanguageBiasConfig = section(LanguageBiasConfig)
    alignment: AlignmentConfig = section(AlignmentConfig)
    decode: DecodeConfig = section(DecodeConfig)
    native: NativeConfig = section(NativeConfig)
    engine: str = option(
        "auto",
        "which trainer: SLAM-LLM where it is importable and CUDA is there, else the native one",
        choices=("auto", "native", "slam_llm"),
    )
    metric: str = option("acc", "truthy: token accuracy is computed", source=SLAM)
    ckpt_path: str | None = option(None, "model.pt or pytorch_model.bin to start from", source=SLAM)
    peft_ckpt: str | None = option(None, "LoRA adapter folder to start from", source=SLAM)
    deepspeed_config: str | None = option(None, "DeepSpeed JSON, for its launcher", source=SLAM)
    decode_log: str | None = option(None, "prefix of the _pred and _gt files", source=SLAM)
    debug: bool = option(False, "read by SLAM-LLM", source=SLAM)


def defaults(kind: type, given: Any = None) -> Any:
    """An instance of the section `kind` from `given` (None, a mapping or DictConfig).

    SLAM-LLM hands a factory only what the user's configuration holds; what is missing there takes
    its default from this file. Raises InputError on unknown keys.
    """
    return _from_mapping(kind, {} if given is None else _plain(given))


def _plain(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if dataclasses.is_dataclass(given):
        return dataclasses.asdict(given)
    from omegaconf import OmegaConf

    return OmegaConf.to_container(given, resolve=True)


def _from_mapping(kind: type, given: Mapping[str, Any], path: str = "") -> Any:
    known = {spec.name: spec for spec in dataclasses.fields(kind)}
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(
            [f"unknown key {path}{key}: known are {', '.join(sorted(known))}" for key in unknown]
        )
    values = {}
    for key, value in given.items():
        default = known[key].default_factory
        if isinstance(value, Mapping) and isinstance(default, type):
            value = _from_mapping(default, value, f"{path}{key}.")
        values[key] = value
    return kind(**values)
