import numpy as np
import pytest
import torch

from slam_potsa.errors import InputError
from slam_potsa.evaluation.retrieval import recall_at_1

LANGUAGES = ["en", "es", "fr"]


def clouds(sentences=20, width=16, languages=LANGUAGES, seed=0):
    """The same random vectors for every language, with their labels."""
    base = np.random.default_rng(seed).normal(size=(sentences, width))
    vectors = np.concatenate([base] * len(languages))
    names = [f"s{n}" for n in range(sentences)] * len(languages)
    return vectors, names, [language for language in languages for _ in range(sentences)]


def test_identical_clouds_find_everything():
    found = recall_at_1(*clouds())
    assert len(found.pairs) == 6 and found.means == {"all": 1.0}
    pair = found.pairs["en", "fr"]
    assert (pair.recall, pair.queries, pair.candidates) == (1.0, 20, 20)
    assert pair.chance == pytest.approx(1 / 20)


def test_a_permuted_cloud_finds_its_fixed_points():
    vectors, names, languages = clouds(languages=["en", "es"])
    order = np.arange(20)
    order[:15] = np.roll(order[:15], 1)
    vectors[20:] = vectors[20:][order]
    found = recall_at_1(vectors, names, languages)
    assert found.pairs["en", "es"].recall == found.pairs["es", "en"].recall == 5 / 20


def test_order_scale_and_rotation_change_nothing():
    vectors, names, languages = clouds()
    rng = np.random.default_rng(1)
    vectors = vectors + 0.8 * rng.normal(size=vectors.shape)
    expected = recall_at_1(vectors, names, languages)
    assert 0.2 < expected.means["all"] < 1
    shuffle = rng.permutation(len(vectors))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    moved = 7 * vectors[shuffle] @ rotation + 100
    again = recall_at_1(moved, np.array(names)[shuffle], np.array(languages)[shuffle])
    assert again.pairs == {pair: expected.pairs[pair] for pair in again.pairs}


def test_random_vectors_are_at_chance():
    rng = np.random.default_rng(0)
    recalls = []
    for _ in range(40):
        _, names, languages = clouds(sentences=10)
        found = recall_at_1(rng.normal(size=(30, 32)), names, languages)
        recalls.append(found.means["all"])
    assert np.mean(recalls) == pytest.approx(0.1, abs=0.02)  # 40 × 6 × 10 draws: σ ≈ 0.006


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_collapsed_space_is_at_chance_not_at_one(dtype):
    _, names, languages = clouds(sentences=8)
    collapsed = torch.full((24, 4), 0.1, dtype=dtype)
    for center in (True, False):
        found = recall_at_1(collapsed, names, languages, center=center)
        assert found.means["all"] == pytest.approx(1 / 8)
    found = recall_at_1(collapsed + 1e-8 * torch.randn(24, 4), names, languages)
    assert found.means["all"] == pytest.approx(1 / 8)


def test_ties_count_fractionally():
    vectors = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    found = recall_at_1(vectors, ["a", "a", "b", "c"], ["en", "es", "es", "es"], center=False)
    assert found.pairs["en", "es"].recall == 0.5


def test_several_recordings_of_a_sentence_are_all_right_answers():
    vectors = np.array([[1, 0], [1, 0.1], [1, 0], [1, 0.05], [0, 1.0]])
    languages = ["en", "en", "es", "es", "es"]
    found = recall_at_1(vectors, ["a", "a", "a", "a", "b"], languages, center=False)
    pair = found.pairs["en", "es"]
    assert (pair.recall, pair.queries, pair.candidates) == (1, 2, 3)
    assert pair.chance == pytest.approx(2 / 3)


def test_queries_without_a_counterpart_are_left_out_and_stay_distractors():
    vectors = np.array([[1, 0], [0, 1], [0.0, 1], [1, 0]])
    languages = ["en", "en", "es", "es"]
    found = recall_at_1(vectors, ["a", "only en", "a", "only es"], languages, center=False)
    assert found.pairs["en", "es"].queries == 1
    assert found.pairs["en", "es"].recall == 0  # the distractor is nearer


def test_centering_takes_away_what_all_share_and_not_the_languages():
    vectors, names, languages = clouds(width=64)
    offset = np.array([{"en": 0.0, "es": 3.0, "fr": -3.0}[language] for language in languages])
    shifted = vectors + 50 + offset[:, None]
    assert recall_at_1(shifted, names, languages).means["all"] < 1
    assert recall_at_1(vectors + 50, names, languages).means["all"] == 1


def test_means_by_what_was_heard():
    vectors, names, languages = clouds()
    vectors[40:] = np.random.default_rng(3).normal(size=(20, 16))
    found = recall_at_1(vectors, names, languages, heard=["en", "es"])
    unheard = [pair.recall for names, pair in found.pairs.items() if "fr" in names]
    assert found.means["among heard"] == 1
    assert found.means["with an unheard"] == pytest.approx(np.mean(unheard))
    assert found.means["all"] == pytest.approx((2 + sum(unheard)) / 6)
    assert "with an unheard" not in recall_at_1(vectors, names, languages, heard=LANGUAGES).means
    assert found.as_dict()["pairs"]["en→es"]["recall"] == 1
    assert "among heard: 100.0" in found.text()


def test_bad_input():
    vectors, names, languages = clouds()
    with pytest.raises(InputError, match="only en"):
        recall_at_1(vectors[:20], names[:20], languages[:20])
    with pytest.raises(InputError, match="no sentence is spoken in two"):
        recall_at_1(vectors, range(60), languages)
    with pytest.raises(InputError, match="60 vectors, 60 sentences and 59"):
        recall_at_1(vectors, names, languages[:-1])
    with pytest.raises(InputError, match="shape"):
        recall_at_1(vectors[:, :, None], names, languages)
    vectors[3, 1] = np.nan
    with pytest.raises(InputError, match="the first is row 3"):
        recall_at_1(vectors, names, languages)
