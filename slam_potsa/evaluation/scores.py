"""The scores of one prediction file, and what several, the seeds of one system, say together.

Nothing is computed here that sacrebleu or jiwer compute; all numbers keep a signature. The scores
equal the command line's, `sacrebleu REF -i PRED -m bleu chrf --confidence`, on the same sentences.

A bootstrap interval says how much the choice of test sentences matters, the interval over seeds how
much the training's randomness does; they answer different questions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import fmean, stdev
from typing import NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import Comparison, compare, comparisons_text, corpora
from slam_potsa.evaluation.guards import GUARDS, guard_signature, rates, watch
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.text_metrics import DIGITS, Score, corpus_scores, sacrebleu_metrics
from slam_potsa.text import one_line, table


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one corpus, whose name, kind and group are `Corpus`'s.

    Attributes:
        scores: every measure by the name of its column: "BLEU", "chrF" (or "chrF++"), then those
            that it has of the convention's further BLEUs, "WER", "CER" and "CE".
        guards: guard -> share of its sentences that it fired on, 0 to 1; empty for a mean.
    """

    name: str
    kind: str
    group: str
    sentences: int
    scores: Mapping[str, Score]
    guards: Mapping[str, float] = field(default_factory=dict)

    @property
    def bleu(self) -> Score:
        return self.scores["BLEU"]

    @property
    def chrf(self) -> Score:
        """chrF or chrF++, whichever the convention has."""
        return self.scores["chrF++" if "chrF++" in self.scores else "chrF"]


class WorstRow(NamedTuple):
    """A prediction of low chrF, and the guards that fired on it."""

    item: Prediction
    chrf: float
    guards: Sequence[str]


@dataclass(frozen=True)
class ScoreTable:
    """Languages first, then the groups.

    Attributes:
        guard_signature: by which rules the rows' guards fired.
        comparisons: with the baseline, by the paired test `test`.
        blind: BLEU, with the blind control as baseline: only the difference was heard.
        worst: the rows of lowest sentence chrF.
        synthetic: how many rows have a "target" or "audio" that a machine made.
    """

    rows: Sequence[ScoreRow]
    guard_signature: str = ""
    test: str = "bs"
    comparisons: Sequence[Comparison] = ()
    blind: Sequence[Comparison] = ()
    worst: Sequence[WorstRow] = ()
    synthetic: Mapping[str, int] = field(default_factory=dict)

    def row(self, name: str) -> ScoreRow:
        return {row.name: row for row in self.rows}[name]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    @property
    def signatures(self) -> list[str]:
        """Each signature once, those of BLEU first; then what of the test a machine made."""
        of_all = [(name, row.scores.get(name)) for name in self.columns for row in self.rows]
        found = [f"{name}|{one.signature}" for name, one in of_all if one and one.signature]
        made = [f"synthetic|{what}:{count:,} rows" for what, count in self.synthetic.items()]
        return [*dict.fromkeys(found), *made]

    def text(self) -> str:
        """Aligned plain text: scores, guards, signatures, and the comparisons."""
        rows = [row for row in self.rows if row.guards]
        rates = [[row.name, *(f"{100 * rate:.1f}" for rate in row.guards.values())] for row in rows]
        fired = table(["guard fired, %", *rows[0].guards], rates)
        parts = [self._scores_text(), f"{fired}\n{self.guard_signature}"]
        parts.append("\n".join(self.signatures))
        if self.comparisons:
            parts.append(comparisons_text(self.comparisons, self.test))
        if self.blind:
            head = ("blind control", "exchanged recordings", "heard")
            parts.append(comparisons_text(self.blind, self.test, head))
        return "\n\n".join(parts)

    def _scores_text(self) -> str:
        head, body = ["", "sentences"], [[row.name, row.sentences] for row in self.rows]
        for name in self.columns:
            of_rows = [row.scores.get(name) for row in self.rows]
            intervals = [found and found.interval_text() for found in of_rows]
            head += [name, "95 % interval"] if any(intervals) else [name]
            for found, interval, cells in zip(of_rows, intervals, body, strict=True):
                cells += [found and found.text(), *([interval] if any(intervals) else [])]
        return table(head, body)


