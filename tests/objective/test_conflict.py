"""The conflict between cross-entropy and alignment, on losses whose gradients are known."""

import pytest
import torch

from slam_potsa.objective.conflict import gradient_conflict
from slam_potsa.objective.distances import mse
from slam_potsa.objective.terms import AlignmentObjective, AlignmentTerm, Tap

PAIRS = torch.tensor([[0, 1]])


def objective(**changes) -> AlignmentObjective:
    fields = {"first": "qformer.{layer}", "second": "qformer.{layer}", "weight": 10.0}
    return AlignmentObjective([AlignmentTerm("mse", distance=mse, **(fields | changes))])


def taps() -> dict[str, Tap]:
    torch.manual_seed(0)
    return {f"qformer.{k}": Tap(torch.randn(2, 3, 4, requires_grad=True)) for k in (1, 2)}


@pytest.mark.parametrize(("sign", "cosine"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_task_loss_with_or_against_the_alignment(sign, cosine):
    """L_CE = ± the alignment term at layer 1, and independent of layer 2."""
    found = taps()
    tokens = found["qformer.1"].tensor
    cross_entropy = sign * mse(tokens[:1], tokens[1:]).mean()
    report = gradient_conflict(objective(), cross_entropy, found, PAIRS, [1, 2])
    assert report["conflict/1/cosine"].item() == pytest.approx(cosine, abs=1e-5)
    ratio = report["conflict/1/alignment"] / report["conflict/1/ce"]
    assert ratio.item() == pytest.approx(10.0, rel=1e-5)  # lambda
    assert report["conflict/2/ce"] == 0 and report["conflict/2/cosine"] == 0
    assert report["conflict/2/alignment"] > 0


def test_orthogonal_pulls_do_not_conflict():
    """The alignment moves tokens along their difference; this task loss only along their sum."""
    found = taps()
    tokens = found["qformer.1"].tensor
    cross_entropy = (tokens[0] + tokens[1]).square().sum()
    report = gradient_conflict(objective(), cross_entropy, found, PAIRS, [1])
    assert report["conflict/1/cosine"].item() == pytest.approx(0, abs=1e-6)
    assert tokens.grad is None  # the graph stays, and gradients are not touched
    cross_entropy.backward()
    assert torch.allclose(tokens.grad, 2 * (tokens[0] + tokens[1]).expand_as(tokens))
    assert gradient_conflict(objective(), cross_entropy, found, PAIRS[:0], [1]) == {}
    assert gradient_conflict(objective(layers=(1,)), cross_entropy, found, PAIRS, [1]) == {}
