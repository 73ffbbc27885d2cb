"""Which sentences are scored together, and is one system better than another on them?

A group of languages ("seen", "joined", "zero-shot", "all") has two scores, and both are given:

* **pooled**: all sentences of the group are one corpus, so an interval exists. It resamples
  sentences, whose recordings in several languages go together; paired tests of BLEU and chrF
  (sacrebleu's) take recordings for independent;
* **mean of languages**: the unweighted mean of the languages' scores, which is what the papers
  average (POTSA, Tables 1 to 3). sacrebleu has no interval for it, so it has none here.

Paired tests are sacrebleu's. The blind control, sentences answered to exchanged recordings, is such
a comparison too: what it scores, the language model's prior and the prompt are worth on this test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import collecting, placed, refuse
from slam_potsa.evaluation.text_metrics import (
    CE,
    SEED,
    Convention,
    losses,
    p_of_difference,
    sacrebleu_metrics,
    texts,
)
from slam_potsa.files import atomic_write
from slam_potsa.text import one_line, some

SUFFIX = "_predictions.jsonl"


@dataclass(frozen=True)
class Corpus:
    """Sentences with one score."""

    name: str  # "fr" (or "fr→zh" with several targets), "seen, pooled", "all, mean of languages"
    kind: str  # "language", "pooled" or "mean"
    group: str  # "seen", "joined", "zero-shot" or "all"; for a language the group it is in, or ""
    items: tuple[Prediction, ...]
    parts: tuple[str, ...] = ()  # of a mean, the names of the languages that it averages


def corpora(
    predictions: Sequence[Prediction],
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    joined: Sequence[str] = (),
) -> list[Corpus]:
    """Each direction by its group, others last; then each group, pooled and as a mean.

    A group that mixes target languages has no pooled corpus: no one tokeniser fits it.
    Raises InputError: no predictions, missing references, or a language in two groups.
    """
    problems = [] if predictions else ["found no predictions to score; expected at least one"]
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        told = f"{len(bare)} predictions have no reference and cannot be scored: {some(bare)}"
        problems.append(told)
    groups = {"seen": seen, "joined": joined, "zero-shot": zero_shot}
    problems += [
        f"languages both {one} and {other}: {', '.join(sorted(both))}; expected one group"
        for one, other in combinations(groups, 2)
        if (both := {*groups[one]} & {*groups[other]})
    ]
    refuse(problems)
    group_of = {language: group for group, own in groups.items() for language in own}
    place = {language: number for number, language in enumerate(group_of)}
    directions: dict[tuple[str, str], list[Prediction]] = {}
    for item in predictions:
        directions.setdefault((item.language, item.target_language), []).append(item)
    several = len({target for _, target in directions}) > 1
    singles = []
    for language, target in sorted(directions, key=lambda d: (place.get(d[0], len(place)), d)):
        name, items = f"{language}→{target}" if several else language, directions[language, target]
        singles.append(Corpus(name, "language", group_of.get(language, ""), tuple(items)))
    found = list(singles)
    for group in (*groups, "all"):
        items = tuple(i for i in predictions if group in ("all", group_of.get(i.language)))
        parts = tuple(single.name for single in singles if group in ("all", single.group))
        if len({item.target_language for item in items}) == 1:
            found.append(Corpus(f"{group}, pooled", "pooled", group, items))
        if items:
            found.append(Corpus(f"{group}, mean of languages", "mean", group, items, parts))
    return found


def dump(folder: Path, found: Sequence[Corpus]) -> None:
    """Plain text files of each corpus, for other programs: sacrebleu's command line, COMET.

    Of a corpus `fr`: `fr.ref`, `fr.hyp`, and `fr.src` (transcripts, where all have one).
    """
    for corpus in (corpus for corpus in found if corpus.kind != "mean"):
        files = dict(zip(("hyp", "ref"), texts(corpus.items), strict=True))
        sources = [item.transcript for item in corpus.items]
        if None not in sources:
            files["src"] = list(map(one_line, sources))
        stem = re.sub(r"[^\w-]+", "-", corpus.name)  # "seen-pooled", "fr-zh"
        for ending, lines in files.items():
            atomic_write(folder / f"{stem}.{ending}", "".join(f"{line}\n" for line in lines))


def match(
    baseline: Sequence[Prediction],
    system: Sequence[Prediction],
    names: tuple[str, str] = ("the baseline", "the system"),
) -> list[tuple[Prediction, Prediction]]:
    """(baseline's, system's) prediction of each utterance, in the baseline's order.

    Raises InputError for utterances that only one has, or that are not the same in both.
    """
    old = {(item.key, item.target_language): item for item in baseline}
    new = {(item.key, item.target_language): item for item in system}
    shared = [(old[identity], new[identity]) for identity in old if identity in new]
    found = {
        f"decoded by {names[0]} only": [key for key, target in old if (key, target) not in new],
        f"decoded by {names[1]} only": [key for key, target in new if (key, target) not in old],
        "with two references": [a.key for a, b in shared if a.reference != b.reference],
        "in two languages": [a.key for a, b in shared if a.language != b.language],
    }
    refuse(
        f"{len(keys)} utterances are {what}: {some(keys)}; expected the same ones in both files"
        for what, keys in found.items()
        if keys
    )
    return shared


def same_test_problems(files: Mapping[str, Sequence[Prediction]]) -> list[str]:
    """Where files do not decode the same utterances with the same references as the first one."""
    problems: list[str] = []
    for name, predictions in list(files.items())[1:]:
        first, expected = next(iter(files.items()))
        with collecting(problems, name):
            match(expected, predictions, (first, name))
    return problems


def find_blind(path: Path, system: Sequence[Prediction]) -> Sequence[Prediction]:
    """The blind control beside a file; () where none is.

    It is `test_blind_predictions.jsonl` beside `test_predictions.jsonl`. Raises InputError unless
    it decodes the same utterances, each from another recording.
    """
    place = path.with_name(path.name.replace(SUFFIX, f"_blind{SUFFIX}"))
    if place == path or not place.is_file():
        return ()
    blind = read_predictions(place)
    with placed(place):
        pairs = match(blind, system, ("the blind control", "the system"))
        same = [own.key for other, own in pairs if own.source == other.source]
        told = f"{len(same)} of {len(pairs)} utterances have the system's own recording as source"
        refuse([f"{told}: {some(same)}; expected another sentence's for each"] * bool(same))
    return blind


# -- paired tests ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One measure of two systems on one corpus.

    p is of this test alone, not corrected for the number of tests; a mean of languages has none.
    """

    baseline: float
    system: float
    difference: float  # the second less the first
    p_value: float | None = None
    signature: str = ""  # sacrebleu's, with the test, its samples and its seed

    def cells(self, digits: int) -> list[str]:
        """System, baseline, difference and p, to be printed."""
        change = f"{round(self.difference, digits) + 0.0:+.{digits}f}"  # never "-0.0"
        p_value = "" if self.p_value is None else f"{self.p_value:.4f}"
        return [f"{self.system:.{digits}f}", f"{self.baseline:.{digits}f}", change, p_value]


