r"""Sinkhorn's algorithm for the dual of eq. 3, batched, in the exponential domain with absorption.

    max_{f,g} ⟨f, a⟩ + ⟨g, b⟩ − ε Σ_ij Γ_ij,    Γ_ij = exp((f_i + g_j − C_ij) / ε)

With soft marginals ⟨f, a⟩ becomes ρ ⟨1 − exp(−f/ρ), a⟩, and ⟨g, b⟩ likewise.

On potentials φ = f/ε and γ = g/ε, scaled costs S = C/ε, the code is marked by these numbers:

    (1) start      φ_i = min_j S_ij,  γ_j = min_i (S_ij − φ_i): every token has a partner with Γ = 1
    (2) absorb     K = exp((φ + γ − S)/s): the scalings are now u = v = 1
    (3) sweep      u ← a / Kv,  v ← b / Kᵀu: matrix–vector products, ten times, over-relaxed by ω
    (4) update     φ += s log u,  γ += s log v; back to (2), where it ends once Γ's marginals fit

An exp of [N, M] costs what three sweeps do, so one in ten costs little; as a scaling may move by
1e±15 between two absorptions, nothing overflows however small ε is. A temperature s > 1 is used
only for ε below 1/20 of the mean cost, and halves until it is 1. ω comes from the convergence rate
just observed. On a GPU, nothing here depends on values: the host never waits.

Shapes: B pairs, N and M tokens. φ, γ, u, v are rows, [B, 1, N] and [B, 1, M]: on a CPU a batched
``row @ matrix`` is ten times as fast as ``matrix @ column``.

Sources: Cuturi, *Sinkhorn Distances*, 2013 (3); Schmitzer, *Stabilized Sparse Scaling
Algorithms*, 2019 (2, s); Chizat et al., *Scaling Algorithms for Unbalanced OT*, 2018, and
Séjourné et al., *Faster Unbalanced OT*, 2022 (ρ); Young, *Iterative Solution of Large Linear
Systems*, 1971, and Thibault et al., *Overrelaxed Sinkhorn–Knopp*, 2021 (ω).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

SWEEPS_PER_ABSORPTION = 10  # sweeps between two kernels: an exp of [N, M] costs about four sweeps
MAX_LOG_SCALING = 34.5  # log(1e15): u · K · v stays inside float32 between two absorptions
START_TEMPERATURE = 0.05  # of the mean cost: larger ε needs no annealing, smaller ε gains 2–5 ×
MAX_RELAXATION = 1.95  # ω = 2 no longer contracts
RELAX_BELOW = 0.3  # marginal error under which the convergence rate means something


class Problem(NamedTuple):
    scaled_cost: Tensor  # S = C/ε [B, N, M], +inf at padding, so that the kernel is 0 there
    a: Tensor  # [B, 1, N], 0 at padding
    b: Tensor  # [B, 1, M]
    softness: Tensor | None  # ε/ρ [B, 1, 1]; None: hard marginals


class Solution(NamedTuple):
    phi: Tensor  # f/ε [B, 1, N]
    gamma: Tensor  # g/ε [B, 1, M]
    plan: Tensor  # Γ [B, N, M]
    marginal_error: Tensor  # [B]
    iterations: int


def sinkhorn(
    problem: Problem, mean_scaled_cost: Tensor, max_iterations: int, tolerance: float
) -> Solution:
    """Maximise the dual over φ and γ; on a CPU until every marginal error is within tolerance.

    Args:
        mean_scaled_cost: mean of S over valid tokens [B], which sets the first temperature.
    """
    scaled_cost = problem.scaled_cost
    may_stop = scaled_cost.device.type == "cpu"
    phi, gamma = _start(scaled_cost)  # (1)
    start = 2 * START_TEMPERATURE * mean_scaled_cost[:, None, None]
    temperature = _cooled(start, max_iterations)
    relaxation = torch.ones_like(temperature)
    previous = torch.full_like(temperature, math.inf)
    done = 0
    while True:
        kernel = _kernel(phi, gamma, scaled_cost, temperature)  # (2)
        error = _marginal_error(kernel, phi, gamma, problem)
        left = max_iterations - done
        unfinished = (error > tolerance) | (temperature > 1)
        if left == 0 or (may_stop and not unfinished.any()):
            return Solution(phi, gamma, kernel, error.view(-1), done)
        relaxation = _relaxation(relaxation, error, previous)
        sweeps = min(SWEEPS_PER_ABSORPTION, left)
        log_u, log_v = _sweep(kernel, phi, gamma, problem, temperature, relaxation, sweeps)  # (3)
        phi, gamma = phi + temperature * log_u, gamma + temperature * log_v  # (4)
        if problem.softness is not None:
            phi, gamma = _balance_mass(phi, gamma, problem)
        previous = torch.where(temperature > 1, math.inf, error)  # no rate across temperatures
        done += sweeps
        temperature = _cooled(temperature, max_iterations - done)


def _start(scaled_cost: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials that give each token a partner at kernel 1, and no kernel above 1."""
    phi = _finite(scaled_cost.amin(2)[:, None])
    gamma = _finite((scaled_cost - phi.mT).amin(1, keepdim=True))
    return phi, gamma


def _finite(potential: Tensor) -> Tensor:
    """0 for padding, whose minimum is over nothing but +inf. Leaves NaN: it must be seen."""
    return torch.where(potential == math.inf, 0.0, potential)


