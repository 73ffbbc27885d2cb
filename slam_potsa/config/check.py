"""Whether the values of a configuration are in their ranges and fit each other.

The ranges stand beside the options in their sections; what two options must have in common is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from slam_potsa.config.data import DatasetConfig
from slam_potsa.config.root import PotsaConfig
from slam_potsa.config.templates import TASKS, template_problems
from slam_potsa.errors import InputError


def check(config: Any) -> None:
    """Raise InputError with every value of `config` that is out of its range, and cross-checks."""
    problems = list(_out_of_range(config, ""))
    if isinstance(config, PotsaConfig):
        problems += _cross_checks(config)
    if problems:
        raise InputError(problems)


def _cross_checks(config: PotsaConfig) -> Iterator[str]:
    train, model, data = config.train_config, config.model_config, config.dataset_config
    if train.warmup_steps >= train.total_steps:
        yield (
            f"train_config.warmup_steps={train.warmup_steps} must be below total_steps="
            f"{train.total_steps}: the rate falls to 0 between the two"
        )
    if model.qformer_dim % model.qformer_heads:
        yield (
            f"model_config.qformer_heads={model.qformer_heads} must divide qformer_dim="
            f"{model.qformer_dim}"
        )
    if data.fix_length_audio != model.query_len:
        yield (
            f"dataset_config.fix_length_audio={data.fix_length_audio} must equal "
            f"model_config.query_len={model.query_len}: a row has one slot a query token"
        )
    if data.encoder_window != model.encoder_window:
        yield "dataset_config.encoder_window must equal model_config.encoder_window"
    if config.alignment.detach_anchor and data.pairing != "anchor":
        yield "alignment.detach_anchor=true needs dataset_config.pairing=anchor"
    yield from _variant(config)
    if config.alignment.weight and data.pairing == "none":
        yield "alignment.weight > 0 needs pairs: dataset_config.pairing=random, or weight=0"
    yield from _task_problems(data)
    stored = data.feature_store is not None
    if stored and data.attend_padding:
        yield "dataset_config.attend_padding=true needs audio: a feature store holds no padding"
    if stored and not train.freeze_encoder:
        yield "dataset_config.feature_store needs train_config.freeze_encoder=true"
    if not stored and not model.load_encoder:
        yield "model_config.load_encoder=false needs dataset_config.feature_store"
    if config.decode.num_return_sequences > config.decode.num_beams:
        yield (
            f"decode.num_return_sequences={config.decode.num_return_sequences}: expected at most "
            f"num_beams={config.decode.num_beams}, the answers that beam search compares"
        )
    if train.use_fp16 and config.native.bf16:
        yield "train_config.use_fp16 and native.bf16: choose one"
    if train.quantization and not (train.freeze_llm or train.use_peft):
        yield "train_config.quantization=true needs freeze_llm=true or use_peft=true: int8 is fixed"
    if train.quantization and (config.engine == "slam_llm" or train.enable_deepspeed):
        yield "train_config.quantization=true needs the native host: set engine=native"
    if config.peft_ckpt:
        yield "peft_ckpt is not supported: LoRA weights travel in ckpt_path (model.pt)"
    if not train.save_model:
        yield "train_config.save_model=false would throw the training away; remove it"
    if "/" not in config.log_config.log_file:
        yield f"log_config.log_file={config.log_config.log_file!r} must contain a folder"
    if not train.freeze_encoder and config.language_bias.enabled:
        yield (
            "language_bias needs train_config.freeze_encoder=true: biases of a trained encoder go "
            "stale; set language_bias.enabled=false"
        )


def _task_problems(data: DatasetConfig) -> Iterator[str]:
    for task in dict.fromkeys(data.tasks):
        if task not in TASKS:
            yield f"dataset_config.tasks: found {task!r}, expected some of {', '.join(TASKS)}"
    if not data.tasks:
        yield f"dataset_config.tasks=[]: expected some of {', '.join(TASKS)}"
    yield from template_problems(vars(data), "dataset_config.")


def _variant(config: PotsaConfig) -> Iterator[str]:
    alignment, pairs = config.alignment, config.train_config.batch_size_training
    if not alignment.weight:
        return
    if alignment.variant in ("normalised", "contrastive") and pairs < 2:
        yield (
            f"alignment.variant={alignment.variant} compares the pairs of a micro-step, and "
            f"train_config.batch_size_training={pairs} is one pair: set it to 2 or more"
        )
    if alignment.variant == "debiased" and alignment.distance != "ot":
        yield "alignment.variant=debiased needs alignment.distance=ot: it is a Sinkhorn divergence"
    if alignment.variant == "debiased" and alignment.marginal_penalty is not None:
        yield "alignment.variant=debiased needs alignment.marginal_penalty=null"


def _out_of_range(config: Any, path: str) -> Iterator[str]:
    for spec in dataclasses.fields(config):
        value, name = getattr(config, spec.name), f"{path}{spec.name}"
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, f"{name}.")
            continue
        limits = spec.metadata
        if limits.get("choices") and value not in limits["choices"]:
            yield f"{name}={value!r}: expected one of {', '.join(map(repr, limits['choices']))}"
        if limits.get("low") is not None and value is not None and not value >= limits["low"]:
            yield f"{name}={value!r}: expected at least {limits['low']} ({limits['help']})"
        if limits.get("high") is not None and value is not None and not value <= limits["high"]:
            yield f"{name}={value!r}: expected at most {limits['high']} ({limits['help']})"
