from collections import namedtuple

import numpy as np
import pytest
import torch

from slam_potsa.evaluation.tap_measures import Hits, means_by_hearing, recall_hits, recall_intervals

LANGUAGES = ["en", "es", "fr"]
Recall = namedtuple("Recall", "recall chance")


def recall_at_1(*arguments):
    found = recall_hits(*arguments).items()
    return {pair: Recall(float(of.hits.mean()), of.chance) for pair, of in found}


def clouds(sentences=20, width=16, languages=LANGUAGES, seed=0):
    """The same random vectors for every language, with their labels."""
    base = np.random.default_rng(seed).normal(size=(sentences, width))
    vectors = np.concatenate([base] * len(languages))
    names = [f"s{n}" for n in range(sentences)] * len(languages)
    return vectors, names, [language for language in languages for _ in range(sentences)]


def mean(found):
    return np.mean([pair.recall for pair in found.values()])


def test_identical_clouds_find_everything_and_a_permuted_one_its_fixed_points():
    vectors, names, languages = clouds()
    found = recall_at_1(vectors, names, languages)
    assert len(found) == 6 and mean(found) == 1
    assert found["en", "fr"] == (1.0, pytest.approx(1 / 20))
    offset = np.repeat([0.0, 3.0, -3.0], 20)[:, None]  # of a language: not centered away
    assert mean(recall_at_1(vectors + offset, names, languages)) < 1
    vectors, names, languages = clouds(languages=["en", "es"])
    vectors[20:35] = np.roll(vectors[20:35], 1, axis=0)
    found = recall_at_1(vectors, names, languages)
    assert found["en", "es"].recall == found["es", "en"].recall == 5 / 20


def test_order_scale_and_rotation_change_nothing():
    vectors, names, languages = clouds()
    rng = np.random.default_rng(1)
    vectors = vectors + 0.8 * rng.normal(size=vectors.shape)
    expected = recall_at_1(vectors, names, languages)
    assert 0.2 < mean(expected) < 1
    shuffle = rng.permutation(len(vectors))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    moved = 7 * vectors[shuffle] @ rotation + 100
    again = recall_at_1(moved, np.array(names)[shuffle], np.array(languages)[shuffle])
    assert again == {pair: expected[pair] for pair in again}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("noise", [0, 1e-8])
def test_a_collapsed_space_is_at_chance_not_at_one(dtype, noise):
    collapsed = torch.full((24, 4), 0.1, dtype=dtype) + noise * torch.randn(24, 4)
    assert mean(recall_at_1(collapsed, *clouds(sentences=8)[1:])) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("vectors", "english", "spanish", "recall"),
    [
        ([[1, 0], [1, 0], [1, 0], [0, 1]], "a", "abc", (0.5, 1 / 3)),  # a tie counts half
        # Any recording of the sentence is right.
        ([[1, 0], [1, 0.1], [1, 0], [1, 0.05], [0, 1]], "aa", "aab", (1, 2 / 3)),
        # Without a counterpart: no query, but a distractor, here the nearest.
        ([[1, 0], [0, 1], [0, 1], [1, 0]], "ae", "as", (0, 0.5)),
    ],
)
def test_recall_by_hand(vectors, english, spanish, recall):
    """The same vectors mirrored, in a language that says other things, put the mean at 0."""
    count, languages = len(vectors), ["en"] * len(english) + ["es"] * len(spanish)
    names = [*english, *spanish, *(f"other {n}" for n in range(count))]
    vectors = np.concatenate([vectors, -np.array(vectors)])
    found = recall_at_1(vectors, names, [*languages, *["it"] * count])
    assert found["en", "es"] == pytest.approx(recall)


def test_means_by_what_was_heard():
    pairs = {("en", "es"): 1.0, ("en", "fr"): 0.5, ("es", "fr"): 0.0}
    assert means_by_hearing(pairs) == {"all": 0.5}
    found = means_by_hearing(pairs, ["en", "es"])
    assert found == {"all": 0.5, "among heard": 1.0, "with an unheard": 0.25}


def test_the_interval_resamples_sentences_and_shrinks_with_their_number():
    rng = np.random.default_rng(0)
    widths = []
    for count, copies in ((50, 1), (50, 4), (800, 1)):
        hits = np.repeat((rng.random(count) < 0.5).astype(float), copies)
        found = {("en", "es"): Hits(hits, np.repeat(np.arange(count), copies), 0.1)}
        (low, high) = recall_intervals(found)["all"]
        assert low < hits.mean() < high
        widths.append(high - low)
    expected = [2 * 1.96 * np.sqrt(0.25 / count) for count in (50, 50, 800)]
    assert widths == pytest.approx(expected, rel=0.15)
