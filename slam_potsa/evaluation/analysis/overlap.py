"""1 − JSD: do two languages use the same part of the space? (POTSA 4.4, Fig. 3)

The paper names "1-JSD" as a measure of "global distribution consistency" and does not define it:
neither the distributions nor how they are estimated nor the logarithm. Here, said so:

    1. k-means with K centres on the tokens of all languages together is a codebook (several, with
       seeds of their own, and what follows is the mean over them);
    2. p_l = the share of language l's tokens that fall to each code, [K];
    3. JSD(p, q) = H((p + q)/2) − H(p)/2 − H(q)/2, in bits, so between 0 and 1; reported is 1 − JSD.

1: both languages use the codes equally often; 0: no code is used by both. It is counted over the
sentences that both languages speak, so that it is not a difference of content.

Two things must be known to read it. A sample's histograms differ by chance too: the **ceiling** is
what 1 − JSD would be if the language said nothing, with as many tokens. It moves as much from run
to run as 1 − JSD itself, so two runs are compared by 1 − JSD / ceiling. And a space that collapsed
to a point scores 1: read it beside R@1 and the effective rank.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from slam_potsa.evaluation.retrieval import host_array, means_by_hearing

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Overlap:
    """1 − JSD of language pairs.

    Attributes:
        pairs: (a, b) in alphabetical order -> 1 − JSD, 0 to 1.
        means: unweighted, as those of `Retrieval`.
        ceiling: the mean over pairs with languages exchanged at random within each sentence.
        ceilings: the same of each pair; empty where an older analysis kept the mean only.
        spread: standard deviation over codebooks of the mean over pairs; differences of this size
            say nothing.
        codes: K, smaller than asked for where there are fewer distinct tokens.
        tokens: how many a codebook was fitted on.
    """

    pairs: dict[tuple[str, str], float]
    means: dict[str, float]
    ceiling: float
    spread: float
    codes: int
    tokens: int
    ceilings: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def relative(self) -> float | None:
        """Mean of 1 − JSD over mean of its ceiling; 1 where the language says nothing.

        The ceiling moves from run to run as much as 1 − JSD does, so only the two together can be
        compared. None where the ceiling is 0: one sentence, no code shared.
        """
        return self.means["all"] / self.ceiling if self.ceiling > 0 else None

    def relatives(self, *, own: bool = True) -> dict[tuple[str, str], float]:
        """Each pair's 1 − JSD over its own ceiling; over the mean ceiling where `own` is False.

        Pairs whose ceiling is 0 are left out.
        """
        ceilings = self.ceilings if own else dict.fromkeys(self.pairs, self.ceiling)
        return {
            pair: value / ceilings[pair]
            for pair, value in self.pairs.items()
            if ceilings.get(pair, 0) > 0
        }


def code_overlap(
    tokens: Sequence[Any],
    sentences: Sequence[str],
    languages: Sequence[str],
    *,
    heard: Iterable[str] | None = None,
    codes: int = 64,
    codebooks: int = 5,
    shuffles: int = 20,
    seed: int = 0,
) -> Overlap:
    """1 − JSD of every pair of languages that share a sentence.

    Args:
        tokens: the token vectors [t_i, D] of n recordings.
        sentences, languages: n names.
        codes: K of MiniBatchKMeans (scikit-learn), with one start, on squared Euclidean
            distances. The rows are put into an order of their own first, since mini-batches depend
            on it: the result does not depend on the order of recordings or tokens.
        codebooks: fitted with the seeds `seed`, `seed` + 1, ….
        shuffles: draws a codebook that the ceiling is the mean of.
    """
    import numpy as np

    arrays = [host_array(part) for part in tokens]
    owners = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    # Numbers instead of names from here on; a pair's come back at the end.
    sentences = np.unique(np.asarray(sentences), return_inverse=True)[1]
    names, languages = np.unique(np.asarray(languages), return_inverse=True)
    ordered, places = _distinct(np.concatenate(arrays))
    codes = min(codes, len(np.unique(places)))
    found, ceilings = [], []
    for number in range(codebooks):
        counts = np.zeros((len(arrays), codes))
        np.add.at(counts, (owners, _codes(ordered, codes, seed + number)[places]), 1)
        found.append(_pairs(counts, sentences, languages))
        ceilings.append(_ceiling(counts, sentences, languages, shuffles, seed + number))
    pairs, highest = (
        {
            (str(names[a]), str(names[b])): float(np.mean([each[a, b] for each in books]))
            for a, b in found[0]
        }
        for books in (found, ceilings)
    )
    spread = np.std([np.mean(list(each.values())) for each in found])
    return Overlap(
        pairs,
        means_by_hearing(pairs, heard),
        float(np.mean(list(highest.values()))),
        float(spread),
        codes,
        len(owners),
        highest,
    )


def one_minus_jsd(first: Any, second: Any) -> float:
    """1 − JSD in bits of two histograms [K], counts or shares.

    >>> one_minus_jsd([2, 2], [1, 1]), one_minus_jsd([1, 0], [0, 1])
    (1.0, 0.0)
    """
    from scipy.spatial.distance import jensenshannon  # the square root of JSD

    return float(1.0 - min(jensenshannon(first, second, base=2.0) ** 2, 1.0))


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows in the order of their bytes, float32; where in it each row of `points` is)."""
    import numpy as np

    points = np.ascontiguousarray(points, dtype=np.float32) + np.float32(0)  # no −0: other bytes
    rows = points.view(np.dtype((np.void, points.dtype.itemsize * points.shape[1])))[:, 0]
    order = np.argsort(rows, kind="stable")
    ordered = points[order]
    first = np.append(True, (ordered[1:] != ordered[:-1]).any(axis=1))
    places = np.empty(len(points), dtype=np.int64)
    places[order] = np.maximum.accumulate(np.where(first, np.arange(len(points)), 0))
    return ordered, places