def paired_test(
    pairs: Sequence[tuple[Prediction, Prediction]],
    convention: Convention | None = None,
    samples: int = 1000,
) -> dict[str, Comparison]:
    """Test BLEU, chrF and, where both have it, CE of (baseline's, system's) predictions.

    BLEU and chrF have a paired bootstrap (Koehn 2004), CE a bootstrap of sentences, of `samples`
    resamples. Where no text differs p is 1: sacrebleu would say
    1 / (samples + 1), since no resample's difference is above the observed one.
    """
    from sacrebleu.significance import PairedTest

    metrics = sacrebleu_metrics(pairs[0][0].target_language, convention or Convention())
    names, sides = list(metrics)[:2], [list(side) for side in zip(*pairs, strict=True)]
    (old, references), (new, _) = map(texts, sides)
    systems, measured = [("baseline", old), ("system", new)], {n: metrics[n] for n in names}
    test = PairedTest(systems, measured, [references], "bs", samples)
    found = {}
    signatures, results = test()
    for name, (own_name, signature) in zip(names, signatures.items(), strict=True):
        one, two = (float(result.score) for result in results[own_name])
        p_value = 1.0 if old == new else float(results[own_name][1].p_value)
        found[name] = Comparison(one, two, two - one, p_value, str(signature))
    if all(before_and_after := [losses(side) for side in sides]):
        differences = [two - one for one, two in zip(*before_and_after, strict=True)]
        p_value = p_of_difference(sides[1], differences, samples)
        how = f"cluster bootstrap of sentences|n:{samples}|seed:{SEED}"
        found[CE] = Comparison(*map(fmean, (*before_and_after, differences)), p_value, how)
    return found
