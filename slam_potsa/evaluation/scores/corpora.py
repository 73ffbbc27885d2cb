"""Which sentences are scored together: a language, a group as one corpus, a mean of languages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """Sentences with one score.

    Attributes:
        name: "fr" (or "fr→zh" with several target languages), "seen, pooled", "all, mean of
            languages".
        kind: "language", "pooled" or "mean".
        group: "seen", "zero-shot" or "all"; for a language the group it is in, or "".
        items: its predictions.
        parts: of a mean, the names of the languages that it averages.
    """

    name: str
    kind: str
    group: str
    items: tuple[Prediction, ...]
    parts: tuple[str, ...] = ()

    @property
    def target_language(self) -> str:
        return self.items[0].target_language


def corpora(
    predictions: Sequence[Prediction],
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
) -> list[Corpus]:
    """Each direction in the order seen, zero-shot, others; then each group, pooled and as a mean.

    A group that mixes target languages has no pooled corpus: no one tokeniser fits it.

    Raises:
        InputError: no predictions, missing references, or a language in both groups.
    """
    seen, zero_shot = list(seen), list(zero_shot)
    _check(predictions, seen, zero_shot)
    languages = _languages(predictions, seen, zero_shot)
    spoken = [corpus.items[0].language for corpus in languages]
    groups = {"seen": seen, "zero-shot": zero_shot, "all": spoken}
    return languages + [
        corpus
        for group, members in groups.items()
        for corpus in _group(group, members, predictions, languages)
    ]


def _check(predictions: Sequence[Prediction], seen: list[str], zero_shot: list[str]) -> None:
    problems = []
    if not predictions:
        problems.append("found no predictions to score; expected at least one")
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        shown = ", ".join(bare[:10]) + (", …" if len(bare) > 10 else "")
        problems.append(f"{len(bare)} predictions have no reference and cannot be scored: {shown}")
    both = sorted(set(seen) & set(zero_shot))
    if both:
        problems.append(f"languages both seen and zero-shot: {', '.join(both)}; expected one group")
    if problems:
        raise InputError(problems)


def _languages(
    predictions: Sequence[Prediction], seen: list[str], zero_shot: list[str]
) -> list[Corpus]:
    directions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        directions.setdefault((item.language, item.target_language), []).append(item)
    several_targets = len({target for _, target in directions}) > 1
    place = {language: number for number, language in enumerate(seen + zero_shot)}
    found = []
    for language, target in sorted(directions, key=lambda d: (place.get(d[0], len(place)), d)):
        name = f"{language}→{target}" if several_targets else language
        group = "seen" if language in seen else "zero-shot" if language in zero_shot else ""
        found.append(Corpus(name, "language", group, tuple(directions[language, target])))
    return found


def _group(
    group: str,
    members: Sequence[str],
    predictions: Sequence[Prediction],
    languages: Sequence[Corpus],
) -> list[Corpus]:
    items = tuple(item for item in predictions if item.language in members)
    parts = tuple(corpus.name for corpus in languages if corpus.items[0].language in members)
    if not items:
        return []
    found = [Corpus(f"{group}, mean of languages", "mean", group, items, parts)]
    if len({item.target_language for item in items}) == 1:
        found.insert(0, Corpus(f"{group}, pooled", "pooled", group, items))
    return found
