"""GPUs that a plan knows: the makers' peak figures, dense, without sparsity.

    RTX 4090   Ada whitepaper: 165.2 TFLOP/s in bf16 (float32 accumulation), 82.6 in float32
    RTX 3090   GA102 whitepaper: 71 and 35.6 (142 is with float16 accumulation); 936 GB/s
    A100 80GB  SXM datasheet: 312 and 19.5
    H200       SXM datasheet: 989.4 and 66.9

Memory is what CUDA reports of it, a little less than the name says. Of a card that is not in the
table, only what it must hold can be planned: `unlisted`.
"""

from __future__ import annotations

from typing import NamedTuple

from slam_potsa.engine.plan.sizes import GIB


class Gpu(NamedTuple):
    """One card."""

    label: str
    half: float | None  # FLOP/s of bf16 and fp16 products; None, as the other speeds: not known
    single: float | None  # FLOP/s of float32 products; torch leaves TF32 off
    memory: int  # bytes
    bandwidth: float | None  # bytes/s


GPUS = {
    "rtx4090": Gpu("RTX 4090", 165.2e12, 82.6e12, int(23.6 * GIB), 1008e9),
    "rtx3090": Gpu("RTX 3090", 71e12, 35.6e12, int(23.6 * GIB), 936e9),
    "a100": Gpu("A100 80GB", 312e12, 19.5e12, int(79.1 * GIB), 2039e9),
    "h200": Gpu("H200", 989.4e12, 66.9e12, int(139.8 * GIB), 4800e9),
}
UNLISTED = "unlisted"


def unlisted(gib: float) -> Gpu:
    """A card of which nothing but its memory is known."""
    return Gpu(f"unlisted {gib:g} GiB GPU", None, None, int(gib * GIB), None)
