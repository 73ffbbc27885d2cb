"""`sinkhorn.py` for a GPU in one launch: a pair a program, its S and K in registers.

The same iterates by the same numbers, but for rounding; here a pair stops by itself once its own
marginals fit, as a program can look at its error without the host waiting for it. Hard marginals
alone. TRITON_INTERPRET=1 in the environment runs it on a CPU, for tests.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl

from slam_potsa.objective import sinkhorn as torch_path
from slam_potsa.objective.sinkhorn import Problem, Solution, Tensor

MAX_TOKENS = 128  # a side: S and K of 128 x 128 are half of a multiprocessor's registers
START = tl.constexpr(torch_path.START_TEMPERATURE)
SWEEPS = tl.constexpr(torch_path.SWEEPS_PER_ABSORPTION)
MAX_LOG = tl.constexpr(torch_path.MAX_LOG_SCALING)
MAX_RELAXATION = tl.constexpr(torch_path.MAX_RELAXATION)
RELAX_BELOW = tl.constexpr(torch_path.RELAX_BELOW)
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


def sinkhorn(
    problem: Problem, mean_scaled_cost: Tensor, max_iterations: int, tolerance: float
) -> Solution:
    """As `sinkhorn.sinkhorn`, and by it where a pair is not float32, short, hard and on a GPU.

    `iterations` is the cap, for the host does not ask.
    """
    cost, a, b = (part.contiguous() for part in problem[:3])
    pairs, *sides = cost.shape
    runs = cost.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"
    takes = problem.softness is None and cost.dtype == torch.float32 and max(sides) <= MAX_TOKENS
    if not (takes and runs):
        return torch_path.sinkhorn(problem, mean_scaled_cost, max_iterations, tolerance)
    phi, gamma, plan, error = map(torch.empty_like, (a, b, cost, mean_scaled_cost))
    tensors = cost, a, b, mean_scaled_cost, phi, gamma, plan, error
    blocks, warps = map(triton.next_power_of_2, sides), 8 if max(sides) > 64 else 4
    with torch.cuda.device_of(cost):  # Triton launches on the current one
        _solve[(pairs,)](*tensors, *sides, max_iterations, tolerance, *blocks, num_warps=warps)
    return Solution(phi, gamma, plan, error, max_iterations)


@triton.jit
def _solve(
    cost_of, a_of, b_of, mean_of, phi_to, gamma_to, plan_to, error_to,
    rows, columns, max_iterations, tolerance, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    i, j = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    at = i[:, None] * columns + j[None, :]
    cost = tl.load(cost_of + pair * rows * columns + at, inside, other=float("inf"))
    a = tl.load(a_of + pair * rows + i, i < rows, other=0.0)
    b = tl.load(b_of + pair * columns + j, j < columns, other=0.0)
    log_a, log_b = tl.where(a > 0, tl.log(a), 0.0), tl.where(b > 0, tl.log(b), 0.0)

    phi = tl.min(cost, 1)  # (1)
    phi = tl.where(phi == float("inf"), 0.0, phi)
    gamma = tl.min(cost - phi[:, None], 0)
    gamma = tl.where(gamma == float("inf"), 0.0, gamma)
    temperature = _cooled(2 * START * tl.load(mean_of + pair), max_iterations)
    omega, previous, done = 1.0, float("inf"), 0
    kernel, error = _absorbed(phi, gamma, cost, temperature, a, b)  # (2)
    while (done < max_iterations) & ((error > tolerance) | (temperature > 1)):
        omega = _relaxation(omega, error, previous)
        log_u, log_v, v = tl.zeros_like(a), tl.zeros_like(b), tl.zeros_like(b) + 1
        sweeps = tl.minimum(SWEEPS, max_iterations - done)
        for sweep in range(sweeps):  # (3)
            log_u = _updated(log_u, log_a, tl.sum(kernel * v[None, :], 1), omega)
            mass = tl.sum(kernel * tl.exp(log_u)[:, None], 0)
            log_v = _updated(log_v, log_b, mass, tl.where(sweep < sweeps - 1, omega, 1.0))
            v = tl.exp(log_v)
        phi += temperature * log_u  # (4)
        gamma += temperature * log_v
        previous = tl.where(temperature > 1, float("inf"), error)
        done += sweeps
        temperature = _cooled(temperature, max_iterations - done)
        kernel, error = _absorbed(phi, gamma, cost, temperature, a, b)  # (2)

    tl.store(phi_to + pair * rows + i, phi, i < rows)
    tl.store(gamma_to + pair * columns + j, gamma, j < columns)
    tl.store(plan_to + pair * rows * columns + at, kernel, inside)
    tl.store(error_to + pair, error)


@triton.jit
def _cooled(temperature, iterations_left):
    return tl.where(iterations_left <= SWEEPS, 1.0, tl.maximum(temperature / 2, 1.0))


@triton.jit
def _absorbed(phi, gamma, cost, temperature, a, b):
    """K and its marginal error."""
    kernel = tl.exp((phi[:, None] - cost + gamma[None, :]) / temperature)
    kernel = tl.where(kernel <= TINY**0.75, 0.0, kernel)
    error = tl.sum(tl.abs(tl.sum(kernel, 1) - a), 0) + tl.sum(tl.abs(tl.sum(kernel, 0) - b), 0)
    return kernel, error


@triton.jit
def _updated(log_scaling, log_marginal, mass, omega):
    target = log_marginal - tl.log(tl.maximum(mass, TINY))
    return tl.clamp(log_scaling + omega * (target - log_scaling), -MAX_LOG, MAX_LOG)


@triton.jit
def _relaxation(omega, error, previous):
    rate = tl.exp(tl.log(tl.clamp(error / previous, 1e-6, 1.0)) / SWEEPS)
    plain_rate = tl.clamp((rate + omega - 1) * (rate + omega - 1) / (rate * omega * omega), 0, 1)
    best = tl.minimum(2 / (1 + tl.sqrt(1 - plain_rate)), MAX_RELAXATION)
    return tl.where((error < previous) & (error < RELAX_BELOW), best, 1.0)
