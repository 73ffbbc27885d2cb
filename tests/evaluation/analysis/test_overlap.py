from dataclasses import replace

import numpy as np
import pytest
import torch

from slam_potsa.evaluation.analysis.overlap import code_overlap, one_minus_jsd


def world(clouds, sentences=12, tokens=20, seed=0):
    """tokens, sentences, languages: language l draws its tokens around `clouds[l]`."""
    rng = np.random.default_rng(seed)
    languages = [name for name in clouds for _ in range(sentences)]
    rows = [clouds[name] + rng.normal(size=(tokens, 4)) for name in languages]
    return rows, [f"s{n}" for n in range(sentences)] * len(clouds), languages


def test_closed_forms_of_two_histograms():
    assert one_minus_jsd([3, 1, 0], [6, 2, 0]) == 1.0
    assert one_minus_jsd([1, 0, 0], [0, 2, 3]) == pytest.approx(0.0)
    # p = (1, 0), q = (1/2, 1/2): JSD = H(3/4, 1/4) − 1/2 bits.
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert one_minus_jsd([1, 0], [1, 1]) == pytest.approx(1.5 - entropy)
    assert one_minus_jsd([1, 0], [1, 1]) == pytest.approx(one_minus_jsd([5, 5], [7, 0]))


def test_identical_clouds_overlap_fully():
    rows, sentences, languages = world({"en": 0.0, "es": 0.0})
    rows[12:] = rows[:12]
    found = code_overlap(rows, sentences, languages, codes=16)
    assert found.pairs == {("en", "es"): 1.0} and found.means == {"all": 1.0}
    assert (found.ceiling, found.spread) == (1.0, 0.0)
    assert (found.codes, found.tokens) == (16, 480)


def test_disjoint_clouds_do_not_overlap():
    found = code_overlap(*world({"en": 0.0, "es": 100.0, "ru": -100.0}), codes=16, heard=["en"])
    assert all(value == pytest.approx(0, abs=1e-12) for value in found.pairs.values())
    assert found.means == pytest.approx({"all": 0, "with an unheard": 0}, abs=1e-12)
    assert found.ceiling > 0.5  # as many tokens, but the language says nothing


def test_one_cloud_reaches_its_ceiling_and_no_more():
    found = code_overlap(*world({"en": 0.0, "es": 0.0, "ru": 0.0}, sentences=40), codes=16)
    assert found.ceiling < 1
    assert found.means["all"] == pytest.approx(found.ceiling, abs=0.01)
    shifted = code_overlap(*world({"en": 0.0, "es": 0.0, "ru": 2.0}, sentences=40), codes=16)
    assert shifted.pairs["en", "ru"] < 0.7 < shifted.pairs["en", "es"]


def test_what_a_pair_reaches_is_told_relative_to_its_own_ceiling():
    found = code_overlap(*world({"en": 0.0, "es": 0.0, "ru": 2.0}, sentences=40), codes=16)
    assert set(found.ceilings) == set(found.pairs)
    assert found.ceiling == pytest.approx(np.mean(list(found.ceilings.values())))
    assert found.relative == pytest.approx(found.means["all"] / found.ceiling)
    own, mean = found.relatives(), found.relatives(own=False)
    for pair, value in found.pairs.items():
        assert own[pair] == pytest.approx(value / found.ceilings[pair])
        assert mean[pair] == pytest.approx(value / found.ceiling)
    one = replace(found, means={"all": 0.0}, ceiling=0.0, ceilings=dict.fromkeys(found.pairs, 0.0))
    assert one.relative is None and one.relatives() == one.relatives(own=False) == {}


def test_fewer_tokens_lower_the_ceiling_and_not_the_share_of_it():
    clouds = {"en": 0.0, "es": 0.0, "ru": 0.0}
    few, many = (code_overlap(*world(clouds, 60, n, seed=3)) for n in (2, 20))
    assert many.means["all"] - few.means["all"] > 0.1  # only because there are more tokens
    assert few.relative == pytest.approx(1, abs=0.05)
    assert many.relative == pytest.approx(1, abs=0.05)


def test_the_order_of_recordings_and_tokens_changes_nothing():
    rows, sentences, languages = world({"en": 0.0, "es": 0.5, "ru": 1.0})
    rng = np.random.default_rng(1)
    order = rng.permutation(len(rows))
    again = code_overlap(
        [rng.permutation(rows[n]) for n in order],
        [sentences[n] for n in order],
        [languages[n] for n in order],
    )
    assert again == code_overlap(rows, sentences, languages)


def test_languages_are_compared_on_the_sentences_both_speak():
    rows, sentences, languages = world({"en": 0.0, "es": 0.0})
    rows[12:] = rows[:12]
    rows.append(np.full((500, 4), 50.0))  # in Spanish only
    found = code_overlap(rows, [*sentences, "alone"], [*languages, "es"])
    assert found.pairs["en", "es"] == 1.0


def test_fewer_distinct_tokens_than_codes():
    rows = [torch.zeros(5, 3)] * 4
    found = code_overlap(rows, ["a", "b", "a", "b"], ["en", "en", "es", "es"])
    assert found.codes == 1 and found.pairs["en", "es"] == 1.0  # a collapsed space scores 1
