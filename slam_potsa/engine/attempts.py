"""How an interrupted stage goes on, host by host.

The native host resumes in its folder, to the same numbers. SLAM-LLM writes weights at validations
that improve and nothing else: no optimizer, no step, so it cannot resume. There an interrupted run
is set aside as `<folder>-attempt1`, and a new one in `<folder>` starts from its newest checkpoint
with the steps that were left, on the same line of falling rates. What is lost: AdamW's moments, the
steps since that checkpoint, and the place in the data (epochs begin again with the first's order).
Its loop also forgets the best validation loss: "best" is judged anew within the new attempt.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import replace
from pathlib import Path

from slam_potsa.config import PotsaConfig, TrainConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.engine.run_directory import MODEL, last_checkpoint, newest_saved, read_config
from slam_potsa.model.carried_state import CarriedState
from slam_potsa.model.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)
SCHEDULE_STATE = "encoder_projector.schedule_state."


def attempts(folder: Path) -> list[Path]:
    """The interrupted runs of SLAM-LLM's that were set aside, oldest first."""
    found = [
        path
        for path in folder.parent.glob(f"{folder.name}-attempt*")
        if re.fullmatch(r"\d+", path.name.removeprefix(f"{folder.name}-attempt"))
    ]
    return sorted(found, key=lambda path: int(path.name.rpartition("attempt")[2]))


def has_begun(folder: Path) -> bool:
    """Whether there is something to continue from."""
    return bool(last_checkpoint(folder) or newest_saved(folder) or attempts(folder))


def continued(config: PotsaConfig, host: str, processes: int) -> PotsaConfig | None:
    """What is to be run in the stage's folder now, or None where all its steps are done.

    Args:
        config: the stage's, with the checkpoint that it starts from.
        host: "native" or "slam_llm".
        processes: of the attempt before.

    Sets an interrupted run of SLAM-LLM's aside.
    """
    folder = Path(config.train_config.output_dir)
    if host == "native":
        return config
    if (folder / MODEL).is_file():
        return None  # our host writes it after SLAM-LLM's loop has ended
    if newest_saved(folder):
        folder.rename(f"{folder}-attempt{len(attempts(folder)) + 1}")
    before = [path for path in attempts(folder) if newest_saved(path)]
    if not before:
        return config
    checkpoint = newest_saved(before[-1])
    ran = read_config(before[-1])
    batches = batches_per_epoch(ran, processes)
    train = remaining(ran.train_config, steps_trained(checkpoint), batches)
    if train is None:
        before[-1].rename(folder)
        return None
    logger.warning(
        "%s: SLAM-LLM cannot resume. A new attempt starts from %s, and judges anew which of its "
        "own validations is the best",
        folder,
        checkpoint,
    )
    names = ("lr", "warmup_steps", "total_steps", "num_epochs", "validation_interval")
    left = {name: getattr(train, name) for name in names}
    teacher = config.alignment.teacher_path(config.ckpt_path)  # stays that of the first attempt
    return replace(
        config,
        train_config=replace(config.train_config, **left),
        alignment=replace(config.alignment, teacher=teacher),
        ckpt_path=str(checkpoint),
    )


def batches_per_epoch(config: PotsaConfig, processes: int) -> int:
    """Micro-steps of a rank: SLAM-LLM gives all ranks equal shares and drops incomplete batches."""
    share = math.ceil(len(training_items(config.dataset_config)) / processes)
    return share // config.train_config.batch_size_training


def steps_trained(checkpoint: Path) -> int:
    """Optimizer steps before a checkpoint was saved; it carries the number."""
    carried = CarriedState()
    state = {
        name.removeprefix(SCHEDULE_STATE): tensor
        for name, tensor in read_checkpoint(checkpoint).items()
        if name.startswith(SCHEDULE_STATE)
    }
    carried.load_state_dict(state, strict=False)
    payload = carried.read()
    return 0 if payload is None else json.loads(payload)["step"]


def remaining(train: TrainConfig, trained: int, batches: int) -> TrainConfig | None:
    """`train` for what is left after `trained` optimizer steps; None where nothing is.

    With W warm-up steps of T, the rate lr (T - s) / (T - W) goes on at s = `trained`. A run that
    was still warming up begins its warm-up again and reaches the peak where it would have.
    """
    warmup, total = train.warmup_steps, train.total_steps
    accumulation = train.gradient_accumulation_steps
    per_epoch = math.ceil(batches / accumulation)
    left = min(train.num_epochs * per_epoch, total) - trained
    if left < 2:  # SLAM-LLM stops before it validates a step whose rate is 0
        return None
    falling = min(1.0, (total - trained) / (total - warmup))
    return replace(
        train,
        lr=train.lr * falling,
        warmup_steps=max(0, warmup - trained),
        total_steps=total - trained,
        num_epochs=math.ceil(left / per_epoch),
        # It must validate, or it would never save.
        validation_interval=min(
            train.validation_interval, batches, max(1, (left - 1) * accumulation)
        ),
    )
