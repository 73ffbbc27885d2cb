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
from typing import Any, NamedTuple

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import Comparison, corpora, match, paired_test
from slam_potsa.evaluation.guards import GUARDS, guard_signature, rates, watch
from slam_potsa.evaluation.text_metrics import (
    DIGITS,
    Convention,
    Score,
    corpus_scores,
    sacrebleu_metrics,
)
from slam_potsa.text import one_line, table


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one corpus, whose name, kind and group are `Corpus`'s; each by its column."""

    name: str
    kind: str
    group: str
    sentences: int
    # "BLEU", "chrF" (or "chrF++"), then what it has of further BLEUs, "WER", "CER" and "CE".
    scores: Mapping[str, Score]
    guards: Mapping[str, float] = field(default_factory=dict)  # shares, 0 to 1; not of a mean
    against: Mapping[str, Comparison] = field(default_factory=dict)  # the baseline
    blind: Mapping[str, Comparison] = field(default_factory=dict)  # BLEU with the blind control

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
    """Languages first, then the groups."""

    rows: Sequence[ScoreRow]
    # How many rows have a "target" or "audio" that a machine made, by which rules guards fired,
    # and scores and comparisons came about, each once.
    signatures: Sequence[str] = ()
    worst: Sequence[WorstRow] = ()  # of the lowest sentence chrF

    def row(self, name: str) -> ScoreRow:
        return {row.name: row for row in self.rows}[name]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))

    def text(self) -> str:
        """Aligned plain text: scores, guards, the comparisons, and signatures."""
        rows = [row for row in self.rows if row.guards]
        rates = [[row.name, *(f"{100 * rate:.1f}" for rate in row.guards.values())] for row in rows]
        parts = [self._scores_text(), table(["guard fired, %", *rows[0].guards], rates)]
        parts += [
            self._compared_text(side, *head)
            for side, *head in (
                ("against", "system against baseline", "baseline", "difference"),
                ("blind", "blind control", "exchanged recordings", "heard"),
            )
            if getattr(self.rows[0], side)
        ]
        return "\n\n".join([*parts, "\n".join(self.signatures)])

    def _scores_text(self) -> str:
        head, body = ["", "sentences"], [[row.name, row.sentences] for row in self.rows]
        for name in self.columns:
            of_rows = [row.scores.get(name) for row in self.rows]
            intervals = [found and found.interval_text() for found in of_rows]
            head += [name, "95 % interval"] if any(intervals) else [name]
            for found, interval, cells in zip(of_rows, intervals, body, strict=True):
                cells += [found and found.text(), *([interval] if any(intervals) else [])]
        return table(head, body)

    def _compared_text(self, side: str, title: str, other: str, change: str) -> str:
        """One line a corpus, the measures side by side."""
        found = {row.name: getattr(row, side) for row in self.rows}
        metrics = dict.fromkeys(metric for of in found.values() for metric in of)
        body = [[name] for name in found]
        for metric, (cells, of) in product(metrics, zip(body, found.values(), strict=True)):
            cells += of[metric].cells(DIGITS.get(metric, 1)) if metric in of else [None] * 4
        head = [title, *(cell for metric in metrics for cell in (metric, other, change, "p"))]
        note = (
            "p: paired bootstrap, each row by itself, not corrected for the number of rows; of "
            "BLEU and chrF it is too small where recordings share a sentence"
        )
        return f"{table(head, body)}\n{note}"


def _mean_score(of: Sequence[Score]) -> Score:
    return Score(fmean(one.value for one in of), digits=of[0].digits)


def _mean_comparison(of: Sequence[Comparison]) -> Comparison:
    sides = zip(*((one.baseline, one.system, one.difference) for one in of), strict=True)
    return Comparison(*map(fmean, sides))


# What a row has, by measure -> what that of a mean of languages is.
MEASURED = {"scores": _mean_score, "against": _mean_comparison, "blind": _mean_comparison}


