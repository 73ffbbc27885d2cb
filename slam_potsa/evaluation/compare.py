"""Is one system better than another on the same sentences? sacrebleu's paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.corpora import Corpus, match
from slam_potsa.evaluation.metrics import metrics_for, texts
from slam_potsa.evaluation.presets import Convention
from slam_potsa.text import table

TESTS = {"bs": "paired bootstrap", "ar": "approximate randomisation"}
# sacrebleu's own numbers: resamples for one test, trials for the other.
SAMPLES = {"bs": 1000, "ar": 10000}


@dataclass(frozen=True)
class Comparison:
    """One metric of two systems on one corpus.

    Attributes:
        name: of the corpus.
        metric: the column's name in the table of scores, "BLEU" or "chrF".
        baseline, system: the scores; difference: the second less the first.
        p_value: of the difference under the null hypothesis, of this test alone, not corrected for
            the number of tests; None for a mean of languages.
        signature: sacrebleu's, with the test, its samples and its seed.
        changed: how many sentences the two wrote differently; None for a mean.
    """

    name: str
    metric: str
    baseline: float
    system: float
    difference: float
    p_value: float | None = None
    signature: str = ""
    changed: int | None = None


def compare(
    corpora: Sequence[Corpus], baseline: Sequence[Prediction], **options: Any
) -> list[Comparison]:
    """Test a system against another one: BLEU and chrF of each of its corpora.

    `options` are those of `paired_test`. A mean of languages has both systems' means and no p.
    Raises InputError: utterances that only one system has, references that differ.
    """
    own = [item for corpus in corpora if corpus.kind == "language" for item in corpus.items]
    pair_of = {new: (old, new) for old, new in match(baseline, own)}
    found: dict[str, list[Comparison]] = {}
    for corpus in corpora:
        if corpus.kind == "mean":
            parts = zip(*(found[name] for name in corpus.parts), strict=True)
            found[corpus.name] = [_mean(corpus.name, of_metric) for of_metric in parts]
        else:
            pairs = [pair_of[item] for item in corpus.items]
            found[corpus.name] = paired_test(corpus.name, pairs, **options)
    return [comparison for of_corpus in found.values() for comparison in of_corpus]


def _mean(name: str, parts: Sequence[Comparison]) -> Comparison:
    old, new = fmean(part.baseline for part in parts), fmean(part.system for part in parts)
    return Comparison(name, parts[0].metric, old, new, new - old)


def paired_test(
    name: str,
    pairs: Sequence[tuple[Prediction, Prediction]],
    *,
    test: str = "bs",
    samples: int | None = None,
    convention: Convention | None = None,
) -> list[Comparison]:
    """Test BLEU and chrF of one corpus, of (baseline's, system's) predictions of each utterance.

    Args:
        test: "bs", paired bootstrap (Koehn 2004), or "ar", approximate randomisation
            (Riezler & Maxwell 2005).
        samples: resamples, or trials; by default sacrebleu's, 1,000 and 10,000.
    """
    from sacrebleu.significance import PairedTest

    metrics = metrics_for(pairs[0][0].target_language, convention or Convention())
    names = list(metrics)[:2]
    old, references = texts([old for old, _ in pairs])
    new, _ = texts([new for _, new in pairs])
    changed = sum(one != two for one, two in zip(old, new, strict=True))
    signatures, results = PairedTest(
        [("baseline", old), ("system", new)],
        {name: metrics[name] for name in names},
        [references],
        test,
        samples or SAMPLES[test],
    )()
    found = []
    for metric, (own_name, signature) in zip(names, signatures.items(), strict=True):
        first, second = results[own_name]
        p_value = max(float(second.p_value), least_p_value(test, changed))
        one, two = float(first.score), float(second.score)
        found.append(
            Comparison(name, metric, one, two, two - one, p_value, str(signature), changed)
        )
    return found


def least_p_value(test: str, changed: int) -> float:
    """The smallest p-value that `changed` differing sentences can support.

    sacrebleu counts the trials whose difference is *above* the observed one. Where few sentences
    differ most trials tie with it, and it says p = 1 / (samples + 1), significant, of systems that
    differ in one sentence, or in none. Randomisation has 2^changed equally likely outcomes, and two
    of them (exchange all, exchange none) are as extreme as the observed one: p >= 2^(1 - changed).
    For the bootstrap only the case of no difference is corrected.
    """
    by_randomisation = 2.0 ** (1 - changed) if test == "ar" else 0.0
    return by_randomisation if changed else 1.0


def comparisons_text(
    comparisons: Sequence[Comparison],
    test: str,
    head: tuple[str, str, str] = ("system against baseline", "baseline", "difference"),
) -> str:
    """One line a corpus, the metrics side by side, with the signatures below.

    `head` names what is compared, the other system's column, and that of the difference.
    """
    title, baseline, difference = head
    metrics = list(dict.fromkeys(item.metric for item in comparisons))
    heads = [title, *(cell for metric in metrics for cell in (metric, baseline, difference, "p"))]
    lines: dict[str, list[str]] = {}
    for item in comparisons:
        change = f"{round(item.difference, 1) + 0.0:+.1f}"  # never "-0.0"
        p_value = "" if item.p_value is None else f"{item.p_value:.4f}"
        cells = [f"{item.system:.1f}", f"{item.baseline:.1f}", change, p_value]
        lines.setdefault(item.name, [item.name]).extend(cells)
    signatures = [f"{item.metric}|{item.signature}" for item in comparisons if item.signature]
    note = f"p: {TESTS[test]}, each row by itself, not corrected for the number of rows"
    return "\n".join([table(heads, lines.values()), note, *dict.fromkeys(signatures)])
