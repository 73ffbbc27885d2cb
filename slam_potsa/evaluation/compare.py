"""Is one system better than another? Paired tests, the blind control, and several seeds.

**Paired tests** are sacrebleu's: two systems on the same sentences. **The blind control** is such a
comparison too: `slam-potsa decode RUN NAME.jsonl --shuffle-audio` answers every sentence to another
one's recording, and what that scores, a language model's prior and the prompt are worth on this
test; only the difference was heard. **Over seeds** there is a mean and Student's interval. A
bootstrap interval says how much the choice of test sentences matters, the interval over seeds how
much the training's randomness does; they answer different questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.corpus_score import metrics_for, texts
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import ScoreTable, corpora
from slam_potsa.text import some, table

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
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
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

    Raises:
        InputError: utterances that only one system has, references that differ, an unknown test.
    """
    pairs = match(baseline, system)
    of_system = {id(new): (old, new) for old, new in pairs}
    found: dict[str, list[Comparison]] = {}
    for corpus in corpora([new for _, new in pairs], seen, zero_shot):
        if corpus.kind == "mean":
            found[corpus.name] = _means(corpus.name, [found[name] for name in corpus.parts])
        else:
            own = [of_system[id(item)] for item in corpus.items]
            found[corpus.name] = paired_test(
                corpus.name, own, test=test, samples=samples, convention=convention
            )
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
        raise InputError(
            f"test: found {test!r}, expected 'bs' (paired bootstrap) or 'ar' (randomisation)"
        )
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
        cells = [f"{item.system:.1f}", f"{item.baseline:.1f}", signed(item.difference), p_value]
        lines.setdefault(item.name, [item.name]).extend(cells)
    signatures = [f"{item.metric}|{item.signature}" for item in comparisons if item.signature]
    note = f"p: {TESTS[test]}, each row by itself, not corrected for the number of rows"
    return "\n".join([table(heads, lines.values()), note, *dict.fromkeys(signatures)])


def signed(difference: float) -> str:
    """ "+1.4", and "+0.0" for what rounds to nothing from either side."""
    return f"{round(difference, 1) + 0.0:+.1f}"


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


def check_blind(blind: Sequence[Prediction], system: Sequence[Prediction]) -> None:
    """Raise InputError unless `blind` is a blind decoding of the same utterances.

    It is one if every row names another recording than the system's row does.
    """
    pairs = match(blind, system, ("the blind control", "the system"))
    same = [own.key for other, own in pairs if own.source == other.source]
    if same:
        raise InputError(
            f"{len(same)} of {len(pairs)} utterances of the blind control have the system's own "
            f"recording as source: {some(same)}; expected another sentence's for each, as "
            "slam-potsa decode --shuffle-audio writes it"
        )


@dataclass(frozen=True)
class SeedMean:
    """One score a seed of one system, and what they say together.

    Attributes:
        value: the mean.
        deviation: sample standard deviation (n − 1); None of one seed.
        half_width: of the 95 % interval; None of one seed.
    """

    values: tuple[float, ...]
    value: float
    deviation: float | None = None
    half_width: float | None = None


def over_seeds(values: Sequence[float]) -> SeedMean:
    """Mean and Student-t interval of one score a seed: x̄ ± t_{0.975, n−1} · s / √n.

    It takes the seeds' scores for normal and independent; it says how far another seed would move
    the mean, not how far another test set would.

    >>> mean = over_seeds([30.0, 32.0, 31.0])
    >>> f"{mean.value:.2f} ± {mean.half_width:.2f}"
    '31.00 ± 2.48'
    """
    count, mean = len(values), fmean(values)
    if count == 1:
        return SeedMean(tuple(values), mean)
    from scipy.stats import t

    deviation = stdev(values)
    half_width = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return SeedMean(tuple(values), mean, deviation, half_width)


def seed_means(tables: Sequence[ScoreTable]) -> dict[str, dict[str, SeedMean]]:
    """metric -> row -> its seeds, of what all tables have, in the first one's order."""
    rows = [{row.name: row.scores for row in found.rows} for found in tables]
    found: dict[str, dict[str, SeedMean]] = {}
    for metric in tables[0].columns:
        for name in rows[0]:
            if all(metric in of_table.get(name, {}) for of_table in rows):
                values = [of_table[name][metric].value for of_table in rows]
                found.setdefault(metric, {})[name] = over_seeds(values)
    return found


def seeds_text(means: Mapping[str, Mapping[str, SeedMean]]) -> str:
    """One table a measure: mean, standard deviation, t interval, and each seed's score."""
    parts = []
    for metric, rows in means.items():
        body = []
        for name, found in rows.items():
            low, high = (found.value + sign * (found.half_width or 0.0) for sign in (-1, 1))
            mean, deviation = f"{found.value:.2f}", f"{found.deviation:.2f}"
            seeds = [f"{value:.1f}" for value in found.values]
            body.append([name, mean, deviation, f"{low:.2f} – {high:.2f}", *seeds])
        files = [f"seed file {number}" for number in range(1, len(seeds) + 1)]
        head = [f"{metric} over {len(files)} seeds", "mean", "std", "95 % t interval", *files]
        parts.append(table(head, body))
    return "\n\n".join(parts)


def same_test_problems(files: Mapping[str, Sequence[Prediction]]) -> list[str]:
    """Where files do not decode the same utterances with the same references as the first one."""
    (first, expected), *rest = files.items()
    problems: list[str] = []
    for name, predictions in rest:
        with collecting(problems, name):
            match(expected, predictions, (first, name))
    return problems


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
