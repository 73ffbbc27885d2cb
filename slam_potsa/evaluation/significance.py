"""Is one system better than another on the same sentences? sacrebleu's paired tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import (
    Convention,
    aligned,
    corpora,
    metrics_for,
    sacrebleu_seed,
)
from slam_potsa.evaluation.scores.metrics import texts

TESTS = {"bs": "paired bootstrap", "ar": "approximate randomisation"}
# sacrebleu's own numbers: resamples for one test, trials for the other.
SAMPLES = {"bs": 1000, "ar": 10000}


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems.

    Attributes:
        name: of the corpus.
        metric: sacrebleu's name of it.
        baseline, system: the scores.
        p_value: of the difference under the null hypothesis.
        signature: sacrebleu's, with the test, its samples and its seed.
        changed: how many sentences the two wrote differently; None where it was not counted.
    """

    name: str
    metric: str
    baseline: float
    system: float
    p_value: float
    signature: str
    changed: int | None = None

    @property
    def difference(self) -> float:
        return self.system - self.baseline

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def compare(
    baseline: Sequence[Prediction],
    system: Sequence[Prediction],
    *,
    name: str = "all, pooled",
    test: str = "bs",
    samples: int | None = None,
    seed: int = 12345,
    convention: Convention | None = None,
) -> list[Comparison]:
    """Test `system` against `baseline` on the sentences of both, pooled.

    Args:
        baseline, system: predictions of the same utterances, in any order, one target language.
            For one language or group, give its predictions only.
        name: what the sentences are, kept in the result.
        test: "bs", paired bootstrap (Koehn 2004), or "ar", approximate randomisation
            (Riezler & Maxwell 2005).
        samples: resamples, or trials; by default sacrebleu's, 1,000 and 10,000.
        seed: of the resampling; part of the signature.
        convention: as in `score`.

    Returns:
        One Comparison for BLEU and one for chrF.

    Raises:
        InputError: utterances that only one system has, references that differ, several target
            languages, an unknown test.
    """
    from sacrebleu.significance import PairedTest

    pairs = match(baseline, system)
    targets = sorted({old.target_language for old, _ in pairs})
    if len(targets) > 1:
        raise InputError(f"target languages {', '.join(targets)}: expected one; compare each apart")
    _check_test(test)
    metrics = metrics_for(targets[0], convention or Convention())
    old_texts, references = texts([old for old, _ in pairs])
    systems = [("baseline", old_texts), ("system", texts([new for _, new in pairs])[0])]
    with sacrebleu_seed(seed):
        found = PairedTest(systems, metrics, [references], test, samples or SAMPLES[test])()
    changed = sum(a != b for a, b in zip(systems[0][1], systems[1][1], strict=True))
    signatures, scores = found
    return [
        Comparison(
            name,
            metric,
            float(scores[metric][0].score),
            float(scores[metric][1].score),
            max(float(scores[metric][1].p_value), least_p_value(test, changed)),
            str(signature),
            changed,
        )
        for metric, signature in signatures.items()
    ]


def least_p_value(test: str, changed: int) -> float:
    """The smallest p-value that `changed` differing sentences can support.

    sacrebleu counts the trials whose difference is *above* the observed one. Where few sentences
    differ most trials tie with it, and it says p = 1 / (samples + 1), significant, of systems that
    differ in one sentence, or in none. Randomisation has 2^changed equally likely outcomes, and two
    of them (exchange all, exchange none) are as extreme as the observed one: p >= 2^(1 - changed).
    For the bootstrap only the case of no difference is corrected.
    """
    if changed == 0:
        return 1.0
    return 2.0 ** (1 - changed) if test == "ar" else 0.0


def compare_corpora(
    baseline: Sequence[Prediction],
    system: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    test: str = "bs",
    samples: int | None = None,
    seed: int = 12345,
    convention: Convention | None = None,
) -> list[Comparison]:
    """`compare` for each language and each pooled group: the rows of `score`, less the means.

    The p-values are of single tests, not corrected for their number.
    """
    _check_test(test)
    pairs = match(baseline, system)
    partner = {id(new): old for old, new in pairs}
    found = corpora([new for _, new in pairs], seen, zero_shot)
    return [
        comparison
        for corpus in found
        if corpus.kind != "mean"
        for comparison in compare(
            [partner[id(item)] for item in corpus.items],
            corpus.items,
            name=corpus.name,
            test=test,
            samples=samples,
            seed=seed,
            convention=convention,
        )
    ]


def comparisons_text(comparisons: Sequence[Comparison], test: str) -> str:
    """One line a corpus, BLEU and chrF side by side, with the signatures below."""
    metrics = list(dict.fromkeys(item.metric for item in comparisons))
    found = {(item.name, item.metric): item for item in comparisons}
    head = ["system against baseline"]
    for metric in metrics:
        head += [metric, "baseline", "difference", "p"]
    body = []
    for name in dict.fromkeys(item.name for item in comparisons):
        line = [name]
        for item in (found[name, metric] for metric in metrics):
            difference = f"{round(item.difference, 1) + 0.0:+.1f}"
            line += [f"{item.system:.1f}", f"{item.baseline:.1f}", difference]
            line.append(f"{item.p_value:.4f}")
        body.append(line)
    signatures = dict.fromkeys(f"{item.metric}|{item.signature}" for item in comparisons)
    note = f"p: {TESTS[test]}, each row by itself, not corrected for the number of rows"
    return "\n".join([aligned([head, *body]), note, *signatures])


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
        "without a reference": [
            a.key for a, b in shared if a.reference is None and b.reference is None
        ],
    }
    problems = [
        f"{len(keys)} utterances are {what}: {_shown(keys)}; expected the same ones in both files"
        for what, keys in found.items()
        if keys
    ]
    if not shared and not problems:
        problems.append("found no predictions to compare; expected at least one")
    if problems:
        raise InputError(problems)
    return shared


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(map(repr, keys[:10])) + (", …" if len(keys) > 10 else "")


def _check_test(test: str) -> None:
    if test not in TESTS:
        raise InputError(
            f"test: found {test!r}, expected 'bs' (paired bootstrap) or 'ar' (randomisation)"
        )
