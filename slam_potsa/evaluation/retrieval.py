"""Cross-lingual retrieval: does a sentence find itself in another language? (POTSA §4, Fig. 3)

The paper reports R@1 without saying how vectors are pooled, compared or drawn. Here, said so:
vectors are what the caller pooled (mean over valid tokens), the mean over *all* vectors is taken
away, and the cosine decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slam_potsa.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# Cosines closer than this are a tie, and vectors this small beside the others are zero: what is
# left of them is rounding (vectors come as float32), and rounding must not decide who is found.
TIE = 1e-7
NOTHING = 1e-6


@dataclass(frozen=True)
class PairRecall:
    """R@1 from one language into another.

    Attributes:
        recall: share of queries whose nearest candidate is the same sentence, 0 to 1.
        chance: what random vectors would reach in expectation.
        queries: recordings of the query language whose sentence the other language has.
        candidates: recordings of the other language, all of them.
    """

    recall: float
    chance: float
    queries: int
    candidates: int


@dataclass(frozen=True)
class Retrieval:
    """R@1 of all ordered language pairs.

    Attributes:
        pairs: (query language, candidate language) -> PairRecall.
        means: unweighted means over pairs: "all"; with `heard` given also "among heard" (both
            heard in training) and "with an unheard" (at least one of the two was not), where
            there are such pairs.
        centered: whether the mean of all vectors was taken away.
    """

    pairs: dict[tuple[str, str], PairRecall]
    means: dict[str, float]
    centered: bool

    def as_dict(self) -> dict[str, Any]:
        """For JSON; pairs are written "fr→it"."""
        pairs = {f"{a}→{b}": vars(recall) for (a, b), recall in self.pairs.items()}
        return {"means": self.means, "pairs": pairs, "centered": self.centered}

    def text(self) -> str:
        """An aligned matrix, query languages down, candidate languages across, in per cent."""
        languages = list(dict.fromkeys(language for pair in self.pairs for language in pair))
        lines = ["".join(f"{language:>7}" for language in ("R@1", *languages))]
        for a in languages:
            cells = [self.pairs.get((a, b)) for b in languages]
            shown = [f"{100 * cell.recall:7.1f}" if cell else f"{'·':>7}" for cell in cells]
            lines.append(f"{a:>7}" + "".join(shown))
        return "\n".join(lines + [f"{name}: {100 * mean:.1f}" for name, mean in self.means.items()])


def recall_at_1(
    vectors: Any,
    sentences: Sequence[str],
    languages: Sequence[str],
    *,
    heard: Iterable[str] | None = None,
    center: bool = True,
) -> Retrieval:
    """R@1 for every ordered pair of languages (a, b): a's recordings search among b's.

    `hit(i) = |{j in B*(i) : s_j = s_i}| / |B*(i)|` with `B*(i)` the candidates of language b whose
    cosine with query i is largest, and `s` the sentence; recall is its mean over the queries.
    So a tie counts as the luck of drawing one of the tied, and a space that collapsed to a point
    gets exactly chance, not 1. Of several recordings of a sentence any one is a hit, and each is a
    query of its own. Queries without a counterpart in b are left out; candidates without a
    counterpart in a stay, as distractors.

    Args:
        vectors: [n, D], one pooled vector a recording (array or tensor).
        sentences: n names of meanings. Sentences with the same text should have the same name.
        languages: n language codes.
        heard: the languages of training, for the means.
        center: take the mean of all n vectors away first. Pooled activations share a large common
            part that says nothing about the sentence. The mean of each *language* stays: taking
            it away would measure bias compensation that the model does not do.

    Raises:
        InputError: shapes that do not fit, values that are not finite, fewer than two languages,
            or no sentence that two languages share.
    """
    import numpy as np

    points = host_array(vectors)
    sentences, languages = np.asarray(sentences), np.asarray(languages)
    names = list(dict.fromkeys(languages.tolist()))
    _check(points, sentences, languages, names)
    units = _unit(points - points.mean(axis=0) if center else points, np.linalg.norm(points))
    pairs = {}
    for a in names:
        for b in names:
            if a != b:
                queries = (languages == a) & np.isin(sentences, sentences[languages == b])
                if queries.any():
                    pairs[a, b] = _pair(units, sentences, queries, languages == b)
    if not pairs:
        raise InputError("no sentence is spoken in two languages; expected parallel sentences")
    recalls = {pair: found.recall for pair, found in pairs.items()}
    return Retrieval(pairs, means_by_hearing(recalls, heard), center)


def means_by_hearing(
    pairs: Mapping[tuple[str, str], float], heard: Iterable[str] | None
) -> dict[str, float]:
    """Unweighted means over language pairs: "all"; with `heard` also "among heard" (both languages
    are in it) and "with an unheard" (at least one is not), each where there are such pairs.
    """
    groups = {"all": list(pairs.values())}
    if heard is not None:
        heard = set(heard)
        groups["among heard"] = [value for pair, value in pairs.items() if heard.issuperset(pair)]
        groups["with an unheard"] = [
            value for pair, value in pairs.items() if not heard.issuperset(pair)
        ]
    return {name: sum(values) / len(values) for name, values in groups.items() if values}


def _pair(
    units: np.ndarray, sentences: np.ndarray, queries: np.ndarray, candidates: np.ndarray
) -> PairRecall:
    similarity = units[queries] @ units[candidates].T
    same = sentences[queries][:, None] == sentences[candidates][None, :]
    nearest = similarity >= similarity.max(axis=1, keepdims=True) - TIE
    hits = (nearest & same).sum(axis=1) / nearest.sum(axis=1)
    return PairRecall(
        float(hits.mean()), float(same.mean()), int(queries.sum()), int(candidates.sum())
    )


def _unit(points: np.ndarray, scale: float) -> np.ndarray:
    """Rows of length 1; rows that are rounding beside `scale` (the norm of all) become zero."""
    import numpy as np

    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    real = lengths > NOTHING * scale / np.sqrt(len(points))
    return np.where(real, points / np.where(real, lengths, 1.0), 0.0)


def host_array(vectors: Any) -> np.ndarray:
    """float64 on the host, whatever came: tensors of any device and precision too."""
    import numpy as np

    if hasattr(vectors, "detach"):
        vectors = vectors.detach().double().cpu().numpy()
    return np.asarray(vectors, dtype=np.float64)


def _check(
    points: np.ndarray, sentences: np.ndarray, languages: np.ndarray, names: list[str]
) -> None:
    import numpy as np

    if points.ndim != 2:
        raise InputError(f"vectors: found shape {points.shape}, expected [n, D], one a recording")
    problems = []
    if not len(points) == len(sentences) == len(languages):
        problems.append(
            f"found {len(points)} vectors, {len(sentences)} sentences and {len(languages)} "
            "languages; expected as many of each"
        )
    if not np.isfinite(points).all():
        rows = np.flatnonzero(~np.isfinite(points).all(axis=1))
        problems.append(f"vectors: not finite in {len(rows)} rows, the first is row {rows[0]}")
    if len(names) < 2:
        problems.append(f"languages: found only {', '.join(names) or 'none'}; expected at least 2")
    if problems:
        raise InputError(problems)
