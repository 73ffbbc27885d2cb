r"""How a distance between parallel rows becomes a loss: the paper's way, and two others.

With d_ij the distance of x_i and y_j over the P pairs of a batch, s their meanings, sg the
stop-gradient:

    plain         1/P Σ_i d_ii                                      POTSA eq. 3-4
    n_pair        1/P Σ_i −log softmax_j(−d_ij)_i                   AI-STA 6.3 (Sohn, 2016)
    contrastive   1/2P Σ_i [−log softmax_j(−d_ij / T)_i − log softmax_j(−d_ji / T)_i],
                  T = temperature · sg(mean of |d| over mismatched rows)

"plain" is lowered by shrinking the space as well as by aligning it; "contrastive" (symmetric
InfoNCE over the batch, van den Oord et al. 2018, with transport distances as scores) falls only
where matched rows come closer than mismatched ones. Rows of one meaning are never mismatched. A
further one, "debiased", is plain over the Sinkhorn divergence OT(x, y) − OT(x, x)/2 − OT(y, y)/2
(Feydy et al. 2019), an option of the distance itself.

"n_pair" takes mean tokens: with d = −⟨x̄, ȳ⟩ it is the multi-class N-pair loss. None but "plain" and
that are in the papers; the temperature is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from slam_potsa.objective.distances import Distance, mean_token, pairwise


class Sides(NamedTuple):
    """What one distance call compares, P rows of tokens: row p of x with row p of y."""

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


def select(sides: Sides, rows: Tensor) -> Sides:
    rows = rows.to(sides.x.device)
    return Sides(*(None if part is None else part[rows] for part in sides))


# (distance, sides, meaning of each x [P], meaning of each y [P]) -> [], or None: nothing to compare
Variant = Callable[[Distance, Sides, Tensor, Tensor], Tensor | None]


def plain(distance: Distance, sides: Sides, first: Tensor, second: Tensor) -> Tensor:
    """The mean over pairs (eq. 4)."""
    return mean_over_rows(distance(*sides), sides)


def contrastive(
    distance: Distance, sides: Sides, first: Tensor, second: Tensor, temperature: float = 0.1
) -> Tensor | None:
    """Symmetric InfoNCE over the P pairs; None with one pair, which has nothing to differ from.

    P² distances in one batch; `distances.pairwise` and `transport` say what that holds.
    """
    count = sides.x.shape[0]
    if count < 2:
        return None
    values = pairwise(distance, *sides)
    return _told_apart(values, live_rows(sides), first, second, temperature, dims=(0, 1))


def n_pair(distance: Distance, sides: Sides, first: Tensor, second: Tensor) -> Tensor | None:
    """Each x among all y, by mean tokens; None with one pair."""
    count = sides.x.shape[0]
    if count < 2:
        return None
    means = mean_token(sides.x, sides.x_mask), mean_token(sides.y, sides.y_mask)
    values = pairwise(distance, *means, None, None)
    return _told_apart(values, live_rows(sides), first, second, None, dims=(1,))


def _told_apart(
    values: Tensor,
    live: Tensor,
    first: Tensor,
    second: Tensor,
    temperature: float | None,
    dims: tuple[int, ...],
) -> Tensor:
    """Mean over live rows of −log softmax(−d / T) at the matched, along `dims`; T = 1 for None."""
    count = len(live)
    matched = torch.eye(count, dtype=torch.bool, device=values.device)
    differ = (first[:, None] != second[None, :]).to(values.device) & live[:, None] & live[None, :]
    differ &= ~matched
    scores = -values
    if temperature is not None:
        scale = temperature * masked_mean(values.detach().abs(), differ)
        scores = scores / torch.where(scale > 0, scale, 1.0)
    # The matched entry stays even in a dead row, so that no row of scores is empty.
    scores = torch.where(matched | differ, scores, float("-inf"))
    losses = sum(-torch.log_softmax(scores, dim).diagonal() / len(dims) for dim in dims)
    return masked_mean(losses, live)


VARIANTS: dict[str, Variant] = {"plain": plain, "debiased": plain}  # the distance is debiased
VARIANTS |= {"contrastive": contrastive, "n_pair": n_pair}


def build_variant(name: str, temperature: float = 0.1) -> Variant:
    """The variant of this name. Raises ValueError with the known ones."""
    if name not in VARIANTS:
        raise ValueError(f"variant: expected one of {', '.join(VARIANTS)}, got {name!r}")
    if name == "contrastive":
        return partial(contrastive, temperature=temperature)
    return VARIANTS[name]
