"""Variants of the alignment loss: closed forms, and which of them collapse can lower."""

import math

import pytest
import torch

from slam_potsa.objective.distances import build_distance, mse
from slam_potsa.objective.terms import AlignmentObjective, AlignmentTerm, Tap
from slam_potsa.objective.variants import (
    VARIANTS,
    Sides,
    build_variant,
    contrastive,
    plain,
)

MEANINGS = torch.arange(3)


def sides(pairs: int = 3, noise: float = 0.1, seed: int = 0) -> Sides:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(pairs, 5, 4, generator=generator)
    y = x + noise * torch.randn(pairs, 5, 4, generator=generator)
    return Sides(x.requires_grad_(), y, None, None)


def test_contrastive_is_the_symmetric_cross_entropy_of_the_scores():
    two = sides()
    distances = torch.stack(
        [torch.stack([mse(two.x[i : i + 1], two.y[j : j + 1])[0] for j in range(3)])
         for i in range(3)]
    )  # fmt: skip
    off = ~torch.eye(3, dtype=torch.bool)
    scores = -distances / (0.2 * distances[off].mean())
    labels = torch.arange(3)
    cross = torch.nn.functional.cross_entropy
    expected = (cross(scores, labels) + cross(scores.T, labels)) / 2
    value = contrastive(mse, two, MEANINGS, MEANINGS, temperature=0.2)
    # The scale is a constant for the gradient, so only the values are compared.
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rows_of_one_meaning_are_not_pushed_apart():
    two, same = sides(2), torch.tensor([7, 7])
    assert contrastive(mse, two, same, same).item() == 0.0
    x = torch.zeros(3, 5, 4)  # indistinguishable, of three meanings
    value = contrastive(mse, Sides(x, x, None, None), MEANINGS, MEANINGS)
    assert value.item() == pytest.approx(math.log(3))
    with pytest.raises(ValueError, match="plain, .*contrastive"):
        build_variant("infonce")


def test_one_pair_has_nothing_to_be_contrasted_with():
    one = sides(1)
    assert contrastive(mse, one, MEANINGS[:1], MEANINGS[:1]) is None
    term = AlignmentTerm("ot", "a", "a", mse, 1.0, variant=contrastive)
    taps = {"a": Tap(torch.randn(2, 5, 4))}
    loss = AlignmentObjective([term])(torch.tensor(1.0), taps, torch.tensor([[0, 1]]), [1])
    assert loss.terms == {} and loss.total == 1.0


@pytest.mark.parametrize("name", sorted(VARIANTS.keys() - {"n_pair"}))
def test_what_shrinking_the_space_does(name):
    """Halving all tokens lowers the mean to a quarter and leaves the contrast as it is."""
    distance = build_distance("ot", epsilon=0.1)
    whole = sides()
    half = Sides(whole.x / 2, whole.y / 2, None, None)
    before, after = (
        VARIANTS[name](distance, both, MEANINGS, MEANINGS).item() for both in (whole, half)
    )
    assert after == pytest.approx(before / 4 if VARIANTS[name] is plain else before, rel=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_and_dead_rows_never_count(name):
    distance, whole = build_distance("ot"), sides(3)
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[2] = False
    x = whole.x.detach().clone()
    x[2] = float("nan")
    x.requires_grad_()
    dead = Sides(x, whole.y, mask, None)
    value = VARIANTS[name](distance, dead, MEANINGS, MEANINGS)
    value.backward()
    assert torch.isfinite(value) and (x.grad[2] == 0).all() and (x.grad[0] != 0).any()
    if name == "contrastive":  # its two live rows are what is left
        two = Sides(whole.x[:2].detach(), whole.y[:2], None, None)
        expected = VARIANTS[name](distance, two, MEANINGS[:2], MEANINGS[:2])
        assert value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_n_pair_is_one_and_all_others_of_the_batch():
    """Sohn (2016), eq. 7: mean log(1 + Σ_{j≠i} exp(f_i·g_j − f_i·g_i)) of mean tokens."""
    two = sides()._replace(x_mask=torch.tensor([[1, 1, 1, 0, 0]] * 3).bool())
    f, g = two.x[:, :3].mean(1), two.y.mean(1)
    scores = f @ g.T
    others = (scores - scores.diagonal()[:, None]).exp().masked_fill(torch.eye(3).bool(), 0)
    found = build_variant("n_pair")(build_distance("dot"), two, MEANINGS, MEANINGS)
    torch.testing.assert_close(found, others.sum(1).log1p().mean())


def test_ctc_sums_over_alignments_and_leaves_out_what_cannot_be_aligned():
    """Two frames, one token: a a, a -, - a."""
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]]).log()
    x, text = scores.repeat(2, 1, 1), torch.tensor([[[1], [-100], [-100]], [[0], [1], [0]]])
    value = build_distance("ctc")(x, text.float(), None, text[:, :, 0] >= 0)
    p = 0.3 * 0.6 + 0.3 * 0.3 + 0.2 * 0.6
    assert value.tolist() == [pytest.approx(-math.log(p), rel=1e-5), 0]
