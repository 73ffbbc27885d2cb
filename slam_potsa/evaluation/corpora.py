"""Which sentences are scored together, and which files may be held against each other.

A group of languages ("seen", "zero-shot", "all") has two scores that differ, and both are given:

* **pooled**: all sentences of the group are one corpus, so an interval exists. It takes recordings
  for independent; where a sentence recurs in several languages it is narrower than it should be;
* **mean of languages**: the unweighted mean of the languages' scores, which is what the papers
  average (POTSA, Tables 1 to 3). sacrebleu has no interval for it, so it has none here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.text import some

SUFFIX = "_predictions.jsonl"


@dataclass(frozen=True)
class Corpus:
    """Sentences with one score.

    Attributes:
        name: "fr" (or "fr→zh" with several targets), "seen, pooled", "all, mean of languages".
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


def corpora(
    predictions: Sequence[Prediction], seen: Sequence[str] = (), zero_shot: Sequence[str] = ()
) -> list[Corpus]:
    """Each direction in the order seen, zero-shot, others; then each group, pooled and as a mean.

    A group that mixes target languages has no pooled corpus: no one tokeniser fits it.
    Raises InputError: no predictions, missing references, or a language in both groups.
    """
    problems = [] if predictions else ["found no predictions to score; expected at least one"]
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        told = f"{len(bare)} predictions have no reference and cannot be scored: {some(bare)}"
        problems.append(told)
    both = sorted(set(seen) & set(zero_shot))
    if both:
        problems.append(f"languages both seen and zero-shot: {', '.join(both)}; expected one group")
    refuse(problems)
    members = {"seen": list(seen), "zero-shot": list(zero_shot)}
    group_of = {language: group for group, own in members.items() for language in own}
    directions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        directions.setdefault((item.language, item.target_language), []).append(item)
    several_targets = len({target for _, target in directions}) > 1
    order = {language: number for number, language in enumerate(group_of)}
    found = []
    for language, target in sorted(directions, key=lambda d: (order.get(d[0], len(order)), d)):
        name = f"{language}→{target}" if several_targets else language
        items = tuple(directions[language, target])
        found.append(Corpus(name, "language", group_of.get(language, ""), items))
    languages = {corpus.name: corpus.items[0].language for corpus in found}
    for group, own in (members | {"all": list(languages.values())}).items():
        items = tuple(item for item in predictions if item.language in own)
        parts = tuple(name for name, language in languages.items() if language in own)
        if len({item.target_language for item in items}) == 1:
            found.append(Corpus(f"{group}, pooled", "pooled", group, items))
        if items:
            found.append(Corpus(f"{group}, mean of languages", "mean", group, items, parts))
    return found


def match(
    baseline: Sequence[Prediction],
    system: Sequence[Prediction],
    names: tuple[str, str] = ("the baseline", "the system"),
) -> list[tuple[Prediction, Prediction]]:
    """(baseline's, system's) prediction of each utterance, in the baseline's order.

    Raises InputError for utterances that only one has, and references that differ or lack.
    """
    old = {(item.key, item.target_language): item for item in baseline}
    new = {(item.key, item.target_language): item for item in system}
    shared = [(old[identity], new[identity]) for identity in old if identity in new]
    found = {
        f"decoded by {names[0]} only": [key for key, target in old if (key, target) not in new],
        f"decoded by {names[1]} only": [key for key, target in new if (key, target) not in old],
        "with two references": [a.key for a, b in shared if a.reference != b.reference],
        "in two languages": [a.key for a, b in shared if a.language != b.language],
        "without a reference": [a.key for a, b in shared if a.reference is None],
    }
    problems = [
        f"{len(keys)} utterances are {what}: {some(keys)}; expected the same ones in both files"
        for what, keys in found.items()
        if keys
    ]
    if not shared and not problems:
        problems.append("found no predictions to compare; expected at least one")
    refuse(problems)
    return shared


def same_test_problems(files: Mapping[str, Sequence[Prediction]]) -> list[str]:
    """Where files do not decode the same utterances with the same references as the first one."""
    problems: list[str] = []
    for name, predictions in list(files.items())[1:]:
        first, expected = next(iter(files.items()))
        with collecting(problems, name):
            match(expected, predictions, (first, name))
    return problems


def check_blind(blind: Sequence[Prediction], system: Sequence[Prediction]) -> None:
    """Raise InputError unless `blind` decodes the same utterances, each from another recording.

    `slam-potsa decode RUN NAME.jsonl --shuffle-audio` answers every sentence to another one's
    recording: what that scores, a language model's prior and the prompt are worth on this test.
    """
    pairs = match(blind, system, ("the blind control", "the system"))
    same = [own.key for other, own in pairs if own.source == other.source]
    if same:
        raise InputError(
            f"{len(same)} of {len(pairs)} utterances of the blind control have the system's own "
            f"recording as source: {some(same)}; expected another sentence's for each, as "
            "slam-potsa decode --shuffle-audio writes it"
        )


def find_blind(
    path: Path, predictions: Sequence[Prediction]
) -> tuple[Sequence[Prediction], list[str]]:
    """(The blind control that lies beside a file, or none; why one that lies there is left out.)

    `test_blind_predictions.jsonl` beside `test_predictions.jsonl`.
    """
    place = path.with_name(path.name.replace(SUFFIX, f"_blind{SUFFIX}"))
    blind: Sequence[Prediction] = ()
    reasons: list[str] = []
    if place != path and place.is_file():
        with collecting(reasons):
            blind = read_predictions(place)
            with collecting(reasons, place):
                check_blind(blind, predictions)
    return () if reasons else blind, reasons
