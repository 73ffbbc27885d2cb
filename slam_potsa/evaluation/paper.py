"""Tables of the papers: their figures (`paper.yaml`), and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. Over seeds: the mean and a Student-t interval, and the median of
one paired test a seed: the test set is the same for all seeds, so pooling them would make p smaller
without new evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import Comparison, corpora, match, paired_test
from slam_potsa.evaluation.paper_runs import PAPER, PaperTest, TableRun, read_runs
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import SeedMean, over_seeds
from slam_potsa.evaluation.text_metrics import corpus_scores
from slam_potsa.text import table

GAP = "·"


@dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it, and what our runs have for it.

    Attributes:
        label: the paper's name for the system.
        system: the experiment whose runs fill it; None for rivals, not built here.
        paper: column -> [BLEU] or [BLEU, half-width of the 95 % interval].
        seeds, figures: of our runs, by column; a column that is missing was not measured.
        comparisons: by test, one a seed, of the systems that `PaperTable.comparisons` has for it.
    """

    label: str
    system: str | None
    paper: Mapping[str, Sequence[float]]
    seeds: Sequence[int] = ()
    figures: Mapping[str, SeedMean] = field(default_factory=dict)
    comparisons: Mapping[str, Sequence[Comparison]] = field(default_factory=dict)

    def ours(self, column: str) -> str:
        """ "31.84 ±0.09" over seeds, "31.84" with one seed."""
        found = self.figures.get(column)
        if found is None:
            return GAP
        width = "" if found.half_width is None else f" ±{found.half_width:.2f}"
        return f"{found.value:.2f}{width}"

    def p_value(self, test: str) -> float | None:
        """The median over seeds."""
        found = self.comparisons.get(test)
        return median(comparison.p_value for comparison in found) if found else None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        comparisons: by the system whose row shows the p value, (baseline, system) that are
            compared; `compared`: the same in words.
        notes: what a reader of the paper, and of our runs, should know.
        preset: whose way of scoring it has; `options`: what tells its rows' runs apart.
    """

    title: str
    columns: Sequence[str]
    tests: Sequence[PaperTest]
    rows: Sequence[PaperRow]
    comparisons: Mapping[str, Sequence[str]]
    compared: str
    notes: Sequence[str] = ()
    signatures: Sequence[str] = ()
    preset: str = "potsa"
    options: Sequence[str] = ()

    def text(self) -> str:
        """Aligned plain text, with legend, notes and signatures below."""
        head = ["", "", *self.columns, *(test.p_column for test in self.tests)]
        printed = table(head, self._body(), left=2)
        return "\n".join([self.title, "", printed, "", *self._foot()])

    def _body(self) -> Iterator[list[str]]:
        """A line of the paper's figures a row, and one of ours where runs can fill it."""
        for row in self.rows:
            paper = [" ±".join(f"{n:.2f}" for n in row.paper.get(c, ())) for c in self.columns]
            yield [row.label, "paper", *(text or GAP for text in paper), *[""] * len(self.tests)]
            if row.system:
                seeds = {0: "", 1: ", 1 seed"}.get(len(row.seeds), f", {len(row.seeds)} seeds")
                empty = GAP if row.system in self.comparisons else ""
                values = [row.p_value(test.name) for test in self.tests]
                p_values = [empty if value is None else f"{value:.3f}" for value in values]
                yield ["", f"ours{seeds}", *map(row.ours, self.columns), *p_values]

    def _foot(self) -> Iterator[str]:
        yield f"{GAP} not measured, or not in the paper"
        if any(len(row.seeds) > 1 for row in self.rows):
            yield "±x: 95 % Student-t interval over our seeds"
        if any(row.comparisons for row in self.rows):
            yield (
                f"p: {self.compared}; the median over the seeds that both have, of one "
                "paired bootstrap each over the test's utterances; it takes them for independent, "
                "but recordings of one sentence share a reference, so p is rather too small"
            )
        yield from (f"note: {note}" for note in self.notes)
        yield from self.signatures


def _table(found: dict[str, Any]) -> PaperTable:
    rows = []
    for label, system, *cells in found["rows"]:
        lists = [cell if isinstance(cell, list) else [cell] for cell in cells]
        pairs = [[figure for figure in pair if figure is not None] for pair in lists]
        rows.append(PaperRow(label, system, dict(zip(found["columns"], pairs, strict=False))))
    tests = [TESTS[name] for name in found["tests"]]
    return PaperTable(**(found | {"rows": rows, "tests": tests}))


