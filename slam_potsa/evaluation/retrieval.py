"""Cross-lingual retrieval: does a sentence find itself in another language? (POTSA §4, Fig. 3)

The paper reports R@1 without saying how vectors are pooled, compared or drawn. Here, said so:
vectors are what the caller pooled (mean over valid tokens), the mean over *all* vectors is taken
away, and the cosine decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

from slam_potsa.errors import InputError

Pair = tuple[str, str]  # of languages
# Cosines closer than this are a tie, and vectors this small beside the others are zero: what is
# left of them is rounding (vectors come as float32), and rounding must not decide who is found.
TIE = 1e-7
NOTHING = 1e-6
SEED = 12345  # of the resampling, sacrebleu's


class Hits(NamedTuple):
    """The queries from one language into another."""

    hits: np.ndarray  # [queries], of each, 0 to 1
    sentences: np.ndarray  # [queries], what each says
    chance: float


def recall_hits(
    vectors: Any, sentences: Sequence[str], languages: Sequence[str]
) -> dict[Pair, Hits]:
    """R@1 for every ordered pair of languages (a, b): a's recordings search among b's.

    `hit(i) = |{j in B*(i) : s_j = s_i}| / |B*(i)|` with `B*(i)` the candidates of language b whose
    cosine with query i is largest, and `s` the sentence; recall is its mean over the queries.
    So a tie counts as the luck of drawing one of the tied, and a space that collapsed to a point
    gets exactly chance, not 1. Of several recordings of a sentence any one is a hit, and each is a
    query of its own. Queries without a counterpart in b are left out; candidates without a
    counterpart in a stay, as distractors.

    The mean of all n vectors is taken away first: pooled activations share a large common part that
    says nothing about the sentence. The mean of each *language* stays: taking it away would measure
    bias compensation that the model does not do.

    Args:
        vectors: [n, D], one pooled vector a recording (array or tensor).
        sentences: n names of meanings. Sentences with the same text should have the same name.
        languages: n language codes.

    Raises InputError where no sentence is spoken in two languages.
    """
    points, sentences, languages = host_array(vectors), np.asarray(sentences), np.asarray(languages)
    names = list(dict.fromkeys(languages.tolist()))
    units = _unit(points - points.mean(axis=0), np.linalg.norm(points))
    found = {}
    for a, b in permutations(names, 2):
        queries = (languages == a) & np.isin(sentences, sentences[languages == b])
        if queries.any():
            candidates = languages == b
            similarity = units[queries] @ units[candidates].T
            same = sentences[queries][:, None] == sentences[candidates][None, :]
            nearest = similarity >= similarity.max(axis=1, keepdims=True) - TIE
            hits = (nearest & same).sum(axis=1) / nearest.sum(axis=1)
            found[a, b] = Hits(hits, sentences[queries], float(same.mean()))
    if not found:
        raise InputError("no sentence is spoken in two languages; expected parallel sentences")
    return found


def recall_intervals(
    found: Mapping[Pair, Hits], heard: Iterable[str] | None = None, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """The 2.5 % and 97.5 % quantiles of each mean of `means_by_hearing`, by a cluster bootstrap.

    What is resampled are sentences: all queries that say one go together, in every pair. The
    candidates among which they search stay.
    """
    names = np.unique(np.concatenate([of.sentences for of in found.values()]))
    weights = np.random.default_rng(SEED).multinomial(
        len(names), np.full(len(names), 1 / len(names)), resamples
    )
    means = {}
    for pair, of in found.items():
        where = np.searchsorted(names, of.sentences)
        sums, counts = np.zeros(len(names)), np.bincount(where, minlength=len(names))
        np.add.at(sums, where, of.hits)
        means[pair] = (weights @ sums) / np.maximum(weights @ counts, 1)
    quantiles = means_by_hearing(means, heard).items()
    return {group: tuple(np.quantile(mean, (0.025, 0.975)).tolist()) for group, mean in quantiles}


def means_by_hearing(
    pairs: Mapping[Pair, float], heard: Iterable[str] | None = None
) -> dict[str, float]:
    """Unweighted means over language pairs: "all"; with `heard`, the languages of training, also
    "among heard" (both are) and "with an unheard" (one is not), each where there are such pairs.
    """
    groups = {"all": list(pairs.values())}
    if heard is not None:
        known = set(heard)
        groups["among heard"] = [value for pair, value in pairs.items() if known.issuperset(pair)]
        unheard = [value for pair, value in pairs.items() if not known.issuperset(pair)]
        groups["with an unheard"] = unheard
    return {name: sum(values) / len(values) for name, values in groups.items() if values}


def host_array(vectors: Any) -> np.ndarray:
    """float64 on the host, whatever came: tensors of any device and precision too."""
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().double().cpu().numpy()
    return np.asarray(vectors, dtype=np.float64)


def _unit(points: np.ndarray, scale: float) -> np.ndarray:
    """Rows of length 1; rows that are rounding beside `scale` (the norm of all) become zero."""
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    real = lengths > NOTHING * scale / np.sqrt(len(points))
    return np.where(real, points / np.where(real, lengths, 1.0), 0.0)
