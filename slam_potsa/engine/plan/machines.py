"""One configuration on several machines: what changes in it, and the command with DeepSpeed."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.config.compose import compose_config
from slam_potsa.engine.recipe import literal
from slam_potsa.errors import InputError

ENTRY = "examples/potsa/finetune_deepspeed.py"
PLAIN = re.compile(r"(?!(true|false|null|nan|inf)$)[A-Za-z/.][\w./-]*", re.IGNORECASE)
# The launcher's own, and what it must not find.
LEFT_OUT = ("engine", "deepspeed_config", "train_config.enable_deepspeed", "native.bf16")


def on_machines(config: PotsaConfig, nodes: int) -> PotsaConfig:
    """`config` with 1 / `nodes` of the micro-steps a step, so that a step sees as much as on one.

    `validation_interval` counts micro-steps too, and so becomes as much smaller.

    Raises InputError where the accumulation cannot be divided, and where only the native host can
    train: the command is for SLAM-LLM's loop.
    """
    train, accumulation = config.train_config, config.train_config.gradient_accumulation_steps
    if nodes == 1:
        return config
    if config.engine == "native" or train.quantization:
        raise InputError(
            f"--nodes={nodes}: engine=native and train_config.quantization=true train on one "
            "machine only; the command for several is for SLAM-LLM's loop"
        )
    if accumulation % nodes:
        raise InputError(
            f"--nodes={nodes}: train_config.gradient_accumulation_steps={accumulation} cannot be "
            f"divided by it, and a step would not see as much as on one machine; expected a "
            f"divisor of {accumulation}"
        )
    interval = max(1, train.validation_interval // nodes)
    shared = {"gradient_accumulation_steps": accumulation // nodes, "validation_interval": interval}
    return replace(config, train_config=replace(train, **shared))


def launch_line(config: PotsaConfig, nodes: int, gpus: int, ckpt_path: str | None = None) -> str:
    """`deepspeed --hostfile ...` for SLAM-LLM's loop, on `nodes` machines of `gpus` each.

    Args:
        config: as `on_machines` has it.
        ckpt_path: of the stage before; None: the configuration's own.

    Raises InputError for a term of alignment that no file of conf/alignment/ is named after.
    """
    given = differences(config)
    if ckpt_path is not None:
        given["ckpt_path"] = ckpt_path
    words = ["deepspeed", "--hostfile", "hostfile", "--num_nodes", str(nodes)]
    words += ["--num_gpus", str(gpus), ENTRY]
    words.append(f"deepspeed_config={config.deepspeed_config or 'zero2_bf16'}")
    return shlex.join(words + [f"{key}={_value(value)}" for key, value in given.items()])


def differences(config: PotsaConfig) -> dict[str, Any]:
    """What `config` sets otherwise than conf/config.yaml alone would, by key."""
    plain, chosen = compose_config(), {}
    if config.alignment.terms.keys() != plain.alignment.terms.keys():
        chosen = {"alignment": list(config.alignment.terms) or "none"}
        plain = compose_config([f"alignment={_value(chosen['alignment'])}"], checked=False)
    before = flat(plain)
    changed = {k: v for k, v in flat(config).items() if k not in LEFT_OUT and before.get(k) != v}
    return chosen | changed


def _value(value: Any) -> str:
    """As Hydra reads it; plain words without quotes, so that a shell needs none either."""
    return value if isinstance(value, str) and PLAIN.fullmatch(value) else literal(value)
