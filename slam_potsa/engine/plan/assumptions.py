"""What a plan takes for granted, and the GPUs that it knows: see `assumptions.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

GIB = 2**30


class Gpu(NamedTuple):
    """One card."""

    label: str
    memory: float  # bytes
    half: float  # FLOP/s of bf16 and fp16 products
    single: float  # FLOP/s of float32 products
    bandwidth: float  # bytes/s


_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
ASSUMPTIONS: dict[str, tuple[float, str]] = _TABLES["assumptions"]  # default, meaning
CORPORA: dict[str, dict] = _TABLES["corpora"]
GPUS = {
    name: Gpu(label, gib * GIB, half * 1e12, single * 1e12, speed * 1e9)
    for name, (label, gib, half, single, speed) in _TABLES["gpus"].items()
}

_GPU = "the GPU it must fit, may be repeated; default: show all, it must fit one"
ARGUMENTS: dict[str, dict] = {"--gpu": {"action": "append", "choices": tuple(GPUS), "help": _GPU}}
ARGUMENTS |= {  # of `slam-potsa plan`
    f"--{name.replace('_', '-')}": {
        "type": "positive",
        "metavar": "N",
        "help": f"{meaning}; default: {default}",
    }
    for name, (default, meaning) in ASSUMPTIONS.items()
}
