"""The numbers of a training: `metrics.jsonl`, and Weights & Biases.

`metrics.jsonl` has one line an optimizer step, the same in both hosts:

    {"step": 12, "ce": 2.31, "ot": 0.41, "ot/matched": 0.38, "ot/mismatched": 0.52, "layers": [2],
     "lr": 0.0001, "tokens_per_second": 5210.0, "seconds": 0.19, "crc32": 3608231774}

`ce` is the mean over micro-steps and ranks, the other terms rank 0's. `layers` are the schedule's
choices: [] where terms have their own (`alignment.terms.NAME.layers`). `seconds` is the wall time
of the step, without validation and saving, and `tokens_per_second` the LLM positions (speech,
prompt and answer) of rank 0 over it. `<term>/matched` and `/mismatched` are there every
`alignment.diagnose_interval` steps, and `schedule/<layer>/{reward,count,ucb,probability}` of
eq. 5-7 (null: never tried). `crc32` is the line's checksum.

Both logs are listeners of the controller: each is called with one step's record, some steps late.
On SLAM-LLM's host its trainer logs to Weights & Biases itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slam_potsa.config import PotsaConfig
from slam_potsa.data.jsonl import with_checksum
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

# Names in the run directory.
METRICS, WANDB_RUN = "metrics.jsonl", "wandb_run"


class MetricsLog:
    """Appends the controller's records to a file; `keep` drops lines of a run resumed.

    Step 0 begins a file: what an earlier run left is kept beside it, as metrics.before.jsonl.
    """

    def __init__(self, path: str | Path):
        self.path, self._begun = Path(path), False

    def __call__(self, record: dict[str, Any]) -> None:
        line = {k: rounded(v) for k, v in record.items() if k != "tokens"}
        line["tokens_per_second"] = round(record["tokens"] / max(record["seconds"], 1e-9), 1)
        there = self.path.is_file()
        if there and record["step"] == 0 and self.path.stat().st_size:
            self.path.replace(self.path.with_suffix(".before.jsonl"))
        elif self._begun and not there:
            raise InputError(f"{self.path}: removed while the run goes on; was its folder, too?")
        self._begun = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(with_checksum(line))

    def written(self) -> dict[str, Any]:
        """What the file is, to be told to `keep`."""
        content = self.path.read_bytes() if self.path.is_file() else b""
        return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def keep(self, written: Mapping[str, Any]) -> None:
        """Forget what came after `written`: it will be written again.

        Raises InputError where what came before is not there, or another.
        """
        content = self.path.read_bytes() if self.path.is_file() else b""
        kept = content[: written["bytes"]]
        if hashlib.sha256(kept).hexdigest() != written["sha256"]:
            raise InputError(
                f"{self.path}: not the first {written['bytes']} bytes that the checkpoint was "
                "written after: put them back, or start anew with native.resume=never"
            )
        if kept != content:
            atomic_write(self.path, kept)


def rounded(value: Any) -> Any:
    """Seven significant digits: what float32 holds. NaN as null, which JSON has."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.7g}") if math.isfinite(value) else None


@contextmanager
def logged(controller: Any, config: PotsaConfig, *, writes: bool) -> Iterator[None]:
    """Within: `controller` logs to W&B where `log_config` asks for it and this process `writes`."""
    if not (writes and config.log_config.use_wandb):
        yield
        return
    with _wandb_run(config) as run:
        controller.listeners.append(lambda of: run.log(scalars(of), of["step"], commit=True))
        yield


def _wandb_run(config: PotsaConfig) -> Any:
    """One W&B run per run directory: its id is kept there, so that a resumed run continues it."""
    import wandb

    log, identity = config.log_config, Path(config.train_config.output_dir) / WANDB_RUN
    Path(log.wandb_dir).mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        dir=log.wandb_dir,
        entity=log.wandb_entity_name or None,
        project=log.wandb_project_name,
        name=log.wandb_exp_name,
        id=identity.read_text().strip() if identity.is_file() else None,
        resume="allow",
        config=dataclasses.asdict(config),
    )
    atomic_write(identity, run.id + "\n")
    return run


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite values of one step by name; a layer's choice is `layer/<k>` = 1."""
    values = {k: v for k, v in record.items() if k not in ("step", "layers") and v is not None}
    finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
    return finite | {f"layer/{layer}": 1.0 for layer in record["layers"]}


def mean_record(micro_steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One step's record of its micro-steps': `tokens` add up, the rest is the mean where it is.

    `shared` holds sums over ranks, [5]: cross-entropy, forwards with targets, scheduled terms,
    forwards that had some, losses that are not finite. They become `ce`, `alignment` (both means),
    `aligned`, `not_finite`.
    """
    names = dict.fromkeys(name for record in micro_steps for name in record)
    found = {name: [record[name] for record in micro_steps if name in record] for name in names}
    total, targets, alignment, aligned, not_finite = sum(found.pop("shared"))
    tokens = sum(found.pop("tokens"))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    seen = {"alignment": alignment / aligned, "aligned": aligned, "not_finite": not_finite}
    return {"ce": total / targets, **means, **seen, "tokens": tokens}


def start_copy_to_host(record: dict[str, Any]) -> dict[str, Any]:
    """Start the copies to the host; the event `arrived` tells when they are there."""
    tensors = {k: v for k, v in record.items() if isinstance(v, Tensor) and v.is_cuda}
    if not tensors:
        return record
    copies = {k: v.to("cpu", non_blocking=True) for k, v in tensors.items()}
    arrived = torch.cuda.Event()
    arrived.record()
    return record | copies | {"arrived": arrived}


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Numbers instead of tensors; waits for copies that are still under way."""
    record = dict(record)
    arrived = record.pop("arrived", None)
    if arrived is not None:
        arrived.synchronize()
    return {k: v.tolist() if isinstance(v, Tensor) else v for k, v in record.items()}
