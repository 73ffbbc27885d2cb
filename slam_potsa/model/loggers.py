"""The metrics of a run in TensorBoard and Weights & Biases, through their own libraries.

Both are listeners of the controller, beside `MetricsLog`: they get the same numbers, one step late.
On SLAM-LLM's host its trainer logs to Weights & Biases itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.errors import InputError

TENSORBOARD, WANDB_RUN = "tensorboard", "wandb_run"  # in the run directory
NOT_METRICS = ("step", "layers", "targets_seen", "pairs_seen", "not_finite")


class TensorBoardLog:
    """Writes `folder` for `tensorboard --logdir`. Raises InputError without the library."""

    def __init__(self, folder: str | Path, first_step: int = 0):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError(
                f"log_config.use_tensorboard=true, but {error.name} is not installed: "
                "pip install tensorboard"
            ) from error
        # Points that an interrupted run wrote beyond its last checkpoint are hidden.
        self.writer = SummaryWriter(str(folder), purge_step=first_step)

    def __call__(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record):
            self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class WandbLog:
    """One W&B run per run directory: its id is kept there, so that a resumed run continues it."""

    def __init__(self, log: Any, output_dir: str | Path, config: dict[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "log_config.use_wandb=true, but wandb is not installed: pip install wandb"
            ) from error
        folder = Path(log.wandb_dir)
        folder.mkdir(parents=True, exist_ok=True)
        identity = Path(output_dir) / WANDB_RUN
        known = identity.read_text().strip() if identity.is_file() else None
        self.run = wandb.init(
            dir=str(folder),
            entity=log.wandb_entity_name or None,
            project=log.wandb_project_name,
            name=log.wandb_exp_name,
            id=known,
            resume="allow",
            config=config,
        )
        identity.parent.mkdir(parents=True, exist_ok=True)
        identity.write_text(self.run.id + "\n")

    def __call__(self, record: dict[str, Any]) -> None:
        self.run.log(dict(scalars(record)), step=record["step"], commit=True)

    def close(self) -> None:
        self.run.finish()


@contextmanager
def logged(controller: Any, config: PotsaConfig, first_step: int, *, writes: bool) -> Iterator:
    """Within: `controller` logs to what `log_config` asks for, from `first_step` on.

    Args:
        writes: whether this process is the one that logs.
    """
    log, output_dir = config.log_config, config.train_config.output_dir
    sinks: list[Any] = []
    if writes and log.use_tensorboard:
        sinks.append(TensorBoardLog(Path(output_dir) / TENSORBOARD, first_step))
    if writes and log.use_wandb:
        sinks.append(WandbLog(log, output_dir, dataclasses.asdict(config)))
    controller.listeners += sinks
    try:
        yield
    finally:
        for sink in sinks:
            sink.close()


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and finite values of one step; a layer's choice is `layer/<k>` = 1."""
    for name, value in record.items():
        if name in NOT_METRICS or isinstance(value, (str, list, tuple)) or value is None:
            continue
        if math.isfinite(value):
            yield name, float(value)
    for layer in record["layers"]:
        yield f"layer/{layer}", 1.0
