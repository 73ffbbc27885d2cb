"""Equation 3 against POT, value and gradient, in float64.

POT's entropy is Σ Γ log Γ where equation 3 has Σ Γ (log Γ − 1): for mass 1 the values differ by ε.
"""

import pytest
import torch
from clouds import CLOUDS, EXACT, gradients, squared_distances, tokens
from torch import Tensor

from slam_potsa.objective.transport import transport

ot = pytest.importorskip("ot")


def envelope(plan: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_ij Γ_ij ∂‖x_i − y_j‖² for a reference plan, with no shortcut."""
    difference = 2 * plan[:, :, None] * (x[:, None] - y[None])
    return difference.sum(1), -difference.sum(0)


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("epsilon", [3.0, 1.5])
def test_value_and_gradient_agree_with_pot(cloud, epsilon):
    x, y = CLOUDS[cloud]
    cost = squared_distances(x, y)
    a, b = x.new_full((len(x),), 1 / len(x)), y.new_full((len(y),), 1 / len(y))
    exact = {"method": "sinkhorn_log", "numItermax": 20_000, "stopThr": 1e-11, "warn": False}
    plan = ot.sinkhorn(a, b, cost, epsilon, **exact)
    options = {"epsilon": epsilon, "epsilon_scale": "absolute", "cost_scale": "none", **EXACT}
    value, grad_x, grad_y = gradients(x[None], y[None], **options)
    expected = (plan * cost).sum() + epsilon * (plan * (plan.clamp_min(1e-300).log() - 1)).sum()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6, rel=1e-9)
    for ours, theirs in zip((grad_x, grad_y), envelope(plan, x, y), strict=True):
        assert torch.allclose(ours[0], theirs, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:If reg_type = entropy")
@pytest.mark.parametrize("penalty", [0.5, 5.0, 50.0])
@pytest.mark.parametrize("cloud", ["random", "repeated tokens", "one each"])
def test_soft_marginals_agree_with_pot(cloud, penalty):
    """POT's reg_type='entropy' is KL(Γ | 1) = Σ Γ (log Γ − 1) + N M: ours plus a constant."""
    x, y = CLOUDS[cloud]
    epsilon, a, b = 0.5, x.new_full((len(x),), 1 / len(x)), y.new_full((len(y),), 1 / len(y))
    cost = squared_distances(x, y) / x.shape[1]
    reference = ot.unbalanced.sinkhorn_stabilized_unbalanced(
        a, b, cost, epsilon, penalty, reg_type="entropy", numItermax=20_000, stopThr=1e-15
    )
    result = transport(
        x[None], y[None], epsilon=epsilon, epsilon_scale="absolute", marginal_penalty=penalty,
        **EXACT,
    )  # fmt: skip

    def objective(plan: Tensor) -> float:
        def divergence(p: Tensor, q: Tensor) -> Tensor:
            return (p * (p / q).log() - p + q).sum()

        entropy = (plan * (plan.clamp_min(1e-300).log() - 1)).sum()
        softened = divergence(plan.sum(1), a) + divergence(plan.sum(0), b)
        return ((plan * cost).sum() + epsilon * entropy + penalty * softened).item()

    assert torch.allclose(result.plan[0], reference, atol=1e-6, rtol=0)
    assert result.value.item() == pytest.approx(objective(reference), abs=1e-6)
    assert result.value.item() == pytest.approx(objective(result.plan[0]), abs=1e-9)
    grad_x = gradients(
        x[None], y[None], epsilon=epsilon, epsilon_scale="absolute", marginal_penalty=penalty,
        **EXACT,
    )[1]  # fmt: skip
    assert torch.allclose(grad_x[0], envelope(reference, x, y)[0] / x.shape[1], atol=1e-6, rtol=0)


def test_a_small_epsilon_is_near_the_exact_distance():
    """AI-STA's W has no entropy. Smooth speech against text, at conf/alignment/ai_sta.yaml's ε."""
    speech = tokens(60, 32).cumsum(0) / 4
    text = speech[torch.linspace(0, 59, 20).long()] + 0.3 * tokens(20, 32, seed=1)
    cost = squared_distances(speech, text)
    a, b = (x.new_full((len(x),), 1 / len(x)) for x in (speech, text))
    exact = ot.emd2(a, b, cost).item()
    errors = {
        epsilon: transport(
            speech[None], text[None], epsilon=epsilon, cost_scale="none", max_iterations=300
        ).cost.item() / exact - 1
        for epsilon in (0.05, 0.01)
    }  # fmt: skip
    assert 0 <= errors[0.01] < 0.05 < errors[0.05]
