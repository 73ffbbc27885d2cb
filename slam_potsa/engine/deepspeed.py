"""DeepSpeed's JSON file, filled in from `train_config`, and the whole model out of its partitions.

SLAM-LLM's DeepSpeed loop takes optimizer, rates, precision and accumulation from that file alone
and never looks at `train_config.lr`. So that one configuration drives every host, the file may say
"auto" where `train_config` has the value, as with Hugging Face's Trainer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slam_potsa.config import PotsaConfig, TrainConfig
from slam_potsa.config.compose import named_file
from slam_potsa.errors import InputError
from slam_potsa.files import write_json
from slam_potsa.model.carried_state import CarriedState
from slam_potsa.model.checkpoint import write_tensors

SETTINGS = "deepspeed.json"  # in the run directory: what DeepSpeed was really given
AUTO = "auto"


def read_settings(name: str | None) -> dict[str, Any]:
    """What `deepspeed_config` means: the path of a file, or the name of one in conf/deepspeed/.

    Raises InputError where there is no such file or it is no JSON object.
    """
    path = named_file("deepspeed_config", "deepspeed", name, ".json")
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected a JSON object ({error})") from error


def fill_in(settings: dict[str, Any], train: TrainConfig, world_size: int) -> dict[str, Any]:
    """`settings` with the value of `train` for every "auto" that has one."""
    batch, accumulation = train.batch_size_training, train.gradient_accumulation_steps
    values = {
        "train_batch_size": batch * accumulation * world_size,
        "train_micro_batch_size_per_gpu": batch,
        "gradient_accumulation_steps": accumulation,
        "lr": train.lr,
        "weight_decay": train.weight_decay,
        "warmup_min_lr": 0.0,
        "warmup_max_lr": train.lr,
        "warmup_num_steps": train.warmup_steps,
        "total_num_steps": train.total_steps,
    }
    return _replaced(settings, values)


def left_auto(settings: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys still "auto". In zero_optimization DeepSpeed itself reads that as its default."""
    for key, value in settings.items():
        if isinstance(value, dict) and key != "zero_optimization":
            yield from left_auto(value, f"{path}{key}.")
        elif value == AUTO:
            yield path + key


def enabled(settings: dict[str, Any], precision: str) -> bool:
    """Whether the section `fp16` or `bf16` is switched on."""
    return bool((settings.get(precision) or {}).get("enabled", False))


def write_settings(config: PotsaConfig, world_size: int) -> None:
    """Rank 0: the filled-in file, into the run directory."""
    settings = fill_in(read_settings(config.deepspeed_config), config.train_config, world_size)
    write_json(Path(config.train_config.output_dir) / SETTINGS, settings)


def use_settings(config: PotsaConfig) -> None:
    """Every rank: that file. SLAM-LLM's loop must not divide the loss by the steps once more."""
    config.deepspeed_config = str(Path(config.train_config.output_dir) / SETTINGS)
    config.train_config.gradient_accumulation_steps = 1


def save_whole(model: nn.Module, path: str | Path, *, writes: bool) -> None:
    """`model.pt` of a model that ZeRO has partitioned: what is trained, in float32, and the state.

    Args:
        writes: whether this rank writes the file. Every rank calls it.
    """
    state: dict[str, Tensor] = dict(getattr(model, "inherited", {}))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.endswith(".as_parameter"):
            state[name] = _whole(parameter).cpu().clone()
    for name, module in model.named_modules():
        if isinstance(module, CarriedState):
            module.state_dict()  # fires the hooks that bring it up to date
            # ZeRO resets or partitions the parameter; the buffer is what was written.
            state[f"{name}.as_parameter"] = module.as_buffer.float().cpu()
    if writes:
        write_tensors(path, state)


def _whole(parameter: nn.Parameter) -> Tensor:
    """All of a parameter in float32; a collective, the same on every rank."""
    from deepspeed.utils import safe_get_full_fp32_param

    full = safe_get_full_fp32_param(parameter)
    if hasattr(parameter, "ds_id"):  # ZeRO-3
        return full.detach().float()
    held = parameter.detach()
    # An engine that was collected already has let go of its float32 copy: zeros come back.
    if full is None or not torch.allclose(full.to(held.dtype), held, rtol=1e-2, atol=1e-6):
        return held.float()
    return full.detach().float()


def _replaced(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _replaced(value, values)
        if isinstance(value, dict)
        else values.get(key, value)
        if value == AUTO
        else value
        for key, value in tree.items()
    }