def _cooled(temperature: Tensor, iterations_left: int) -> Tensor:
    """Half, but not under 1; exactly 1 for the last sweeps, so that they solve for ε itself."""
    if iterations_left <= SWEEPS_PER_ABSORPTION:
        return torch.ones_like(temperature)
    return (temperature / 2).clamp_min(1.0)


def _kernel(phi: Tensor, gamma: Tensor, scaled_cost: Tensor, temperature: Tensor) -> Tensor:
    """exp((φ + γ − S)/s) [B, N, M]; entries that could only turn denormal, and slow, become 0."""
    exponent = (phi.mT - scaled_cost).add_(gamma).div_(temperature)
    smallest = torch.finfo(exponent.dtype).tiny ** 0.75
    return torch.nn.functional.threshold_(exponent.exp_(), smallest, 0.0)


def _sweep(
    kernel: Tensor,
    phi: Tensor,
    gamma: Tensor,
    problem: Problem,
    temperature: Tensor,
    relaxation: Tensor,
    sweeps: int,
) -> tuple[Tensor, Tensor]:
    """log u and log v after alternating updates; the last one is not over-relaxed."""
    # A potential follows its marginal all the way, or by ρ/(ρ + sε) where marginals are soft.
    power = torch.ones_like(temperature)
    log_a, log_b = problem.a.log(), problem.b.log()
    if problem.softness is not None:
        power = 1 / (1 + temperature * problem.softness)
        log_a, log_b = log_a - problem.softness * phi, log_b - problem.softness * gamma
    # Padding has a = Kv = 0. Any finite logs will do instead, for K is 0 there.
    smallest = torch.finfo(kernel.dtype).tiny
    log_a, log_b = (power * torch.where(t == -math.inf, 0.0, t) for t in (log_a, log_b))

    def update_(log_scaling: Tensor, log_marginal: Tensor, mass: Tensor, omega: Tensor) -> Tensor:
        target = torch.addcmul(log_marginal, power, mass.clamp_min_(smallest).log_(), value=-1)
        log_scaling.lerp_(target, omega).clamp_(-MAX_LOG_SCALING, MAX_LOG_SCALING)
        return log_scaling.exp()

    transposed, plain = kernel.mT, torch.ones_like(relaxation)
    log_u, log_v = torch.zeros_like(phi), torch.zeros_like(gamma)
    v = torch.ones_like(gamma)
    for left in reversed(range(sweeps)):
        u = update_(log_u, log_a, torch.bmm(v, transposed), relaxation)
        v = update_(log_v, log_b, torch.bmm(u, kernel), relaxation if left else plain)
    return log_u, log_v


def _relaxation(omega: Tensor, error: Tensor, previous: Tensor) -> Tensor:
    """The best ω for the convergence rate λ that ω gave: (λ + ω − 1)² = λ ω² η, Young's relation.

    η is the rate of the plain iteration; the best ω for it is 2 / (1 + sqrt(1 − η)).
    """
    rate = (error / previous).clamp(1e-6, 1) ** (1 / SWEEPS_PER_ABSORPTION)
    plain_rate = ((rate + omega - 1) ** 2 / (rate * omega**2)).clamp(0, 1)
    best = (2 / (1 + (1 - plain_rate).sqrt())).clamp_max(MAX_RELAXATION)
    return torch.where((error < previous) & (error < RELAX_BELOW), best, 1.0)


def _marginals(phi: Tensor, gamma: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """What Γ1 and Γᵀ1 are at the optimum: a and b, or a exp(−f/ρ) and b exp(−g/ρ)."""
    if problem.softness is None:
        return problem.a, problem.b
    return (
        problem.a * torch.exp(-problem.softness * phi),
        problem.b * torch.exp(-problem.softness * gamma),
    )


def _marginal_error(kernel: Tensor, phi: Tensor, gamma: Tensor, problem: Problem) -> Tensor:
    """Sum of |Γ1 − its target| and |Γᵀ1 − its target| [B, 1, 1]: 0 exactly at the optimum."""
    rows, columns = _marginals(phi, gamma, problem)
    row_error = (kernel.sum(2)[:, None] - rows).abs().sum(2, keepdim=True)
    return row_error + (kernel.sum(1)[:, None] - columns).abs().sum(2, keepdim=True)


def _balance_mass(phi: Tensor, gamma: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """The best constant to move from γ to φ: else soft marginals converge as (ρ/(ρ + ε))²."""
    rows = torch.logsumexp(problem.a.log() - problem.softness * phi, 2, keepdim=True)
    columns = torch.logsumexp(problem.b.log() - problem.softness * gamma, 2, keepdim=True)
    shift = (rows - columns) / (2 * problem.softness)
    shift = torch.where(problem.a.sum(2, keepdim=True) > 0, shift, 0.0)  # −inf − −inf: no tokens
    return phi + shift, gamma - shift


def dual_value(problem: Problem, solution: Solution) -> Tensor:
    """The dual over ε [B]: second-order in the marginal error, and Γ is its gradient in S."""
    phi, gamma = solution.phi, solution.gamma
    if problem.softness is not None:
        phi = -torch.expm1(-problem.softness * phi) / problem.softness
        gamma = -torch.expm1(-problem.softness * gamma) / problem.softness
    potentials = (problem.a * phi).sum((1, 2)) + (problem.b * gamma).sum((1, 2))
    return potentials - solution.plan.sum((1, 2))
