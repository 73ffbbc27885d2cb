"""Equation 3: closed forms, invariances, masks, precision, bad arguments."""

import math

import pytest
import torch
from clouds import CLOUDS, EXACT, gradients, squared_distances, tokens

from slam_potsa.objective.transport import _full_precision, transport, transport_loss


@pytest.mark.parametrize("many", [1, 6])
def test_one_token_against_many_is_the_mean_distance(many):
    """Γ_1j = 1/M, so OT_ε = mean_j C_1j − ε (1 + log M)."""
    x, y = tokens(2, 1, 4), tokens(2, many, 4, seed=1)
    result = transport(x, y, epsilon=0.3, epsilon_scale="absolute", cost_scale="none")
    mean = (x - y).square().sum(2).mean(1)
    assert torch.allclose(result.cost, mean)
    assert torch.allclose(result.value, mean - 0.3 * (1 + math.log(many)))


def test_two_tokens_have_the_logistic_plan():
    """Equal marginals and costs 0 and c: the off-diagonal mass is sigmoid(−c/ε)."""
    x = torch.tensor([[[0.0], [1.5]]], dtype=torch.float64)
    result = transport(x, x.clone(), epsilon=0.5, epsilon_scale="absolute", **EXACT)
    off_diagonal = result.plan[0, 0, 1] + result.plan[0, 1, 0]
    assert off_diagonal.item() == pytest.approx(1 / (1 + math.exp(1.5**2 / 0.5)), abs=1e-12)


def test_a_permutation_is_found_and_costs_nothing():
    x = tokens(2, 30, 16)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    result = transport(x, x[:, order], epsilon=1e-3)
    expected = torch.zeros(30, 30, dtype=x.dtype)
    expected[order, torch.arange(30)] = 1 / 30
    assert torch.allclose(result.plan, expected.expand(2, -1, -1), atol=1e-9)
    assert result.cost.abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_epsilon_reaches_the_exact_assignment(dtype):
    optimize = pytest.importorskip("scipy.optimize")
    x, y = tokens(4, 20, 8, dtype=dtype), tokens(4, 20, 8, seed=3, dtype=dtype)
    result = transport(x, y, epsilon=1e-3, max_iterations=5000, tolerance=1e-4)
    for row in range(4):
        cost = squared_distances(x[row], y[row]) / 8
        rows, columns = optimize.linear_sum_assignment(cost.numpy())
        assert result.cost[row].item() == pytest.approx(cost[rows, columns].mean().item(), rel=5e-3)
    assert result.marginal_error.max() <= 1e-4


@pytest.mark.parametrize(
    ("origin", "options"), [(0, {"epsilon": 1e-3, "max_iterations": 3000}), (1000, {})]
)
def test_float32_agrees_with_float64(origin, options):
    """At a small ε, and far from the origin."""
    x, y = tokens(3, 40, 64), tokens(3, 40, 64).flip(1) + tokens(3, 40, 64, seed=1)
    x, y = (x + origin).float(), (y + origin).float()
    single = transport(x, y, **options)
    double = transport(x.double(), y.double(), **options, tolerance=1e-10)
    assert (single.plan - double.plan).abs().sum((1, 2)).max() < 1e-3
    assert torch.allclose(single.value.double(), double.value, rtol=1e-4)


def test_clouds_too_far_to_be_worth_moving_pay_for_all_their_mass():
    """Γ → 0, and ρ KL(0 | a) + ρ KL(0 | b) = 2ρ. (POT's solver meets numerical errors here.)"""
    x, y = CLOUDS["far apart"]
    options = {"marginal_penalty": 0.5, "epsilon": 0.5, "epsilon_scale": "absolute"}
    value, grad_x, _ = gradients(x[None], y[None], **options)
    assert value.item() == pytest.approx(1.0, abs=1e-6)
    assert grad_x.abs().max() < 1e-6


def test_gradcheck():
    x, y = tokens(2, 4, 3).requires_grad_(), tokens(2, 5, 3, seed=1).requires_grad_()
    x_mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0]]).bool()

    def value(x, y, **options):
        return transport_loss(
            x, y, x_mask, epsilon=1.0, epsilon_scale="absolute", **EXACT, **options
        )

    assert torch.autograd.gradcheck(value, (x, y))
    assert torch.autograd.gradcheck(lambda x, y: value(x, y, debias=True), (x, y))
    assert torch.autograd.gradcheck(lambda x, y: value(x, y, marginal_penalty=1.0), (x, y))


def test_it_reports_what_it_did_and_an_unconverged_value_is_a_lower_bound():
    x, y = tokens(2, 9, 5), tokens(2, 7, 5, seed=1)
    best = transport(x, y, tolerance=1e-8, max_iterations=1000)
    assert 16 < best.iterations < 1000 and best.marginal_error.max() <= 1e-8
    assert torch.allclose(best.plan.sum(2), x.new_full((2, 9), 1 / 9), atol=1e-8)
    assert torch.allclose(best.plan.sum(1), x.new_full((2, 7), 1 / 7), atol=1e-8)
    gaps = []
    for sweeps in (1, 4, 16):
        result = transport(x, y, max_iterations=sweeps, tolerance=0.0)
        assert result.iterations == sweeps
        gaps.append((best.value - result.value).sum().item())
    assert gaps[0] > gaps[1] > gaps[2] >= -1e-12


