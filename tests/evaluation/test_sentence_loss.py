"""Cross-entropy of references: means, clusters of recordings of one sentence, paired tests."""

from dataclasses import replace

import numpy as np
import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.scores import score
from slam_potsa.evaluation.text_metrics import cross_entropy


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


@pytest.mark.parametrize(
    ("how", "wider"), [({}, 1), ({"copies": 4}, 1), ({"copies": 4, "ids": False}, 0.5)]
)
def test_the_interval_is_that_of_the_mean_of_independent_sentences(how, wider):
    """Recordings of one sentence say nothing new; without ids each is a sentence."""
    found = cross_entropy(rows(VALUES, **how), 20_000)["CE"]
    error = wider * 1.96 * np.std(VALUES) / len(VALUES) ** 0.5
    assert (found.low + found.high) / 2 == pytest.approx(np.mean(VALUES), abs=0.005)
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.05)


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


def test_where_a_prediction_has_no_loss_the_column_is_left_out():
    english, other = (
        rows(VALUES),
        [replace(r, key=f"fr {r.key}", language="fr") for r in rows(VALUES)],
    )
    other[0] = replace(other[0], cross_entropy=None)
    table = score([*english, *other], baseline=[*english, *other], bootstrap=0, samples=2)
    assert [row.name for row in table.rows if "CE" in row.scores] == ["it"]
    assert [item.name for item in table.comparisons if item.metric == "CE"] == ["it"]
