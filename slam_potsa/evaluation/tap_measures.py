"""What is measured of a tap: do languages differ there, does meaning show?

`measure_tap` has all measures of a tap; each is a function of its own besides. Vectors [n, D] are
mean-pooled recordings, tokens a list of n recordings [t_i, D]; `sentences` and `languages` are n
names.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np
import torch

from slam_potsa.data.manifest import Utterance
from slam_potsa.evaluation.activations import Recorded, padded
from slam_potsa.objective.transport import TransportOptions, transport

Pair = tuple[str, str]  # of languages
# Cosines closer than this are a tie, and vectors this small beside the others are zero: what is
# left of them is rounding (vectors come as float32), and rounding must not decide who is found.
TIE = 1e-7
NOTHING = 1e-6
SEED = 12345  # of the resampling, sacrebleu's


@dataclass(frozen=True)
class MeasureSettings:
    """What the measures depend on besides the recordings; kept with the results.

    POTSA (4.4, Fig. 3) gives none of these; all are ours.
    """

    seed: int = 0  # of every draw: sentences, codebooks, t-SNE
    detail_sentences: int = 100  # sentences whose tokens are kept, and that figures show
    tokens: int = 80  # kept of a recording; where a tap has more, evenly spaced ones
    codes: int = 64  # K of a codebook; with hundreds of tokens a code 1 − JSD is little biased
    codebooks: int = 5  # of whose 1 − JSD the mean is taken; one alone moved it by 0.01 to 0.03
    shuffles: int = 20  # exchanges of languages a codebook, for the ceiling of 1 − JSD
    epsilon: float = TransportOptions.epsilon  # of the transport costs, times the mean cost
    perplexity: float = 30.0  # of t-SNE; a third of the points where there are fewer than 90


DEFAULTS = MeasureSettings()


def measure_tap(
    tap: str,
    recorded: Recorded,
    rows: Sequence[Utterance],
    detail: Sequence[int],
    *,
    heard: Collection[str],
    settings: MeasureSettings,
    device: Any = "cpu",
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """(numbers, pairs) of one tap, where the recordings `rows` have what was recorded.

    `numbers`: measure -> one number. `pairs`: measure -> two languages, such as "fr it" -> value;
    of R@1 the first searches the second, of the others they are in alphabetical order. Their means
    by `means_by_hearing` are among the numbers, such as "R@1, among heard", and the ends of its
    95 % interval, "R@1 low, among heard" and "R@1 high, among heard".

    Token i of a Q-Former comes from query i. Most of its variance says only which query that is
    (its "query share"), and histograms of codes would be histograms of queries; so each
    query's mean is taken away for 1 − JSD.

    `detail` are the rows whose tokens were kept.
    """
    vectors, tokens = recorded.pooled, [recorded.tokens[row] for row in detail]
    queries = tap not in ("encoder", "compensated")
    mean = torch.stack(tokens).mean(0) if queries else None
    spread = [row - mean for row in tokens] if queries else tokens
    sentences, languages = [row.sentence_id for row in rows], [row.language for row in rows]
    known = [sentences[row] for row in detail], [languages[row] for row in detail]
    hits = recall_hits(vectors, sentences, languages)
    overlap = code_overlap(spread, *known, settings)
    costs = transport_costs(tokens, *known, settings, device)
    pairs = {
        "R@1": {pair: float(found.hits.mean()) for pair, found in hits.items()},
        "R@1 chance": {pair: found.chance for pair, found in hits.items()},
        "1-JSD": overlap.pairs,
        "1-JSD ceiling": overlap.ceilings,
        "OT matched": {pair: matched for pair, (matched, _) in costs.items()},
        "OT mismatched": {pair: mismatched for pair, (_, mismatched) in costs.items()},
    }
    numbers = {}
    for measure, values in pairs.items():
        means = means_by_hearing(values, heard).items()
        numbers |= {f"{measure}, {group}": mean for group, mean in means}
    for group, (low, high) in recall_intervals(hits, heard).items():
        numbers |= {f"R@1 low, {group}": low, f"R@1 high, {group}": high}
    numbers |= {
        "1-JSD / ceiling, all": _ratio(numbers, "1-JSD", "1-JSD ceiling"),
        "OT ratio, all": _ratio(numbers, "OT matched", "OT mismatched"),
        "1-JSD spread": overlap.spread,
        "language share": share_between(vectors, languages),
    }
    if queries:
        owners = [number for row in tokens for number in range(len(row))]
        numbers["query share"] = share_between(torch.cat(tokens), owners)
    return numbers, {
        key: {" ".join(pair): value for pair, value in of.items()} for key, of in pairs.items()
    }


def _ratio(numbers: dict[str, float], above: str, below: str) -> float:
    """Of the means over all pairs; 1 where both are 0, as in a space that collapsed."""
    value, of = numbers[f"{above}, all"], numbers[f"{below}, all"]
    return value / of if of > 0 else 1.0


# -- retrieval (POTSA §4, Fig. 3) ------------------------------------------------------------------
#
# The paper reports R@1 without saying how vectors are pooled, compared or drawn. Here, said so:
# vectors are means over valid tokens, the mean over *all* vectors is taken away, and the cosine
# decides.


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
    return found


def recall_intervals(
    found: Mapping[Pair, Hits], heard: Collection[str] = (), resamples: int = 1000
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


def means_by_hearing(pairs: Mapping[Pair, float], heard: Collection[str] = ()) -> dict[str, float]:
    """Unweighted means over language pairs: "all"; with `heard`, the languages of training, also
    "among heard" (both are) and "with an unheard" (one is not), each where there are such pairs.
    """
    groups = {"all": [*pairs.values()], "among heard": [], "with an unheard": []}
    for pair, value in pairs.items() if heard else ():
        groups["among heard" if {*heard}.issuperset(pair) else "with an unheard"].append(value)
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


# -- overlap, transport costs, variance ------------------------------------------------------------


class Overlap(NamedTuple):
    """1 − JSD of language pairs in alphabetical order, and what it is to be read against."""

    pairs: dict[Pair, float]  # 1 − JSD, 0 to 1
    ceilings: dict[Pair, float]  # what it would be if the language said nothing
    spread: float  # over codebooks, of the mean over pairs; smaller differences say nothing


def code_overlap(
    tokens: Sequence[Any],
    sentences: Sequence[str],
    languages: Sequence[str],
    settings: MeasureSettings = DEFAULTS,
) -> Overlap:
    """1 − JSD: do two languages use the same part of the space? (POTSA 4.4, Fig. 3)

    The paper names "1-JSD" as a measure of "global distribution consistency" and does not define
    it: neither the distributions nor how they are estimated nor the logarithm. Here, said so:

        1. k-means with K centres on the tokens of all languages together is a codebook (several,
           with seeds of their own, and what follows is the mean over them);
        2. p_l = the share of language l's tokens that fall to each code, [K];
        3. JSD(p, q) = H((p + q)/2) − H(p)/2 − H(q)/2, in bits, so between 0 and 1.

    1: both languages use the codes equally often; 0: no code is used by both. It is counted over
    the sentences that both languages speak, so that it is not a difference of content. A sample's
    histograms differ by chance too: the **ceiling** is 1 − JSD with languages exchanged at random
    within each sentence. It moves as much from run to run as 1 − JSD itself, so two runs are
    compared by 1 − JSD / ceiling. And a space that collapsed to a point scores 1: read it beside
    R@1, which is chance there.
    """
    order = np.lexsort((np.asarray(languages), np.asarray(sentences)))
    sentences, languages = np.asarray(sentences)[order], np.asarray(languages)[order]
    arrays = [host_array(tokens[row]).astype(np.float32) for row in order]
    owners = np.repeat(np.arange(len(arrays)), [len(array) for array in arrays])
    shared = _speak_both(sentences, languages)
    found, ceilings = [], []
    for seed, labels in _codebooks(np.concatenate(arrays), settings):
        counts = np.zeros((len(arrays), settings.codes))
        np.add.at(counts, (owners, labels), 1)
        rng = np.random.default_rng(seed)
        found.append(_one_minus_jsd(counts, languages, shared))
        for _ in range(settings.shuffles):
            shuffled = np.lexsort((rng.random(len(sentences)), sentences))  # within each sentence
            ceilings.append(_one_minus_jsd(counts, languages[shuffled], shared))
    pairs, highest = (
        {pair: float(np.mean([each[pair] for each in books])) for pair in books[0]}
        for books in (found, ceilings)
    )
    return Overlap(pairs, highest, float(np.std([np.mean([*book.values()]) for book in found])))


def _codebooks(points: np.ndarray, settings: MeasureSettings) -> Iterator[tuple[int, np.ndarray]]:
    """(seed, the code of each token [n]) of every codebook; no code depends on their order."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows = (points + np.float32(0)).view(f"V{points.itemsize * points.shape[1]}")[:, 0]  # no −0
    _, first, places, counts = np.unique(
        rows, return_index=True, return_inverse=True, return_counts=True
    )
    how = {
        "n_clusters": min(settings.codes, len(first)),
        "n_init": 1,
        "batch_size": 1024,
        "init_size": 1024,  # the default, three batches, takes longer than all the rest
    }
    for seed in range(settings.seed, settings.seed + settings.codebooks):
        means = MiniBatchKMeans(random_state=seed, **how)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than codes: fewer
            yield seed, means.fit_predict(points[first], sample_weight=counts)[places]