def test_symmetry_translation_permutation_and_scale():
    x, y = tokens(2, 9, 5), tokens(2, 7, 5, seed=1)
    value, grad_x, grad_y = gradients(x, y, **EXACT)
    swapped, swapped_y, swapped_x = gradients(y, x, **EXACT)
    assert torch.allclose(value, swapped) and torch.allclose(grad_x, swapped_x, atol=1e-10)
    moved, moved_x, moved_y = gradients(x + 37.5, y + 37.5, **EXACT)
    assert torch.allclose(value, moved) and torch.allclose(grad_x, moved_x, atol=1e-9)
    assert torch.allclose(grad_x.sum(1), -grad_y.sum(1), atol=1e-12)  # nothing pulls both at once
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    permuted, permuted_x, _ = gradients(x[:, order], y, **EXACT)
    assert torch.allclose(value, permuted)
    assert torch.allclose(grad_x[:, order], permuted_x, atol=1e-10)
    assert torch.allclose(transport_loss(3 * x, 3 * y, **EXACT), 9 * value)  # ε follows the mean


def test_cost_scale():
    x, y = tokens(2, 9, 5), tokens(2, 7, 5, seed=1)
    none, by_width, half = (transport(x, y, cost_scale=s, **EXACT) for s in ("none", "dim", "half"))
    assert torch.allclose(by_width.value * 5, none.value)
    assert torch.allclose(half.value * 2, none.value)
    mean = torch.stack([squared_distances(*pair).mean() for pair in zip(x, y, strict=True)])
    assert torch.allclose(none.epsilon, 0.05 * mean)


def test_debiased_is_zero_at_equal_clouds_and_positive_elsewhere():
    x, y = tokens(3, 9, 5), tokens(3, 6, 5, seed=1)
    value, grad_x, _ = gradients(x, x.flip(1), epsilon=0.5, debias=True, **EXACT)
    assert value.abs().max() < 1e-10 and grad_x.abs().max() < 1e-6
    assert (transport_loss(x, y, epsilon=0.5, debias=True, **EXACT) > 0).all()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("options", [{}, {"debias": True}, {"marginal_penalty": 0.5}])
def test_padding_leaks_nowhere(garbage, options):
    x, y = tokens(3, 6, 4), tokens(3, 8, 4, seed=1)
    x_mask = torch.arange(6) < torch.tensor([[6], [3], [4]])
    y_mask = torch.arange(8).flip(0) < torch.tensor([[5], [8], [4]])  # padded on the left
    options = {"epsilon": 0.5, **options, **EXACT}
    noisy_x, noisy_y = x.clone(), y.clone()
    noisy_x[~x_mask], noisy_y[~y_mask] = garbage, garbage
    value, grad_x, grad_y = gradients(noisy_x, noisy_y, x_mask, y_mask, **options)
    assert (grad_x[~x_mask] == 0).all() and (grad_y[~y_mask] == 0).all()
    for row in range(3):
        alone = x[row, x_mask[row]][None], y[row, y_mask[row]][None]
        expected, expected_x, expected_y = gradients(*alone, **options)
        assert value[row].item() == pytest.approx(expected.item(), abs=1e-9)
        assert torch.allclose(grad_x[row, x_mask[row]], expected_x[0], atol=1e-9)
        assert torch.allclose(grad_y[row, y_mask[row]], expected_y[0], atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"debias": True}, {"marginal_penalty": 0.5}])
@pytest.mark.parametrize("scale", ["mean", "absolute"])
def test_a_side_without_tokens_is_zero_and_nan_in_a_valid_token_is_seen(options, scale):
    x, y = tokens(3, 6, 4), tokens(3, 8, 4, seed=1)
    x_mask, y_mask = torch.ones(3, 6).bool(), torch.ones(3, 8).bool()
    x_mask[0], y_mask[1] = False, False
    x[0], y[1] = math.nan, math.nan
    value, grad_x, grad_y = gradients(x, y, x_mask, y_mask, epsilon_scale=scale, **options)
    assert (value[:2] == 0).all() and value[2] != 0
    assert (grad_x[:2] == 0).all() and (grad_y[:2] == 0).all() and (grad_x[2] != 0).any()
    seen = transport_loss(x, y, epsilon_scale=scale, **options)
    assert seen[:2].isnan().all() and seen[2] == pytest.approx(value[2].item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"debias": True}, {"marginal_penalty": 0.5}])
