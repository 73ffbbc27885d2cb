r"""Token-wise optimal transport (POTSA eq. 3): the cost, the value, the gradient.

For two token sequences of one meaning, X [N, D] and Y [M, D], with C_ij = scale · ‖x_i − y_j‖²:

    OT_ε(X, Y) = min_Γ ⟨Γ, C⟩ + ε Σ_ij Γ_ij (log Γ_ij − 1)    with Γ1 = a, Γᵀ1 = b,

a and b uniform over the valid tokens. ``marginal_penalty=ρ`` softens the marginals: in place of the
constraints stand + ρ KL(Γ1 | a) + ρ KL(Γᵀ1 | b). The plan comes from ``sinkhorn.py``.

The gradient is the envelope theorem's, ∂OT_ε/∂C = Γ, so ∂OT_ε/∂x_i = 2 scale Σ_j Γ_ij (x_i − y_j):
one matrix product a side, and no graph through the iterations. The value is the dual's, which lies
within the square of the marginal error below the optimum and has exactly this gradient, converged
or not, for a given ε.

Shapes: B pairs, N and M tokens, D width.
Sources: POTSA (Li et al.), eq. 3; Cuturi, *Sinkhorn Distances*, 2013.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from slam_potsa.objective.checks import is_positive, unexpected
from slam_potsa.objective.sinkhorn import Problem, dual_value, sinkhorn

# Factors on the squared distance. "dim" is 1/D, **our deviation**: λ and ε mean the same at every
# width. "none" is the paper's equation, "half" what the authors' public working tree has.
COST_SCALES = ("dim", "none", "half")
Masks = tuple[Tensor | None, Tensor | None]  # [B, N] and [B, M] bool, True = valid; None: all


@dataclass(frozen=True)
class TransportOptions:
    """The options of :func:`transport_loss`, checked when they are made.

    The paper gives neither ε nor the number of iterations nor a stopping rule: these defaults are
    ours. At ε = 0.05 of the mean cost, hard inputs (smooth, time-warped tokens) need 40–70 sweeps
    and easy ones 10, so the cap of 200 is a guard on a CPU and the price on a GPU, which never
    asks. At ε = 0.01 allow 300, at 0.001 several thousand, and look at ``marginal_error``.
    A tolerance of 1e-4 (of the mass) is below what a bfloat16 gradient can express (4e-3).
    """

    epsilon: float = 0.05  # > 0
    epsilon_scale: str = "mean"  # "mean": times the pair's detached mean cost; "absolute": as is
    cost_scale: str = "dim"  # on ‖x_i − y_j‖²: one of COST_SCALES
    marginal_penalty: float | None = None  # ρ in the cost's unit; None: hard marginals
    max_iterations: int = 200  # sweeps; a CPU stops earlier, a GPU runs them all (no host sync)
    tolerance: float = 1e-4  # sum of |Γ1 − a| and |Γᵀ1 − b|; total mass is 1
    debias: bool = False  # OT(x, y) − OT(x, x)/2 − OT(y, y)/2, one ε for the three
    # "triton": all sweeps in one launch, for float32 pairs on a GPU, hard marginals and at most 128
    # tokens a side; others as "torch". Not the default, for it was not timed on a GPU yet.
    solver: str = "torch"

    def __post_init__(self) -> None:
        penalty = self.marginal_penalty
        is_count = isinstance(self.max_iterations, int) and self.max_iterations > 0
        expected = {
            "epsilon": ("a number > 0", is_positive(self.epsilon)),
            "epsilon_scale": ("'mean' or 'absolute'", self.epsilon_scale in ("mean", "absolute")),
            "cost_scale": (f"one of {', '.join(COST_SCALES)}", self.cost_scale in COST_SCALES),
            "marginal_penalty": (
                "None (hard marginals) or a number > 0",
                penalty is None or is_positive(penalty),
            ),
            "max_iterations": ("an int >= 1", is_count),
            "tolerance": ("a number >= 0", self.tolerance == 0 or is_positive(self.tolerance)),
            "solver": ("'torch' or 'triton'", self.solver in ("torch", "triton")),
            # The entropy of eq. 3 does not cancel where the mass is free: no divergence.
            "debias": ("False with a marginal_penalty", not self.debias or penalty is None),
        }
        if problems := unexpected(self, expected):
            raise ValueError("; ".join(problems))

    def cost_factor(self, width: int) -> float:
        """The factor on ‖x_i − y_j‖² for tokens of this width."""
        return {"dim": 1.0 / width, "none": 1.0, "half": 0.5}[self.cost_scale]


class Transport(NamedTuple):
    """What :func:`transport` returns. Only ``value`` carries a gradient."""

    value: Tensor  # [B] OT_ε, differentiable
    cost: Tensor  # [B] ⟨Γ, C⟩ (of x against y, also where debiased): watch this one
    plan: Tensor  # [B, N, M] Γ, zero at padding
    epsilon: Tensor  # [B] ε as used, in the cost's unit
    marginal_error: Tensor  # [B] what `tolerance` is compared with, after the last sweep
    iterations: int  # sweeps done


def transport_loss(
    x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None, **options
) -> Tensor:
    r"""Entropic optimal transport between token sequences, one value a pair (POTSA eq. 3).

        OT_ε = min_Γ ⟨Γ, C⟩ + ε Σ Γ_ij (log Γ_ij − 1),  C_ij = cost_scale · ‖x_i − y_j‖²

    The value may be negative (the entropy is: at equal tokens it is −ε (1 + log N + log M)).

    Args:
        x, y: tokens [B, N, D] and [B, M, D], any floating type; computed in float32 at least.
            Gradients go to whichever of them asks for one.
        x_mask, y_mask: boolean [B, N] and [B, M], True = valid. Padding may hold anything, NaN too.
        options: fields of :class:`TransportOptions`.

    Returns:
        [B], float32 or float64; 0 with zero gradient where a side has no valid token.

    Raises:
        TypeError, ValueError: expected and received shape, type or option, and the remedy.

    Examples:
        >>> x = torch.tensor([[[0.0], [4.0]]], requires_grad=True)
        >>> y = torch.tensor([[[5.0], [1.0]]])
        >>> value = transport_loss(x, y, epsilon=0.01, epsilon_scale="absolute")
        >>> value.backward()  # 0 goes with 1, 4 with 5; each token carries half of the mass
        >>> [round(g, 4) for g in x.grad.flatten().tolist()]
        [-1.0, -1.0]
    """
    return transport(x, y, x_mask, y_mask, **options).value


def transport(
    x: Tensor,
    y: Tensor,
    x_mask: Tensor | None = None,
    y_mask: Tensor | None = None,
    pairwise: bool = False,
    **options,
) -> Transport:
    """:func:`transport_loss` with everything that was computed on the way.

    Args:
        pairwise: each of P rows of x with each of y, pair i P + j is (x_i, y_j): one product of all
            tokens with all, one batch of P² problems, no copies of tokens. Held until backward are
            the plans, P² N M numbers, and tokens in float32; five times the plans while it solves.

    Examples:
        >>> x = torch.tensor([[[0.0], [4.0]]])
        >>> transport(x, x.flip(1), epsilon=0.01).plan.round(decimals=3)
        tensor([[[0.0000, 0.5000],
                 [0.5000, 0.0000]]])
    """
    settings = TransportOptions(**options)
    _check_tokens(x, y, x_mask, y_mask)
    if pairwise and settings.debias:
        raise ValueError("debias: expected False where pairwise")
    x_mask, y_mask = _joint_masks(x, y, (x_mask, y_mask), pairwise)
    cross = _solve(x, y, x_mask, y_mask, None, settings, pairwise)
    if not settings.debias:
        return cross
    x_self = _solve(x, x, x_mask, x_mask, cross.epsilon, settings)
    y_self = _solve(y, y, y_mask, y_mask, cross.epsilon, settings)
    errors = [cross.marginal_error, x_self.marginal_error, y_self.marginal_error]
    return cross._replace(
        value=cross.value - (x_self.value + y_self.value) / 2,
        marginal_error=torch.stack(errors).amax(0),
        iterations=max(cross.iterations, x_self.iterations, y_self.iterations),
    )


def _solve(*arguments) -> Transport:
    with _full_precision(arguments[0].device.type):
        return Transport(*_EntropicTransport.apply(*arguments))


class _EntropicTransport(torch.autograd.Function):
    """Value by Sinkhorn, gradient by the envelope theorem; the iterations leave no graph.

    Pairwise, all tokens of a side are one row for the products, and the solver has P² pairs.
    """

    @staticmethod
    def forward(ctx, x, y, x_mask, y_mask, epsilon, options: TransportOptions, pairwise=False):
        ctx.shapes, ctx.dtypes, ctx.pairwise = (x.shape, y.shape), (x.dtype, y.dtype), pairwise
        ctx.factor = options.cost_factor(x.shape[-1])
        (p, n, _), (q, m, _) = ctx.shapes
        masks = x_mask, y_mask
        if pairwise:
            x, y = x.reshape(1, p * n, -1), y.reshape(1, q * m, -1)
            if x_mask is not None:  # of the P² pairs: a token is one where any pair has it
                masks = x_mask.view(p, q, n).any(1), y_mask.view(p, q, m).any(0)
                masks = tuple(mask.view(1, -1) for mask in masks)
        x, y = _centred(x, y, masks)
        cost = _squared_distances(x, y) * ctx.factor
        if pairwise:
            cost = cost.view(p, n, q, m).transpose(1, 2).flatten(0, 1)
        a, b = _uniform(cost, x_mask), _uniform(cost.mT, y_mask)
        valid = None
        if x_mask is not None:
            valid = x_mask[:, :, None] & y_mask[:, None, :]
            cost = torch.where(valid, cost, 0.0)
        mean_cost = (a @ cost @ b.mT).view(-1)
        if epsilon is None:
            epsilon = _epsilon(mean_cost, options)

        scaled_cost = cost / epsilon[:, None, None]
        if valid is not None:
            scaled_cost = torch.where(valid, scaled_cost, math.inf)
        problem = Problem(scaled_cost, a, b, _softness(epsilon, options.marginal_penalty))
        solve = sinkhorn
        if options.solver == "triton":  # a package that is not on every machine
            from slam_potsa.objective.sinkhorn_triton import sinkhorn as solve
        solution = solve(problem, mean_cost / epsilon, options.max_iterations, options.tolerance)

        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(x, y, solution.plan)
        value = epsilon * dual_value(problem, solution)
        linear = (solution.plan * cost).sum((1, 2))
        result = (linear, solution.plan, epsilon, solution.marginal_error)
        ctx.mark_non_differentiable(*result)
        return value, *result, solution.iterations

    @staticmethod
    def backward(ctx, grad_value, *_):
        if torch.is_grad_enabled():  # create_graph: the plan's own derivative is not known here
            raise RuntimeError("transport_loss: can be differentiated once, not twice")
        x, y, plan = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            flow = plan * (2 * ctx.factor * grad_value)[:, None, None]
            if ctx.pairwise:
                (p, n, _), (q, m, _) = ctx.shapes
                flow = flow.view(p, q, n, m).transpose(1, 2).reshape(1, p * n, q * m)
            grads, sides = [None, None], ((x, y, flow), (y, x, flow.mT))
            for side, (own, other, flow) in enumerate(sides):
                if ctx.needs_input_grad[side]:  # Σ_j flow_ij (x_i − y_j), Σ_i flow_ij (y_j − x_i)
                    grad = (flow.sum(2, keepdim=True) * own).baddbmm_(flow, other, alpha=-1)
                    grads[side] = grad.view(ctx.shapes[side]).to(ctx.dtypes[side])
        return *grads, None, None, None, None, None


# ---------------------------------------------------------------- cost, marginals, ε


def _centred(x: Tensor, y: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
    """x and y in float32 at least, about x's mean, finite at padding.

    Distances do not move with the origin, but ‖x‖² + ‖y‖² − 2 x·y loses digits far from it.
    """
    x_mask, y_mask = masks
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    x, y = x.to(dtype), y.to(dtype)
    if x_mask is not None:
        x = torch.where(x_mask[:, :, None], x, 0.0)
        y = torch.where(y_mask[:, :, None], y, 0.0)
    mean = _uniform(x, x_mask) @ x
    return x - mean, y - mean


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖² [B, N, M] by one batched product; rounding below zero becomes zero."""
    x_norms, y_norms = (torch.linalg.vector_norm(t, dim=2).square_() for t in (x, y))
    norms = x_norms[:, :, None] + y_norms[:, None, :]
    return norms.baddbmm_(x, y.mT, alpha=-2).clamp_min_(0)


