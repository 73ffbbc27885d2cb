import numpy as np
import pytest
import torch

from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis.rank import effective_rank, query_share


@pytest.mark.parametrize("directions", [1, 2, 5])
@pytest.mark.parametrize("width", [5, 40])  # fewer and more than vectors
def test_equal_directions_are_counted(directions, width):
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))[0][:directions]
    vectors = np.concatenate([axes, -axes]) + 7  # the mean does not count
    assert effective_rank(vectors) == pytest.approx(directions)


def test_the_entropy_of_unequal_directions():
    vectors = np.diag([3.0, 1.0])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(vectors, center=False) == pytest.approx(expected)


def test_agrees_with_singular_values_and_ignores_scale_and_rotation():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 12)) * np.arange(1, 13)
    shares = np.linalg.svd(vectors - vectors.mean(0), compute_uv=False)
    shares = shares / shares.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    turned = 100 * vectors @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
    assert effective_rank(vectors) == pytest.approx(expected)
    assert effective_rank(torch.tensor(turned)) == pytest.approx(expected)


def test_a_point_has_rank_zero_also_in_float32():
    assert effective_rank(np.ones((5, 3))) == 0
    noise = 1e-7 * torch.randn(50, 20, generator=torch.Generator().manual_seed(0))
    assert effective_rank(3 + noise.float()) == 0


def test_bad_shapes():
    for vectors in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(InputError, match=r"expected \[n, D\]"):
            effective_rank(vectors)


def test_query_share_closed_forms():
    queries = np.array([[1.0], [-1.0]])  # two queries, at ±1
    assert query_share(np.stack([queries] * 4)) == 1
    said = np.array([1.0, 1, -1, -1])[:, None, None]  # what was said, ±1 for both queries
    assert query_share(np.zeros((4, 2, 1)) + said) == pytest.approx(0)
    assert query_share(queries + said) == pytest.approx(0.5)
    assert query_share(np.ones((4, 2, 1))) == 1  # nothing at all is said