def _speak_both(sentences: np.ndarray, languages: np.ndarray) -> dict[Pair, np.ndarray]:
    """Of each pair of languages with a common sentence, which recordings are of one [n]."""
    spoken = {name: sentences[languages == name] for name in sorted(set(languages.tolist()))}
    among = {
        (a, b): np.isin(sentences, np.intersect1d(spoken[a], spoken[b]))
        for a, b in combinations(spoken, 2)
    }
    return {pair: rows for pair, rows in among.items() if rows.any()}


def _one_minus_jsd(
    counts: np.ndarray, languages: np.ndarray, shared: dict[Pair, np.ndarray]
) -> dict[Pair, float]:
    """Of codes counted [recordings, K], over the sentences that both languages of a pair speak."""
    from scipy.spatial.distance import jensenshannon  # the square root of JSD

    found = {}
    for pair, among in shared.items():
        p, q = (counts[among & (languages == name)].sum(axis=0) for name in pair)
        found[pair] = float(1 - min(jensenshannon(p, q, base=2) ** 2, 1.0))
    return found


def transport_costs(
    tokens: Sequence[Any],
    sentences: Sequence[str],
    languages: Sequence[str],
    settings: MeasureSettings = DEFAULTS,
    device: Any = "cpu",
) -> dict[Pair, tuple[float, float]]:
    """Mean ⟨Γ, C⟩ of eq. 3: (of recordings that mean the same, of the same ones mixed up).

    C_ij = ‖x_i − y_j‖², divided by nothing, so the unit is that of the tap squared. For a pair of
    languages, sentence k's recording in a is set against sentence k's in b (matched), and against
    sentence k + 1's (mismatched): both means are over the same recordings, the first of each
    sentence, in an order drawn by the seed. A gap between the two opens without alignment too: hold
    it against a run without. Both falling together is a space that shrinks, and the ratio stays.
    Pairs of languages that share fewer than two sentences are left out.
    """
    first: dict[tuple[str, str], Any] = {}
    for row, place in enumerate(zip(languages, sentences, strict=True)):
        first.setdefault(place, tokens[row])
    found = {}
    for a, b in combinations(sorted(set(languages)), 2):
        shared = sorted(s for language, s in first if language == a and (b, s) in first)
        random.Random(f"costs:{settings.seed}").shuffle(shared)
        if len(shared) > 1:
            (x, x_mask), (y, y_mask) = (
                padded([first[language, name] for name in shared], device) for language in (a, b)
            )
            how = {"epsilon": settings.epsilon, "cost_scale": "none"}
            matched, mismatched = (
                transport(x, y.roll(-k, 0), x_mask, y_mask.roll(-k, 0), **how).cost for k in (0, 1)
            )
            found[a, b] = float(matched.double().mean()), float(mismatched.double().mean())
    return found


def share_between(vectors: Any, groups: Sequence[Any]) -> float:
    """The share of the variance of vectors [n, D] that lies between groups (η²), 0 to 1.

    `Σ_g n_g ‖m_g − m‖² / Σ_i ‖x_i − m‖²` with m the mean and m_g that of group g. Of languages it
    is 0 by construction for the recordings that the biases of eq. 1 were estimated on, so look at
    others. Of queries, 1 says that the tokens are the same whatever was said.
    """
    points, (names, places) = host_array(vectors), np.unique(groups, return_inverse=True)
    centered = points - points.mean(axis=0)
    sums = np.zeros((len(names), points.shape[1]))
    np.add.at(sums, places, centered)
    between = (np.square(sums).sum(axis=1) / np.bincount(places)).sum()
    total = np.square(centered).sum()
    return float(between / total) if total > 0 else 0.0
