"""Run by test_sinkhorn_triton.py under TRITON_INTERPRET=1: both solvers on the same pairs."""

import warnings

import torch
from clouds import tokens

from slam_potsa.objective.transport import transport

warnings.filterwarnings("ignore", category=RuntimeWarning)  # numpy's, of log(0) at padding
EPSILONS = {"large ε": {"epsilon": 1.0}, "default": {}, "small ε": {"epsilon": 2e-3}}


def ragged():
    """Lengths 1 to 21 against 13, one row without tokens; NaN in padding."""
    x = tokens(4, 21, 8, dtype=torch.float32)
    y = x[:, :13] + 0.5 * tokens(4, 13, 8, seed=1, dtype=torch.float32)
    x_mask = torch.arange(21) < torch.tensor([21, 0, 1, 16])[:, None]
    y_mask = torch.arange(13) < torch.tensor([13, 5, 4, 9])[:, None]
    y[~y_mask] = torch.nan
    return x, y, x_mask, y_mask


def compare(name, x, y, *masks, **options):
    """Equal but for rounding after as many sweeps, in plan, value, error and gradient."""
    results, options = [], {"tolerance": 0.0, "max_iterations": 15, **options}
    for solver in ("triton", "torch"):
        sides = [side.clone().requires_grad_() for side in (x, y)]
        found = transport(*sides, *masks, solver=solver, **options)
        found.value.sum().backward()
        results.append((found, [side.grad for side in sides]))
    (ours, own), (theirs, expected) = results
    assert (ours.plan - theirs.plan).abs().sum((1, 2)).max() < 2e-5, name
    assert ((ours.value - theirs.value) / theirs.epsilon).abs().max() < 2e-5, name
    torch.testing.assert_close(ours.marginal_error, theirs.marginal_error, rtol=1e-2, atol=1e-5)
    for found, exact in zip(own, expected, strict=True):
        assert (found - exact).norm() < 1e-4 * exact.norm(), name


def main():
    for name, options in {**EPSILONS, "divergence": {"debias": True}}.items():
        compare(name, *ragged(), **options)
    compare("one odd sweep", *ragged(), max_iterations=11)
    x, y = (tokens(1, n, 4, seed=n, dtype=torch.float32) for n in (128, 90))
    compare("longest", x, y, max_iterations=10)
    # The fused solver alone says the cap, wherever it stopped.
    assert transport(x[:, :9], y[:, :9], solver="triton").iterations == 200
    longer, soft = torch.cat([x, x], 1), {"marginal_penalty": 1.0}
    assert transport(longer, y, solver="triton").iterations < 200
    assert transport(x.double(), y, solver="triton").iterations < 200
    assert transport(x, y, solver="triton", **soft).iterations < 200
    x, y, *masks = ragged()
    few = {"pairwise": True, "max_iterations": 10}
    each = [transport(x, y, *masks, solver=s, **few).value for s in ("triton", "torch")]
    torch.testing.assert_close(*each, rtol=1e-4, atol=1e-5)
    found = transport(x, y, *masks, solver="triton")  # each pair stops by itself, within tolerance
    assert (found.marginal_error <= 1e-4).all() and found.marginal_error[0] > 1e-6


main()