def score(
    predictions: Sequence[Prediction],
    *,
    seen: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    joined: Sequence[str] = (),
    bootstrap: int = 1000,
    convention: Convention | None = None,
    baseline: Sequence[Prediction] = (),
    blind: Sequence[Prediction] = (),
    samples: int = 1000,
    worst: int = 0,
) -> ScoreTable:
    """Score each language and each group of languages.

    Args:
        predictions: every one with a reference.
        seen: spoken languages that the system was trained on; they form the group "seen".
        zero_shot: spoken languages that it never heard; they form the group "zero-shot".
        joined: spoken languages that it heard without targets; they form the group "joined".
        bootstrap: resamples for the intervals, by sacrebleu's seed (12345, or the environment's
            SACREBLEU_SEED; it is part of the signature); 0 leaves the intervals out.
        convention: how text is compared; by default cased, raw text.
        baseline, blind: another system's predictions of the same utterances, and a blind control.
        samples: of the paired tests against these, as of `compare.paired_test`.
        worst: how many rows to keep of the lowest sentence chrF.

    Raises InputError: no predictions, missing references, a language in two groups, a tokeniser
    that is not installed, another system's file of other utterances.
    """
    convention = convention or Convention()
    found = corpora(predictions, seen, zero_shot, joined)
    for target in sorted({item.target_language for item in predictions}):
        sacrebleu_metrics(target, convention)  # every tokeniser, before minutes of resampling
    pairs = {
        side: {new: (old, new) for old, new in match(items, predictions)}
        for side, items in (("against", baseline), ("blind", blind))
        if items
    }
    fired = dict(zip(predictions, watch(predictions), strict=True))
    rows: dict[str, ScoreRow] = {}
    for corpus in found:
        facts = corpus.name, corpus.kind, corpus.group, len(corpus.items)
        if corpus.kind == "mean":
            rows[corpus.name] = ScoreRow(*facts, **_means([rows[name] for name in corpus.parts]))
            continue
        tested = {
            side: paired_test([pair_of[item] for item in corpus.items], convention, samples)
            for side, pair_of in pairs.items()
        }
        tested |= {"blind": {"BLEU": tested["blind"]["BLEU"]}} if "blind" in tested else {}
        scores = corpus_scores(corpus.items, convention, bootstrap)
        shares = rates([fired[item] for item in corpus.items])
        rows[corpus.name] = ScoreRow(*facts, scores, shares, **tested)
    made = Counter(item.synthetic for item in predictions if item.synthetic)
    signatures = [f"synthetic|{what}:{count:,} rows" for what, count in made.items()]
    measured = (getattr(row, side).items() for row in rows.values() for side in MEASURED)
    signed = {f"{name}|{one.signature}" for of in measured for name, one in of if one.signature}
    signatures += [guard_signature(), *sorted(signed)]
    return ScoreTable(list(rows.values()), signatures, _by_chrf(fired, convention, worst))


def _means(parts: Sequence[ScoreRow]) -> dict[str, dict[str, Any]]:
    """Of each measure that all the languages have."""
    found = {}
    for side, mean in MEASURED.items():
        own = [getattr(part, side) for part in parts]
        shared = [name for name in own[0] if all(name in of for of in own)]
        found[side] = {name: mean([of[name] for of in own]) for name in shared}
    return found


def _by_chrf(
    fired: Mapping[Prediction, Sequence[str]], convention: Convention, worst: int
) -> list[WorstRow]:
    """The `worst` rows by sentence chrF (sacrebleu's), ties in the file's order.

    chrF, since a sentence's BLEU is 0 as soon as it shares no four words with its reference.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF(lowercase=convention.lowercase, word_order=convention.chrf_word_order)
    rows = []
    for item, guards in fired.items() if worst else ():
        found = chrf.sentence_score(item.prediction, [one_line(item.reference)])
        rows.append(WorstRow(item, found.score, [name for name in guards if name in GUARDS]))
    return sorted(rows, key=lambda row: row.chrf)[:worst]


# -- several seeds ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SeedMean:
    """One score a seed of one system, and what they say together.

    `deviation` is the sample standard deviation (n − 1), low and high are the ends of the 95 %
    interval; of one seed all three are None.
    """

    values: Sequence[float]
    value: float  # the mean
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


def over_seeds(values: Sequence[float]) -> SeedMean:
    """Mean and Student-t interval of one score a seed: x̄ ± t_{0.975, n−1} · s / √n.

    It takes the seeds' scores for normal and independent; it says how far another seed would move
    the mean, not how far another test set would.

    >>> mean = over_seeds([30.0, 32.0, 31.0])
    >>> f"{mean.low:.2f} – {mean.high:.2f}"
    '28.52 – 33.48'
    """
    count, mean = len(values), fmean(values)
    if count == 1:
        return SeedMean(values, mean)
    from scipy.stats import t

    deviation = stdev(values)
    half_width = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return SeedMean(values, mean, deviation, mean - half_width, mean + half_width)


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
            interval = f"{shown(found.low)} – {shown(found.high)}"
            numbers = shown(found.value), shown(found.deviation), interval
            body.append([name, *numbers, *map(shown, found.values)])
        files = [f"seed file {number}" for number in range(1, len(found.values) + 1)]
        head = [f"{metric} over {len(files)} seeds", "mean", "std", "95 % t interval", *files]
        parts.append(table(head, body))
    return "\n\n".join(parts)
