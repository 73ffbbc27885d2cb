import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from slam_potsa.errors import InputError
from slam_potsa.evaluation.projection import language_share, pca, tsne


def test_pca_agrees_with_scikit_learn_up_to_sign():
    vectors = np.random.default_rng(0).normal(size=(40, 7)) * np.arange(1, 8)
    ours, theirs = pca(vectors), PCA(2).fit(vectors)
    signs = np.sign((ours.points * theirs.transform(vectors)).sum(axis=0))
    assert np.allclose(ours.points, theirs.transform(vectors) * signs)
    assert np.allclose(ours.explained, theirs.explained_variance_ratio_)


def test_signs_do_not_depend_on_the_order_of_rows():
    vectors = np.random.default_rng(1).normal(size=(30, 5))
    order = np.random.default_rng(2).permutation(30)
    assert np.allclose(pca(vectors).points[order], pca(vectors[order]).points)


def test_fewer_dimensions_than_axes_and_no_variance():
    line = torch.arange(5.0)[:, None]
    found = pca(line)
    assert found.points[:, 0].tolist() == [-2, -1, 0, 1, 2]
    assert found.points[:, 1].tolist() == [0] * 5 and found.explained.tolist() == [1, 0]
    assert np.all(pca(torch.ones(4, 3)).points == 0)


def test_language_share_closed_forms():
    apart = np.array([[1.0], [1], [-1], [-1]])
    assert language_share(apart, ["en", "en", "es", "es"]) == pytest.approx(1)
    assert language_share(apart, ["en", "es", "en", "es"]) == pytest.approx(0)
    assert language_share(np.ones((4, 2)), ["en", "en", "es", "es"]) == 0
    # Between ±1, within ±1: half of the variance each.
    mixed = np.array([[2.0], [0], [0], [-2]])
    assert language_share(mixed, ["en", "en", "es", "es"]) == pytest.approx(0.5)


def test_subtracting_language_means_leaves_none():
    rng = np.random.default_rng(3)
    languages = np.array(["en", "es", "fr"]).repeat(10)
    vectors = rng.normal(size=(30, 4)) + 5 * rng.normal(size=(3, 4)).repeat(10, axis=0)
    means = np.stack([vectors[languages == name].mean(axis=0) for name in languages])
    assert language_share(vectors, languages) > 0.5
    assert language_share(vectors - means, languages) == pytest.approx(0, abs=1e-12)


def test_bad_input():
    with pytest.raises(InputError, match="n ≥ 2"):
        pca(np.ones((1, 3)))
    with pytest.raises(InputError, match="not finite"):
        pca(np.array([[1.0], [np.inf]]))
    with pytest.raises(InputError, match="1 languages"):
        language_share(np.ones((2, 3)), ["en"])


def test_tsne_keeps_neighbours_and_is_the_same_every_time():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(30, 60)) + place for place in (0, 40, 80)])
    points = tsne(vectors, seed=3)
    assert points.shape == (90, 2) and np.array_equal(points, tsne(vectors, seed=3))
    middles = points.reshape(3, 30, 2).mean(axis=1)
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(axis=1)
    assert np.array_equal(nearest, np.repeat(range(3), 30))


def test_tsne_of_few_points_and_of_a_collapsed_space():
    assert tsne(np.eye(3)).shape == (3, 2)
    assert tsne(np.random.default_rng(0).normal(size=(6, 4))).shape == (6, 2)
    assert np.all(tsne(np.ones((20, 4))) == 0)
