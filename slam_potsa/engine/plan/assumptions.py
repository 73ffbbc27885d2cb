"""What a plan takes for granted, and the GPUs that it knows: see `assumptions.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

GIB = 2**30


class Assumption(NamedTuple):
    """One number, an option of the command."""

    default: float
    low: float
    high: float
    meaning: str
    source: str


class Gpu(NamedTuple):
    """One card; None where a speed is not known."""

    label: str
    memory: int  # bytes
    half: float | None = None  # FLOP/s of bf16 and fp16 products
    single: float | None = None  # FLOP/s of float32 products
    bandwidth: float | None = None  # bytes/s


_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
ASSUMPTIONS = {name: Assumption(*row) for name, row in _TABLES["assumptions"].items()}
GPUS = {
    name: Gpu(label, int(gib * GIB), round(half * 1e12), round(single * 1e12), round(speed * 1e9))
    for name, (label, gib, half, single, speed) in _TABLES["gpus"].items()
}