def score(
    predictions: Sequence[Prediction],
    *,
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    bootstrap: int = 1000,
    convention: Convention | None = None,
    baseline: Sequence[Prediction] = (),
    blind: Sequence[Prediction] = (),
    test: str = "bs",
    samples: int | None = None,
    worst: int = 0,
) -> ScoreTable:
    """Score each language and each group of languages.

    Args:
        predictions: every one with a reference.
        seen: spoken languages that the system was trained on; they form the group "seen".
        zero_shot: spoken languages that it never heard; they form the group "zero-shot".
        bootstrap: resamples for the intervals, by sacrebleu's seed (12345, or the environment's
            SACREBLEU_SEED; it is part of the signature); 0 leaves the intervals out.
        convention: how text is compared; by default cased, raw text.
        baseline, blind: another system's predictions of the same utterances, and a blind control.
        test, samples: of the paired tests against these, as of `compare.paired_test`.
        worst: how many rows to keep of the lowest sentence chrF.

    Raises InputError: no predictions, missing references, a language in both groups, a tokeniser
    that is not installed, another system's file of other utterances.
    """
    convention = convention or Convention()
    found = corpora(predictions, seen, zero_shot)
    for target in sorted({item.target_language for item in predictions}):
        sacrebleu_metrics(target, convention)  # every tokeniser, before minutes of resampling
    fired = dict(zip(predictions, watch(predictions), strict=True))
    rows: dict[str, ScoreRow] = {}
    for corpus in found:
        if corpus.kind == "mean":
            scores, shares = _means([rows[name].scores for name in corpus.parts]), {}
        else:
            scores = corpus_scores(corpus.items, convention, bootstrap)
            shares = rates([fired[item] for item in corpus.items])
        facts = corpus.name, corpus.kind, corpus.group, len(corpus.items)
        rows[corpus.name] = ScoreRow(*facts, scores, shares)
    tested = {"test": test, "samples": samples, "convention": convention}
    heard = compare(found, blind, **tested) if blind else []
    return ScoreTable(
        list(rows.values()),
        guard_signature(),
        test,
        compare(found, baseline, **tested) if baseline else [],
        [item for item in heard if item.metric == "BLEU"],
        _by_chrf(fired, convention)[:worst] if worst else [],
        Counter(item.synthetic for item in predictions if item.synthetic),
    )


def _means(parts: Sequence[Mapping[str, Score]]) -> dict[str, Score]:
    """The mean of each measure that all the languages have."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {
        name: Score(fmean(part[name].value for part in parts), digits=parts[0][name].digits)
        for name in shared
    }


def _by_chrf(fired: Mapping[Prediction, Sequence[str]], convention: Convention) -> list[WorstRow]:
    """The rows by sentence chrF (sacrebleu's), ties in the file's order.

    chrF, since a sentence's BLEU is 0 as soon as it shares no four words with its reference.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF(lowercase=convention.lowercase, word_order=convention.chrf_word_order)
    rows = [
        WorstRow(
            item,
            chrf.sentence_score(item.prediction, [one_line(item.reference)]).score,
            [name for name in guards if name in GUARDS],
        )
        for item, guards in fired.items()
    ]
    return sorted(rows, key=lambda row: row.chrf)


# -- several seeds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedMean:
    """One score a seed of one system, and what they say together.

    Attributes:
        value: the mean.
        deviation: sample standard deviation (n − 1); None of one seed.
        half_width: of the 95 % interval; None of one seed.
    """

    values: Sequence[float]
    value: float
    deviation: float | None = None
    half_width: float | None = None

    @property
    def ends(self) -> tuple[float, float] | tuple[None, None]:
        half = self.half_width
        return (None, None) if half is None else (self.value - half, self.value + half)


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
        return SeedMean(values, mean)
    from scipy.stats import t

    deviation = stdev(values)
    half_width = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return SeedMean(values, mean, deviation, half_width)


def seed_means(tables: Sequence[ScoreTable]) -> dict[str, dict[str, SeedMean]]:
    """Metric -> row -> its mean, of what all tables have, in the first one's order."""
    means: dict[str, dict[str, SeedMean]] = {}
    seeds = [{row.name: row.scores for row in found.rows} for found in tables]
    for metric, row in product(tables[0].columns, seeds[0]):
        if all(metric in seed.get(row, {}) for seed in seeds):
            values = [seed[row][metric].value for seed in seeds]
            means.setdefault(metric, {})[row] = over_seeds(values)
    return means


def seeds_text(means: Mapping[str, Mapping[str, SeedMean]]) -> str:
    """One table a measure: mean, standard deviation, t interval, and each seed's score."""
    parts = []
    for metric, rows in means.items():
        shown = f"{{:.{DIGITS.get(metric, 2)}f}}".format
        body = []
        for name, found in rows.items():
            interval = " – ".join(map(shown, found.ends))
            numbers = map(shown, (found.value, found.deviation))
            body.append([name, *numbers, interval, *map(shown, found.values)])
        files = [f"seed file {number}" for number in range(1, len(found.values) + 1)]
        head = [f"{metric} over {len(files)} seeds", "mean", "std", "95 % t interval", *files]
        parts.append(table(head, body))
    return "\n\n".join(parts)