def _uniform(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """1/n at the n valid ones of tokens [B, N, …], 0 at padding: [B, 1, N]."""
    if mask is None:
        batch, length, _ = tokens.shape
        return tokens.new_full((batch, 1, length), 1 / length)
    weight = mask.to(tokens.dtype)[:, None]
    return weight / weight.sum(2, keepdim=True).clamp_min(1)


def _epsilon(mean_cost: Tensor, options: TransportOptions) -> Tensor:
    """ε [B]; not 0 where all tokens are equal and the mean cost is 0, so that C/ε stays finite."""
    if options.epsilon_scale == "absolute":
        return torch.full_like(mean_cost, options.epsilon)
    return (options.epsilon * mean_cost).clamp_min(torch.finfo(mean_cost.dtype).tiny)


def _softness(epsilon: Tensor, marginal_penalty: float | None) -> Tensor | None:
    """ε/ρ [B, 1, 1], or None for hard marginals."""
    if marginal_penalty is None:
        return None
    # Below float's own precision marginals are as good as hard, and 0/0 is near.
    return (epsilon / marginal_penalty).clamp_min(torch.finfo(epsilon.dtype).eps)[:, None, None]


# ---------------------------------------------------------------- arguments and precision


def _joint_masks(x: Tensor, y: Tensor, masks: Masks, pairwise: bool) -> Masks:
    """Both masks or none, of each pair; one with nothing on a side is masked out on both."""
    x_mask, y_mask = masks
    if x_mask is None and y_mask is None:
        return None, None
    x_mask = x_mask if x_mask is not None else x.new_ones(x.shape[:2], dtype=torch.bool)
    y_mask = y_mask if y_mask is not None else y.new_ones(y.shape[:2], dtype=torch.bool)
    if pairwise:
        x_mask, y_mask = x_mask.repeat_interleave(len(y), 0), y_mask.repeat(len(x), 1)
    return x_mask & y_mask.any(1, keepdim=True), y_mask & x_mask.any(1, keepdim=True)


def _check_tokens(x: Tensor, y: Tensor, x_mask: Tensor | None, y_mask: Tensor | None) -> None:
    for name, tokens in (("x", x), ("y", y)):
        if not isinstance(tokens, Tensor) or not tokens.is_floating_point():
            kind = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
            raise TypeError(f"{name}: expected a floating-point tensor, got {kind}; use .float()")
        if tokens.ndim != 3 or 0 in tokens.shape[1:]:
            raise ValueError(
                f"{name}: expected [batch, tokens, width] with at least one token, got "
                f"{list(tokens.shape)}; unsqueeze(0) a single pair"
            )
    if x.shape[0] != y.shape[0] or x.shape[2] != y.shape[2]:
        raise ValueError(
            "x and y: expected the same batch and width, got "
            f"{list(x.shape)} and {list(y.shape)}; only the number of tokens may differ"
        )
    if x.device != y.device:
        raise ValueError(f"x and y: expected one device, got {x.device} and {y.device}")
    for name, mask, tokens in (("x_mask", x_mask, x), ("y_mask", y_mask, y)):
        if mask is None:
            continue
        if mask.dtype != torch.bool:
            raise TypeError(f"{name}: expected torch.bool (True = valid), got {mask.dtype}")
        if mask.shape != tokens.shape[:2] or mask.device != tokens.device:
            raise ValueError(
                f"{name}: expected {list(tokens.shape[:2])} on {tokens.device}, "
                f"got {list(mask.shape)} on {mask.device}"
            )


@contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """Neither autocast nor TF32 (nor bfloat16 products on a CPU): C/ε needs float32's digits.

    torch has two ways to say so, and refuses products where they contradict each other.
    """
    try:
        legacy = torch.get_float32_matmul_precision()
    except RuntimeError:  # the newer way was used before
        legacy = None
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    backends = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    before = [backend.fp32_precision for backend in backends]
    try:
        if legacy is not None:
            torch.set_float32_matmul_precision("highest")
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        if legacy is not None:
            torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
