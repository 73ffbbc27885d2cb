"""Cross-entropy of references: means, clusters of recordings of one sentence, paired tests."""

from dataclasses import replace

import numpy as np
import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation import sentence_loss
from slam_potsa.evaluation.scores import score


def rows(values, copies=1, ids=True, shift=0.0):
    """`values[i]` is the loss of sentence i, in each of `copies` recordings."""
    texts = "en", "you have ten messages", "you have ten"
    return [
        Prediction(f"{copy}-{i}", "it", "a.wav", *texts, sentence_id=sentence, cross_entropy=loss)
        for copy in range(copies)
        for i, loss in enumerate(value + shift for value in values)
        for sentence in [f"s{i}" if ids else None]
    ]


VALUES = np.random.default_rng(1).normal(1.0, 0.3, 60).tolist()


def test_the_interval_is_that_of_the_mean_of_independent_sentences():
    low, high = sentence_loss.interval(rows(VALUES), 20_000)
    error = 1.96 * np.std(VALUES) / len(VALUES) ** 0.5
    assert (low + high) / 2 == pytest.approx(np.mean(VALUES), abs=0.005)
    assert (high - low) / 2 == pytest.approx(error, rel=0.05)
    low, high = sentence_loss.interval(rows(VALUES, copies=4), 20_000)  # of the same sentences
    assert (high - low) / 2 == pytest.approx(error, rel=0.05)
    low, high = sentence_loss.interval(rows(VALUES, copies=4, ids=False), 20_000)
    assert (high - low) / 2 == pytest.approx(error / 2, rel=0.05)


@pytest.mark.parametrize(("shift", "significant"), [(-0.1, True), (0.0, False)])
def test_two_systems_are_compared_sentence_by_sentence(shift, significant):
    noise = np.random.default_rng(2).normal(0, 0.1, len(VALUES))
    system = rows([v + n for v, n in zip(VALUES, noise, strict=True)], shift=shift)
    table = score(system, baseline=rows(VALUES), bootstrap=100, samples=100)
    found = {(item.name, item.metric): item for item in table.comparisons}["it", "CE"]
    assert found.difference == pytest.approx(shift + noise.mean())
    assert (found.p_value < 0.05) == significant
    cells = table.text()
    assert f"{found.system:.3f}" in cells and f"{found.difference:+.3f}" in cells


def test_where_one_prediction_has_no_loss_the_column_is_left_out():
    few = rows(VALUES)
    assert "CE" in score(few, bootstrap=0).columns
    few[0] = replace(few[0], cross_entropy=None)
    assert "CE" not in score(few, bootstrap=0).columns
