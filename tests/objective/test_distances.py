"""The rivals of Table 2 behind one signature."""

import math

import pytest
import torch
import torch.nn.functional as F

from slam_potsa.objective.distances import DISTANCES, build_distance, measured
from slam_potsa.objective.transport import transport, transport_loss


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MASKS = (
    torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]).bool(),
    torch.tensor([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]).bool(),
)

NAMES = [name for name in DISTANCES if name != "ctc"]  # whose second side are tokens, not vectors


@pytest.mark.parametrize(
    ("name", "between"),
    [("mse", lambda x, y: (x - y).square().mean()),
     ("kl", lambda x, y: F.kl_div(x.log_softmax(1), y.softmax(1), reduction="batchmean")),
     ("cosine", lambda x, y: (1 - F.cosine_similarity(x, y, dim=1)).mean())],
)  # fmt: skip
def test_rivals_are_means_over_common_positions(name, between):
    x, y = tokens(3, 5, 4), tokens(3, 5, 4, seed=1)
    values = DISTANCES[name](x, y, *MASKS)
    assert values[0].item() == pytest.approx(between(x[0, :2], y[0, :2]).item())
    assert values[1].item() == pytest.approx(between(x[1, 1:], y[1, 1:]).item())
    assert values[2] == 0
    assert DISTANCES[name](x, y, None, None)[0].item() == pytest.approx(between(x[0], y[0]).item())
    with pytest.raises(ValueError, match="use .*the distance 'ot'"):
        DISTANCES[name](tokens(2, 5, 4), tokens(2, 6, 4), None, None)


def test_kl_is_the_teachers_to_the_students_by_hand():
    student = torch.tensor([[[1.0, 1.0], [0.0, 3.0]]]).log().nan_to_num(neginf=-1e9)
    teacher = torch.tensor([[[3.0, 1.0], [5.0, 5.0]]]).log()
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    only_first = torch.tensor([[True, False]])
    assert DISTANCES["kl"](student, teacher, only_first, None).item() == pytest.approx(first)
    assert DISTANCES["kl"](teacher, teacher + 2.0).item() == pytest.approx(0.0, abs=1e-6)
    assert DISTANCES["kl"](student, teacher).item() > 1e8  # where the student rules out a token


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_empty_rows_leak_nothing(name):
    clean = tokens(3, 5, 4), tokens(3, 5, 4, seed=1)
    results = []
    for garbage in (0.0, math.nan):
        sides = [side.clone() for side in clean]
        for side, mask in zip(sides, MASKS, strict=True):
            side[~mask] = garbage
            side.requires_grad_()
        values = DISTANCES[name](*sides, *MASKS)
        values.sum().backward()
        results.append((values.detach(), sides[0].grad, sides[1].grad))
    for clean_part, noisy_part in zip(*results, strict=True):
        assert torch.equal(clean_part, noisy_part)
    assert values[2] == 0 and (sides[0].grad[2] == 0).all() and (sides[1].grad[2] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_signature(name):
    x = tokens(2, 5, 4).bfloat16().requires_grad_()
    values = DISTANCES[name](x, tokens(2, 5, 4, seed=1).bfloat16(), None, None)
    values.sum().backward()
    assert values.shape == (2,) and values.dtype == torch.float32 and x.grad.dtype == x.dtype
    assert DISTANCES[name](x[:0], x[:0], None, None).shape == (0,)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sinkhorn", {}, "expected one of ot, mse, cosine"),
        ("mse", {"epsilon": 0.1}, "epsilon"),
        ("ot", {"epsilon": -1.0}, "epsilon"),
    ],
)
def test_unknown_names_and_options_are_refused_when_built(name, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build_distance(name, **options)


def test_options_reach_the_transport():
    x, y = tokens(2, 5, 4), tokens(2, 6, 4, seed=1)
    options = {"epsilon": 0.2, "cost_scale": "none", "debias": True}
    distance = build_distance("ot", **options)
    assert torch.equal(distance(x, y, None, None), transport_loss(x, y, **options))
    assert torch.equal(measured(distance, x, y, None, None)[0], transport(x, y, **options).cost)
