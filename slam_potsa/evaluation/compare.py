"""Is one system better than another on the same sentences? sacrebleu's paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.corpora import corpora, match
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
        baseline, system: the scores.
        p_value: of the difference under the null hypothesis; None for a mean of languages.
        signature: sacrebleu's, with the test, its samples and its seed.
        changed: how many sentences the two wrote differently; None for a mean.
    """

    name: str
    metric: str
    baseline: float
    system: float
    p_value: float | None = None
    signature: str = ""
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
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    test: str = "bs",
    samples: int | None = None,
    convention: Convention | None = None,
) -> list[Comparison]:
    """Test `system` against `baseline`: BLEU and chrF of each row of `score`.

    The p-values are of single tests, not corrected for their number; a mean has none.

    Args:
        baseline, system: predictions of the same utterances, in any order.
        seen, zero_shot, convention: as of `score`.
        test: "bs", paired bootstrap (Koehn 2004), or "ar", approximate randomisation
            (Riezler & Maxwell 2005).
        samples: resamples, or trials; by default sacrebleu's, 1,000 and 10,000.

    Raises InputError: utterances that only one system has, references that differ.
    """
    pairs = match(baseline, system)
    pair_of = {new: (old, new) for old, new in pairs}
    options = {"test": test, "samples": samples, "convention": convention}
    found: dict[str, list[Comparison]] = {}
    for corpus in corpora([new for _, new in pairs], seen, zero_shot):
        if corpus.kind == "mean":
            found[corpus.name] = _means(corpus.name, [found[name] for name in corpus.parts])
        else:
            own = [pair_of[item] for item in corpus.items]
            found[corpus.name] = paired_test(corpus.name, own, **options)
    return [comparison for of_corpus in found.values() for comparison in of_corpus]


def paired_test(
    name: str,
    pairs: Sequence[tuple[Prediction, Prediction]],
    *,
    test: str = "bs",
    samples: int | None = None,
    convention: Convention | None = None,
) -> list[Comparison]:
    """BLEU and chrF of one corpus, as (baseline's, system's) predictions; see `compare`."""
    from sacrebleu.significance import PairedTest

    if test not in TESTS:
        raise InputError(f"test: found {test!r}, expected one of {', '.join(TESTS)}")
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
        scores = float(first.score), float(second.score)
        found.append(Comparison(name, metric, *scores, p_value, str(signature), changed))
    return found


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
        p_value = "" if item.p_value is None else f"{item.p_value:.4f}"
        # + 0.0: what rounds to nothing from below is "+0.0" too.
        cells = [f"{item.system:.1f}", f"{item.baseline:.1f}"]
        cells += [f"{round(item.difference, 1) + 0.0:+.1f}", p_value]
        lines.setdefault(item.name, [item.name]).extend(cells)
    signatures = [f"{item.metric}|{item.signature}" for item in comparisons if item.signature]
    note = f"p: {TESTS[test]}, each row by itself, not corrected for the number of rows"
    return "\n".join([table(heads, lines.values()), note, *dict.fromkeys(signatures)])


def _means(name: str, parts: Sequence[Sequence[Comparison]]) -> list[Comparison]:
    """The mean of languages: of each metric, the mean of both systems' scores."""
    return [
        Comparison(
            name,
            of_metric[0].metric,
            fmean(item.baseline for item in of_metric),
            fmean(item.system for item in of_metric),
        )
        for of_metric in zip(*parts, strict=True)
    ]
