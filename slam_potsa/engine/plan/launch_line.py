"""The command that trains one configuration on several machines with DeepSpeed."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict
from functools import cache
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.engine.compose import compose_config
from slam_potsa.engine.recipe import literal
from slam_potsa.engine.run_directory import flat

ENTRY = "examples/potsa/finetune_deepspeed.py"
PLAIN = re.compile(r"[A-Za-z/.][\w./-]*")
SPECIAL = ("true", "false", "null", "nan", "inf")  # what Hydra reads as something else
# The launcher's own, and what it must not find.
LEFT_OUT = ("engine", "deepspeed_config", "train_config.enable_deepspeed", "native.bf16")


def launch_line(
    config: PotsaConfig, gpus: int, gpus_per_node: int, ckpt_path: str | None = None
) -> str:
    """`deepspeed --hostfile ...` for SLAM-LLM's loop, on two machines at the least.

    Args:
        ckpt_path: of the stage before; None: the configuration's own.
    """
    here = min(gpus, gpus_per_node)
    nodes = max(2, -(-gpus // gpus_per_node))
    given = differences(config)
    given.pop("train_config.quantization", None)
    if ckpt_path is not None:
        given["ckpt_path"] = ckpt_path
    words = ["deepspeed", "--hostfile", "hostfile", "--num_nodes", str(nodes)]
    words += ["--num_gpus", str(here), ENTRY]
    words.append(f"deepspeed_config={config.deepspeed_config or 'zero2_bf16'}")
    words += [f"{key}={_value(value)}" for key, value in given.items()]
    return shlex.join(words)


def _value(value: Any) -> str:
    """As Hydra reads it; plain words without quotes, so that a shell needs none either."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in SPECIAL:
        return value
    return literal(value)


def differences(config: PotsaConfig) -> dict[str, Any]:
    """What `config` sets otherwise than conf/config.yaml alone would, by key."""
    plain = _plain()
    return {
        key: value
        for key, value in flat(asdict(config)).items()
        if key not in LEFT_OUT and plain.get(key) != value
    }


@cache
def _plain() -> dict[str, Any]:
    return flat(asdict(compose_config()))
