"""Cross-entropy of the references: how far a system is from them, whatever it wrote itself.

    CE = mean over sentences i of ce_i,  ce_i = −1/A_i Σ_a ln p(y_ia | speech_i, prompt, y_i,<a)

in nats a token, over the A_i tokens of a reference and its end; lower is better. It moves with
every change of a system, where BLEU stands still until a word changes, but compares only systems of
one LLM and one prompt. Intervals and tests resample sentences, not recordings: what is said in
several languages or by several voices goes together (a cluster bootstrap).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from slam_potsa.data.predictions import Prediction

NAME, DIGITS = "CE", 3
SEED = 12345


def losses(items: Sequence[Prediction]) -> list[float]:
    """ce_i of each prediction; empty where one of them has none."""
    found = [item.cross_entropy for item in items]
    return [] if None in found else found


def sentences_of(items: Sequence[Prediction]) -> list[Hashable]:
    """What each says; a prediction without a sentence id is a sentence by itself."""
    return [item.sentence_id or (item.key,) for item in items]


def resampled_means(
    items: Sequence[Prediction], values: Sequence[float], resamples: int
) -> np.ndarray:
    """[resamples] means of `values`, of as many sentences drawn with replacement; seeded."""
    clusters: dict[Hashable, list[float]] = defaultdict(list)
    for sentence, value in zip(sentences_of(items), values, strict=True):
        clusters[sentence].append(value)
    sums = np.array([sum(of) for of in clusters.values()])
    counts = np.array([len(of) for of in clusters.values()])
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(resamples, len(sums)))
    return sums[drawn].sum(1) / counts[drawn].sum(1)


def interval(items: Sequence[Prediction], resamples: int) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the resampled mean."""
    low, high = np.quantile(resampled_means(items, losses(items), resamples), (0.025, 0.975))
    return float(low), float(high)


def p_value(
    pairs: Sequence[tuple[Prediction, Prediction]], differences: Sequence[float], resamples: int
) -> float:
    """Two-sided, of the mean difference being 0: twice the rarer side of its resampled means.

    Never below 2^(1 − sentences), what their signs alone could show.
    """
    items = [new for _, new in pairs]
    means = resampled_means(items, differences, resamples)
    below, above = (means <= 0).sum(), (means >= 0).sum()
    least = 2.0 ** (1 - len({item.sentence_id or item.key for item in items}))
    return float(min(1.0, max(least, 2 * (min(below, above) + 1) / (resamples + 1))))