def _codes(ordered: np.ndarray, codes: int, seed: int) -> np.ndarray:
    """The code of each row."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than codes: then fewer
        means = MiniBatchKMeans(codes, random_state=seed, n_init=1, batch_size=1024)
        return means.fit_predict(ordered)


def _pairs(
    counts: np.ndarray, sentences: np.ndarray, languages: np.ndarray
) -> dict[tuple[int, int], float]:
    import numpy as np

    found = {}
    for a, b in combinations(sorted(set(languages.tolist())), 2):
        shared = np.intersect1d(sentences[languages == a], sentences[languages == b])
        among = np.isin(sentences, shared)
        if len(shared):
            histograms = (counts[among & (languages == name)].sum(axis=0) for name in (a, b))
            found[a, b] = one_minus_jsd(*histograms)
    return found


def _ceiling(
    counts: np.ndarray, sentences: np.ndarray, languages: np.ndarray, shuffles: int, seed: int
) -> dict[tuple[int, int], float]:
    """Each pair's mean of 1 − JSD with languages exchanged at random within each sentence."""
    import numpy as np

    rng, order = np.random.default_rng(seed), _canonical(sentences, languages, counts)
    counts, sentences, languages = counts[order], sentences[order], languages[order]
    draws = []
    for _ in range(shuffles):
        exchanged = _exchanged(sentences, languages, rng)
        draws.append(_pairs(counts, sentences, exchanged))
    return {pair: float(np.mean([draw[pair] for draw in draws])) for pair in draws[0]}


def _canonical(sentences: np.ndarray, languages: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """An order of the recordings that does not depend on the one they came in."""
    import numpy as np

    return np.lexsort((*counts.T[::-1], languages, sentences))


def _exchanged(sentences: np.ndarray, languages: np.ndarray, rng: Any) -> np.ndarray:
    """The languages, exchanged at random among the recordings of a sentence."""
    import numpy as np

    exchanged = languages.copy()
    for sentence in np.unique(sentences):
        rows = np.flatnonzero(sentences == sentence)
        exchanged[rows] = languages[rng.permutation(rows)]
    return exchanged
