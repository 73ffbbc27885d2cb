"""The two sides of a comparison: P rows of tokens against P rows of tokens, with their masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sides(NamedTuple):
    """What one distance call compares: row p of x with row p of y."""

    x: Tensor  # [P, N, D]
    y: Tensor  # [P, M, D]
    x_mask: Tensor | None
    y_mask: Tensor | None


def live_rows(sides: Sides) -> Tensor:
    """[P] bool: rows with a valid token on both sides; the others say nothing."""
    live = torch.ones(sides.x.shape[0], dtype=torch.bool, device=sides.x.device)
    for mask in (sides.x_mask, sides.y_mask):
        live = live if mask is None else live & mask.any(1)
    return live


def mean_over_rows(values: Tensor, sides: Sides) -> Tensor:
    """Mean of values [P] over the live rows; 0 where there is none."""
    if sides.x_mask is None and sides.y_mask is None:
        return values.mean()
    return masked_mean(values, live_rows(sides))


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over `valid`, 0 where nothing is; never waits for the device."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def rolled(sides: Sides) -> Sides:
    """Row p of x with row p - 1 of y: as many mismatched rows as there are matched ones."""
    y_mask = None if sides.y_mask is None else sides.y_mask.roll(1, 0)
    return sides._replace(y=sides.y.roll(1, 0), y_mask=y_mask)


def crossed(sides: Sides) -> Sides:
    """Every row of x with every row of y: P * P rows, row i * P + j is (x_i, y_j)."""
    count = sides.x.shape[0]

    def outer(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.repeat_interleave(count, 0)

    def inner(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.repeat(count, *[1] * (part.ndim - 1))

    return Sides(outer(sides.x), inner(sides.y), outer(sides.x_mask), inner(sides.y_mask))


def select(sides: Sides, rows: Tensor) -> Sides:
    rows = rows.to(sides.x.device)
    return Sides(*(None if part is None else part[rows] for part in sides))
