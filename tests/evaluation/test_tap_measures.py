"""Each measure of a tap, and retrieval, against closed forms and constructed truth."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from slam_potsa.evaluation.tap_measures import (
    Hits,
    MeasureSettings,
    code_overlap,
    means_by_hearing,
    recall_hits,
    recall_intervals,
    share_between,
    transport_costs,
)

FEW = MeasureSettings(codes=16)


def labels(languages, sentences):
    return (
        [f"s{n:02d}" for n in range(sentences)] * len(languages),
        [language for language in languages for _ in range(sentences)],
    )


def world(clouds, sentences=12, tokens=20, seed=0):
    """tokens, sentences, languages: language l draws its tokens around `clouds[l]`."""
    rng, (names, languages) = np.random.default_rng(seed), labels([*clouds], sentences)
    return [clouds[name] + rng.normal(size=(tokens, 4)) for name in languages], names, languages


def mean(pairs):
    return np.mean([*pairs.values()])


def test_overlap_of_two_histograms_in_closed_form():
    """p = (1, 0), q = (1/2, 1/2): JSD = H(3/4, 1/4) − 1/2 bits."""
    tokens = [np.zeros((2, 1)), np.array([[0.0], [9.0]])]
    found = code_overlap(tokens, ["a", "a"], ["en", "es"])
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert found.pairs == {("en", "es"): pytest.approx(1.5 - entropy)} and found.spread == 0


def test_identical_clouds_overlap_fully_and_disjoint_ones_not_at_all():
    rows, names, languages = world({"en": 0.0, "es": 0.0})
    found = code_overlap(rows[:12] * 2, names, languages, FEW)
    assert found.pairs == found.ceilings == {("en", "es"): 1.0} and found.spread == 0
    rows = [*rows[:12] * 2, np.full((500, 4), 50.0)]  # one more, in Spanish only
    assert code_overlap(rows, [*names, "alone"], [*languages, "es"]).pairs["en", "es"] == 1.0
    apart = code_overlap(*world({"en": 0.0, "es": 100.0, "ru": -100.0}), FEW)
    assert all(value == pytest.approx(0, abs=1e-12) for value in apart.pairs.values())
    assert mean(apart.ceilings) > 0.5  # as many tokens, but the language says nothing


def test_fewer_tokens_lower_the_ceiling_and_not_the_share_of_it():
    clouds = {"en": 0.0, "es": 0.0, "ru": 0.0}
    few, many = (code_overlap(*world(clouds, 60, n, seed=3)) for n in (2, 20))
    assert mean(many.pairs) - mean(few.pairs) > 0.1  # only because there are more tokens
    for found in (few, many):
        assert mean(found.ceilings) < 1
        assert mean(found.pairs) == pytest.approx(mean(found.ceilings), rel=0.05)


def test_the_order_of_recordings_and_tokens_changes_nothing():
    rows, names, languages = world({"en": 0.0, "es": 0.5, "ru": 1.0})
    rng = np.random.default_rng(1)
    order = rng.permutation(len(rows))
    shuffled = [[names[n] for n in order], [languages[n] for n in order]]
    again = code_overlap([rng.permutation(rows[n]) for n in order], *shuffled)
    assert again == code_overlap(rows, names, languages)
    costs = transport_costs([torch.tensor(row) for row in rows], names, languages)
    assert transport_costs([torch.tensor(rows[n]) for n in order], *shuffled) == {
        pair: pytest.approx(cost) for pair, cost in costs.items()
    }


def points(offset=0.0, lengths=(3,)):
    """Sentence k is at (10 k, 10 k) in both languages; the second is `offset` beside it."""
    places = [10.0 * k + shift for shift in (0.0, offset) for k in range(4)]
    rows = [torch.full((lengths[n % len(lengths)], 2), x) for n, x in enumerate(places)]
    return rows, *labels(["en", "es"], 4)


@pytest.mark.parametrize("lengths", [(3,), (1, 2, 3)])  # padding does not count
def test_transport_costs_of_points(lengths):
    assert transport_costs(*points(1.0, lengths))["en", "es"][0] == pytest.approx(2.0)
    rows, names, languages = points(0.0, lengths)
    # A pair that shares one sentence has no costs.
    found = transport_costs([*rows, torch.zeros(2, 2)], [*names, "s00"], [*languages, "fr"])
    matched, mismatched = found.pop(("en", "es"))
    assert not found and matched == pytest.approx(0, abs=1e-3)
    # One of the three cycles through places 0, 10, 20, 30, with two coordinates each.
    cycles = [2 * 100 * sum(gaps) / 4 for gaps in ((1, 1, 1, 9), (1, 4, 1, 4), (4, 1, 4, 9))]
    assert any(mismatched == pytest.approx(cycle, rel=1e-4) for cycle in cycles)


@pytest.mark.parametrize(
    ("values", "share"),
    [([1, 1, -1, -1], 1), ([1, -1, 1, -1], 0), ([2, 0, 0, -2], 0.5), ([1] * 4, 0)],
)
def test_share_between_groups(values, share):
    vectors = np.array(values, dtype=float)[:, None]
    assert share_between(vectors, ["en", "en", "es", "es"]) == pytest.approx(share)


LANGUAGES = ["en", "es", "fr"]
Recall = namedtuple("Recall", "recall chance")


def recall_at_1(*arguments):
    found = recall_hits(*arguments).items()
    return {pair: Recall(float(of.hits.mean()), of.chance) for pair, of in found}


def clouds(sentences=20, width=16, languages=LANGUAGES, seed=0):
    """The same random vectors for every language, with their labels."""
    base = np.random.default_rng(seed).normal(size=(sentences, width))
    vectors = np.concatenate([base] * len(languages))
    return vectors, *labels(languages, sentences)


def mean_recall(found):
    return np.mean([pair.recall for pair in found.values()])


def test_identical_clouds_find_everything_and_a_permuted_one_its_fixed_points():
    vectors, names, languages = clouds()
    found = recall_at_1(vectors, names, languages)
    assert len(found) == 6 and mean_recall(found) == 1
    assert found["en", "fr"] == (1.0, pytest.approx(1 / 20))
    offset = np.repeat([0.0, 3.0, -3.0], 20)[:, None]  # of a language: not centered away
    assert mean_recall(recall_at_1(vectors + offset, names, languages)) < 1
    vectors, names, languages = clouds(languages=["en", "es"])
    vectors[20:35] = np.roll(vectors[20:35], 1, axis=0)
    found = recall_at_1(vectors, names, languages)
    assert found["en", "es"].recall == found["es", "en"].recall == 5 / 20


def test_order_scale_and_rotation_change_nothing():
    vectors, names, languages = clouds()
    rng = np.random.default_rng(1)
    vectors = vectors + 0.8 * rng.normal(size=vectors.shape)
    expected = recall_at_1(vectors, names, languages)
    assert 0.2 < mean_recall(expected) < 1
    shuffle = rng.permutation(len(vectors))
    rotation = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    moved = 7 * vectors[shuffle] @ rotation + 100
    again = recall_at_1(moved, np.array(names)[shuffle], np.array(languages)[shuffle])
    assert again == {pair: expected[pair] for pair in again}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("noise", [0, 1e-8])
def test_a_collapsed_space_is_at_chance_not_at_one(dtype, noise):
    collapsed = torch.full((24, 4), 0.1, dtype=dtype) + noise * torch.randn(24, 4)
    assert mean_recall(recall_at_1(collapsed, *clouds(sentences=8)[1:])) == pytest.approx(1 / 8)


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