TESTS = {name: PaperTest(name, **found) for name, found in PAPER["tests"].items()}
PAPER_TABLES = {number: _table(found) for number, found in PAPER["tables"].items()}


def fill_table(
    number: int | str,
    paths: Sequence[str | Path],
    *,
    convention: Convention | None = None,
    bootstrap: int = 1000,
) -> PaperTable:
    """Table `number` of POTSA's, or such as "ai-sta-2", with the scores of runs.

    Args:
        paths: run directories or folders of them, in any order; none gives the paper's figures.
        convention: how text is compared; by default sacrebleu's zh tokeniser, cased.
        bootstrap: resamples of the paired tests; 0: none.

    Raises InputError with all that is wrong with the runs (`read_runs`).
    """
    from tqdm import tqdm

    paper = PAPER_TABLES[number]
    convention = replace(convention or Convention(), more_bleu={})
    systems = [row.system for row in paper.rows if row.system]
    runs, notes = read_runs(paths, systems, paper.tests, paper.options)
    of_system: dict[str | None, list[TableRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        of_system[run.system].append(run)
    rows: list[PaperRow] = []
    signatures: list[str] = []
    for row in tqdm(paper.rows, desc=f"table {number}", unit="row", disable=None, leave=False):
        filled, used = _filled(row, paper, of_system[row.system], convention)
        pair = [of_system[name] for name in paper.comparisons.get(row.system, ())]
        if pair and bootstrap:
            found = _compared(*pair, paper.tests, convention=convention, samples=bootstrap)
            filled = replace(filled, comparisons=found)
            used += [f"p|{c.signature}" for of_test in found.values() for c in of_test]
        rows.append(filled)
        signatures += used
    signatures = list(dict.fromkeys(signatures))
    return replace(paper, rows=rows, notes=[*paper.notes, *notes], signatures=signatures)


def _filled(
    row: PaperRow, paper: PaperTable, runs: Sequence[TableRun], convention: Convention
) -> tuple[PaperRow, list[str]]:
    """(The row with the figures of its runs, the signatures.)"""
    values: dict[str, list[float]] = defaultdict(list)
    signatures = []
    for run, test in product(runs, paper.tests):
        if test.name in run.tests:
            columns, used = _scores(test, run.tests[test.name], convention)
            signatures += used
            for column in filter(columns.__contains__, paper.columns):
                values[column].append(columns[column])
    figures = {column: over_seeds(found) for column, found in values.items()}
    return replace(row, seeds=[run.seed for run in runs], figures=figures), signatures


def _scores(
    test: PaperTest, items: Sequence[Prediction], convention: Convention
) -> tuple[dict[str, float], list[str]]:
    """(A test's measure by column, their mean where there are all; the signatures.)"""
    names = ("WER", "CER") if test.metric == "error rate" else ("BLEU",)
    spoken = [corpus.items for corpus in corpora(items) if corpus.kind == "language"]
    own = {(rows[0].language, rows[0].target_language): rows for rows in spoken}
    columns, signatures = {}, []
    for column, direction in test.columns.items():
        if direction in own:
            scores = corpus_scores(own[direction], convention, 0)
            (name,) = filter(scores.__contains__, names)
            columns[column] = scores[name].value
            signatures.append(f"{name}|{scores[name].signature}")
    if test.average and len(columns) == len(test.columns):
        columns[test.average] = fmean(columns.values())
    return columns, signatures


def _compared(
    old: Sequence[TableRun], new: Sequence[TableRun], tests: Sequence[PaperTest], **options: Any
) -> dict[str, list[Comparison]]:
    """By test, for each seed that both have: the paired test of BLEU, all languages pooled."""
    found: dict[str, list[Comparison]] = {}
    olds = {run.seed: run.tests for run in old}
    for test, run in product([test.name for test in tests], new):
        before = olds.get(run.seed, {})
        if test in before and test in run.tests:
            pairs = match(before[test], run.tests[test])
            bleu, _ = paired_test(f"{test}, seed {run.seed}", pairs, **options)
            found.setdefault(test, []).append(bleu)
    return found