def test_equal_tokens_are_finite(dtype, options):
    x = torch.full((2, 5, 3), 7.0, dtype=dtype)
    for value_and_gradients in (gradients(x, x, **options), gradients(x, x[:, :2], **options)):
        assert all(part.isfinite().all() for part in value_and_gradients)
        assert value_and_gradients[0].abs().max() < 1e-6
        assert value_and_gradients[1].abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """Magnitude 1e2 and width 768: squared norms of 8e6 are beyond float16."""
    x, y = (100 * tokens(2, 20, 768, seed=s, dtype=torch.float32) for s in (0, 1))
    x, y = x.to(dtype), y.to(dtype)
    value, grad_x, grad_y = gradients(x, y, cost_scale="none", epsilon=0.01)
    exact, exact_x, _ = gradients(x.double(), y.double(), cost_scale="none", epsilon=0.01)
    assert value.dtype == torch.float32 and grad_x.dtype == grad_y.dtype == dtype
    assert torch.allclose(value.double(), exact, rtol=1e-5)
    assert torch.allclose(grad_x.double(), exact_x, rtol=2e-2, atol=0.1)


def test_autocast_and_reduced_precision_products_change_nothing():
    x, y = tokens(2, 9, 64, dtype=torch.float32), tokens(2, 7, 64, seed=1, dtype=torch.float32)
    expected, before = gradients(x, y), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = gradients(x, y)[0]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        gradient = gradients(x, y)[1]
    assert torch.equal(value, expected[0]) and torch.equal(gradient, expected[1])


def test_gradient_goes_to_the_side_that_asks():
    x, y = tokens(2, 5, 3).requires_grad_(), tokens(2, 6, 3, seed=1)
    transport_loss(x, y).sum().backward()
    assert y.grad is None
    both = gradients(x.detach(), y)[1]
    assert torch.equal(x.grad, both)
    assert not transport_loss(x.detach(), y).requires_grad
    assert not transport(x, y).cost.requires_grad and not transport(x, y).plan.requires_grad


@pytest.mark.parametrize("masked", [False, True])
def test_pairwise_is_every_row_with_every_row(masked):
    """Values and gradients of P² separate pairs, one row of which has no token."""
    x, y = (tokens(3, n, 4, seed=n).requires_grad_() for n in (5, 6))
    x_mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool()
    masks, copies = (None, None), (None, None)
    if masked:
        masks = x_mask, torch.ones(3, 6, dtype=torch.bool)
        copies = x_mask.repeat_interleave(3, 0), masks[1].repeat(3, 1)
    weight = tokens(3, 3, seed=9)
    sides = x.repeat_interleave(3, 0), y.repeat(3, 1, 1)
    expected = transport_loss(*sides, *copies, **EXACT).view(3, 3)
    found = transport(x, y, *masks, pairwise=True, **EXACT).value.view(3, 3)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((v * weight).sum(), (x, y)) for v in (found, expected)]
    torch.testing.assert_close(*gradients)
    with pytest.raises(ValueError, match="debias"):
        transport(x, y, pairwise=True, debias=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("solver", ["torch", "triton"])
def test_cuda_agrees_and_never_waits(solver):
    x, y = (tokens(4, 20, 64, seed=s, dtype=torch.float32) for s in (0, 1))
    expected = gradients(x, y, tolerance=0.0)
    x, y = x.cuda(), y.cuda()
    gradients(x, y, solver=solver)  # the first call may allocate, or compile
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = gradients(x, y, solver=solver, tolerance=0.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.cpu(), theirs, rtol=1e-4, atol=1e-6)


ONE = torch.zeros(1, 2, 4)
BOTH = ONE, ONE


@pytest.mark.parametrize(
    ("arguments", "options", "error", "names"),
    [
        ((torch.zeros(1, 0, 4), ONE), {}, ValueError, "^x: expected"),
        ((ONE, torch.zeros(1, 2, 5)), {}, ValueError, "^x and y: expected"),
        ((ONE.long(), ONE), {}, TypeError, "^x: expected"),
        ((ONE, ONE, torch.ones(1, 2)), {}, TypeError, "^x_mask: expected"),
        ((ONE, ONE, None, torch.ones(1, 3).bool()), {}, ValueError, "^y_mask: expected"),
        # All bad options at once.
        (BOTH, {"epsilon": 0.0, "tolerance": -1e-3}, ValueError, "epsilon: .*; tolerance: "),
        (BOTH, {"epsilon": math.nan, "max_iterations": 0}, ValueError, "epsilon: .*; max_iter"),
        (BOTH, {"epsilon_scale": "median", "cost_scale": "w"}, ValueError, "; cost_scale"),
        (BOTH, {"cost_scale": "w", "marginal_penalty": 0}, ValueError, "; marginal_penalty"),
        (BOTH, {"solver": "cuda"}, ValueError, "solver: "),
        (BOTH, {"debias": True, "marginal_penalty": 1.0}, ValueError, "debias: "),
    ],
)
def test_bad_arguments_are_refused(arguments, options, error, names):
    with pytest.raises(error, match=names):
        transport_loss(*arguments, **options)


def test_who_allows_tf32_by_the_older_flag_can_still_read_it():
    """torch raises, in products too, where its two ways to choose a precision contradict."""
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = True
    try:
        with _full_precision("cpu"):
            assert matmul.allow_tf32 is False
            assert torch.get_float32_matmul_precision() == "highest"
        assert matmul.allow_tf32 is True
    finally:
        matmul.allow_tf32 = False
