import numpy as np
import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis.probe import language_probe

LANGUAGES = ("en", "es", "fr")


def labels(sentences=30):
    names = [f"s{n}" for n in range(sentences)] * len(LANGUAGES)
    return names, [language for language in LANGUAGES for _ in range(sentences)]


def test_languages_far_apart_are_told_and_equal_ones_are_not():
    rng = np.random.default_rng(0)
    names, languages = labels()
    noise = rng.normal(size=(90, 5))
    apart = noise + np.repeat(20 * np.eye(5)[:3], 30, axis=0)
    found = language_probe(apart, names, languages)
    assert found.accuracy == 1.0 and found.chance == pytest.approx(1 / 3) and found.folds == 5
    assert found.recalls == {"en": 1.0, "es": 1.0, "fr": 1.0}
    assert language_probe(noise, names, languages).accuracy == pytest.approx(1 / 3, abs=0.15)


def test_a_sentence_is_never_in_both_halves():
    """Vectors that say which sentence and language it is, but nothing of languages in general."""
    rng = np.random.default_rng(0)
    names, languages = labels()
    vectors = np.concatenate([rng.normal(size=(90, 60))] * 2)  # each recording twice
    found = language_probe(vectors, names * 2, languages * 2)
    assert found.accuracy < 0.55  # told by heart it would be 1


def test_equal_class_means_are_told_below_chance():
    """What bias compensation does to the recordings its biases were estimated on."""
    rng = np.random.default_rng(0)
    names, languages = labels()
    vectors = rng.normal(size=(3, 30, 40))
    vectors -= vectors.mean(axis=1, keepdims=True)
    assert language_probe(vectors.reshape(90, 40), names, languages).accuracy < 0.2


def test_the_order_of_recordings_changes_nothing():
    rng = np.random.default_rng(2)
    names, languages = map(np.array, labels(10))
    vectors = rng.normal(size=(30, 4)) + np.repeat(np.eye(4)[:3], 10, axis=0)
    order = rng.permutation(30)
    again = language_probe(vectors[order], names[order], languages[order])
    assert again == language_probe(vectors, names, languages)


def test_rare_languages_count_as_much_as_others():
    rng = np.random.default_rng(0)
    languages = ["en"] * 60 + ["es"] * 4
    vectors = rng.normal(size=(64, 2))
    vectors[60:] += 30
    found = language_probe(vectors, [f"s{n}" for n in (*range(60), *range(4))], languages)
    assert found.folds == 4 and found.accuracy == 1.0


def test_too_few_sentences():
    with pytest.raises(InputError, match="two sentences each"):
        language_probe(np.ones((3, 2)), ["a", "b", "a"], ["en", "en", "es"])
