"""Distances between two token sequences: optimal transport and its rivals (POTSA Table 2).

Every distance has one signature and returns one value a pair, differentiable on both sides:

    distance(x [P, N, D], y [P, M, D], x_mask [P, N] | None, y_mask [P, M] | None) -> [P]

True in a mask means valid; padding may hold anything; a pair with no valid position is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from slam_potsa.objective.transport import TransportOptions, transport, transport_loss

Distance = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


def mse(x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
    """Mean over positions i valid in both of ‖x_i − y_i‖² / D (Table 2, "MSE").

    The mean over D makes it comparable with optimal transport at ``cost_scale="dim"``.
    """
    x, y, both = _paired(x, y, x_mask, y_mask)
    return _mean_over_positions((x - y).square().mean(2), both)


def cosine(
    x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None
) -> Tensor:
    """Mean over positions i valid in both of 1 − cos(x_i, y_i) (Table 2, "Cosine Similarity")."""
    x, y, both = _paired(x, y, x_mask, y_mask)
    return _mean_over_positions(1 - F.cosine_similarity(x, y, dim=2), both)


def dot(x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
    """−⟨x̄, ȳ⟩ of the means over valid tokens: what the variant "n_pair" is made of (AI-STA 6.3)."""
    x, y = mean_token(x, x_mask), mean_token(y, y_mask)
    return -(x * y).sum((1, 2))


def ctc(x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
    """−log p(y | x) / M by connectionist temporal classification (Graves et al., 2006; AI-STA 6.3).

    x [P, N, V + 1] are scores of the vocabulary and, last, of the blank; y [P, M, 1] token ids. A
    text that is longer than its speech has no alignment, and is 0.
    """
    lengths = [
        mask.sum(1) if mask is not None else torch.full(side.shape[:1], side.shape[1])
        for side, mask in ((x, x_mask), (y, y_mask))
    ]
    x = x if x_mask is None else torch.where(x_mask[:, :, None], x, 0.0)
    scores = x.float().log_softmax(2).transpose(0, 1)
    ids = y[:, :, 0].long().clamp(min=0)
    how = {"blank": x.shape[2] - 1, "reduction": "none", "zero_infinity": True}
    return F.ctc_loss(scores, ids, *lengths, **how) / lengths[1].to(x.device).clamp_min(1)


def kl(x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None) -> Tensor:
    """Mean over positions i valid in both of KL(q_i ‖ p_i), p_i = softmax(x_i), q_i = softmax(y_i).

    x and y [P, A, V] are scores of the vocabulary: word-level distillation of y's distributions
    (Kim and Rush, 2016).
    """
    x, y, both = _paired(x, y, x_mask, y_mask)
    log_p, log_q = x.log_softmax(2), y.log_softmax(2)
    return _mean_over_positions((log_q.exp() * (log_q - log_p)).sum(2), both)


class OptimalTransport:
    """Entropic optimal transport (eq. 3) with its options: fields of :class:`TransportOptions`."""

    def __init__(self, **options):
        self.tolerance = TransportOptions(**options).tolerance  # refuses bad ones now
        self.options = options

    def __call__(self, *sides: Tensor | None) -> Tensor:
        return transport_loss(*sides, **self.options)

    def pairwise(self, *sides: Tensor | None) -> Tensor:
        p = len(sides[0])
        return transport(*sides, pairwise=True, **self.options).value.view(p, p)


def measured(distance: Distance, *sides: Tensor | None) -> tuple[Tensor, list[Tensor]]:
    """What is logged of a distance [P], and of transport the marginal error [], 0 within tolerance.

    Transport's is ⟨Γ, C⟩, which unlike the entropic value is never negative.
    """
    if not isinstance(distance, OptimalTransport):
        return distance(*sides), []
    found = transport(*sides, **distance.options)
    error = found.marginal_error.amax()
    return found.cost, [torch.where(error > distance.tolerance, error, 0.0)]


def pairwise(distance: Distance, *sides: Tensor | None) -> Tensor:
    """[P, P]: every row of x with every row of y.

    Transport copies no tokens; any other distance gets each row P times, P² (N + M) D numbers.
    """
    if hasattr(distance, "pairwise"):
        return distance.pairwise(*sides)
    p, every = len(sides[0]), torch.arange(len(sides[0]), device=sides[0].device)
    i, j = torch.cartesian_prod(every, every).unbind(1)
    rows = [t if t is None else t[k] for t, k in zip(sides, (i, j, i, j), strict=True)]
    return distance(*rows).view(p, p)


def mean_token(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over valid tokens [P, 1, D], in float32 at least; 0 where there is none."""
    tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    if mask is None:
        return tokens.mean(1, keepdim=True)
    valid = mask[:, :, None]
    total = torch.where(valid, tokens, 0.0).sum(1, keepdim=True)
    return total / valid.sum(1, keepdim=True).clamp_min(1)


DISTANCES: dict[str, Distance] = {"ot": OptimalTransport(), "mse": mse, "cosine": cosine}
DISTANCES |= {"dot": dot, "ctc": ctc, "kl": kl}


def build_distance(name: str, **options) -> Distance:
    """The distance of this name; "ot" takes options, the fields of :class:`TransportOptions`.

    Raises:
        ValueError: an unknown name (with the list of known ones), or a bad value.
        TypeError: an option that there is not.

    Examples:
        >>> build_distance("ot", epsilon=0.1)(torch.zeros(2, 3, 4), torch.ones(2, 5, 4)).shape
        torch.Size([2])
    """
    if name not in DISTANCES:
        raise ValueError(f"distance: expected one of {', '.join(DISTANCES)}, got {name!r}")
    if name == "ot":
        return OptimalTransport(**options)
    if options:
        raise TypeError(f"distance {name!r} takes no options, got {', '.join(options)}")
    return DISTANCES[name]


def _paired(
    x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """x and y in float32 at least, 0 wherever one of them is padding, and where both are valid."""
    if x.ndim != 3 or x.shape != y.shape:
        raise ValueError(
            "mse, cosine and kl compare position i with position i: expected x and y of one shape "
            f"[P, N, D], got {list(x.shape)} and {list(y.shape)}; the paper's Table 2 does not say "
            "how lengths are matched, so use a fixed number of queries or the distance 'ot'"
        )
    both = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    for name, mask in (("x_mask", x_mask), ("y_mask", y_mask)):
        if mask is not None and (mask.dtype != torch.bool or mask.shape != both.shape):
            raise ValueError(
                f"{name}: expected torch.bool {list(both.shape)} (True = valid), "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        both = both if mask is None else both & mask
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = (torch.where(both[:, :, None], tokens, 0.0).to(dtype) for tokens in (x, y))
    return x, y, both


def _mean_over_positions(values: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, values, 0.0).sum(1) / valid.sum(1).clamp_min(1)
