"""Tables 1 to 3 of the POTSA paper: its figures, and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. A language that was not decoded, and the average it belongs to,
stay empty. Over seeds: the mean and a Student-t interval (`compare.SeedMean`), and the median of
one paired test a seed: the test set is the same for all seeds, so pooling them would make p smaller
without new evidence.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import Comparison, SeedMean, match, paired_test
from slam_potsa.evaluation.paper import TARGET, TESTS, PaperRow, PaperTable, paper_table
from slam_potsa.evaluation.paper_runs import TableRun, read_runs
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import score
from slam_potsa.text import table as text_table

GAP = "·"
P_COLUMNS = {"test": "p", "zero_shot": "p zero-shot"}


@dataclass(frozen=True)
class Figure:
    """BLEU of one row and column.

    Attributes:
        mean: over seeds, with its interval where there are two or more.
        bootstrap: half-width of the 95 % bootstrap interval over utterances, with one seed only. Of
            an average it is that of all its utterances pooled, the nearest that sacrebleu has.
    """

    mean: SeedMean
    bootstrap: float | None = None

    def text(self) -> str:
        """ "31.84 ±0.09" over seeds, "31.84 (0.62)" with one seed."""
        shown = f"{self.mean.value:.2f}"
        if self.mean.half_width is not None:
            return f"{shown} ±{self.mean.half_width:.2f}"
        return shown if self.bootstrap is None else f"{shown} ({self.bootstrap:.2f})"

    def as_dict(self) -> dict[str, Any]:
        return self.mean.as_dict() | {"bootstrap_half_width": self.bootstrap}


@dataclass(frozen=True)
class FilledRow:
    """A row of the paper and what our runs have for it; a column that is missing was not measured.

    `comparisons` are by test, then by seed, of the systems that `PaperTable.comparisons` has for
    this row.
    """

    paper: PaperRow
    seeds: tuple[int, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    comparisons: Mapping[str, Mapping[int, Comparison]] = field(default_factory=dict)

    def p_value(self, test: str) -> float | None:
        """The median over seeds; None where no seed was compared."""
        found = self.comparisons.get(test)
        return median(comparison.p_value for comparison in found.values()) if found else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "label": self.paper.label,
            "system": self.paper.system,
            "paper": {
                "figures": dict(self.paper.figures),
                "half_widths": dict(self.paper.half_widths),
            },
            "seeds": list(self.seeds),
            "figures": {column: figure.as_dict() for column, figure in self.figures.items()},
            "comparisons": {
                test: {
                    "median_p_value": self.p_value(test),
                    "seeds": [{"seed": seed} | found.as_dict() for seed, found in seeds.items()],
                }
                for test, seeds in self.comparisons.items()
            },
        }


@dataclass(frozen=True)
class FilledTable:
    """A table of the paper with our runs in it; `text`, `markdown` and `as_dict` show it."""

    paper: PaperTable
    rows: tuple[FilledRow, ...]
    signatures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        paper = self.paper
        return f"POTSA Table {paper.number}, {paper.title}: BLEU, FLEURS x→{TARGET}"

    def text(self) -> str:
        """Aligned plain text, with legend, notes and signatures below."""
        table = text_table(self._head(), self._body(), left=2)
        return "\n".join([self.title, "", table, "", *self._foot()])

    def markdown(self) -> str:
        """The same for a README."""
        head = self._head()
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *self._body())]
        return "\n".join([f"**{self.title}**", "", *lines, "", *(f"- {n}" for n in self._foot())])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "table": self.paper.number,
            "title": self.title,
            "columns": list(self.paper.columns),
            "rows": [row.as_dict() for row in self.rows],
            "compared": self.paper.compared,
            "signatures": list(self.signatures),
            "notes": [*self.paper.notes, *self.notes],
        }

    def _head(self) -> list[str]:
        return ["", "", *self.paper.columns, *(P_COLUMNS[test] for test in self.paper.tests)]

    def _body(self) -> list[list[str]]:
        """A line of the paper's figures a row, and one of ours where runs can fill it."""
        lines = []
        for row in self.rows:
            columns, tests = self.paper.columns, self.paper.tests
            printed = [_printed(row.paper, column) for column in columns]
            lines.append([row.paper.label, "paper", *printed, *[""] * len(tests)])
            if row.paper.system is None:
                continue
            ours = [row.figures[c].text() if c in row.figures else GAP for c in columns]
            lines.append(["", _source(row), *ours, *(self._p_value(row, test) for test in tests)])
        return lines

    def _p_value(self, row: FilledRow, test: str) -> str:
        if row.paper.system not in self.paper.comparisons:
            return ""
        value = row.p_value(test)
        return GAP if value is None else f"{value:.3f}"

    def _foot(self) -> list[str]:
        figures = [figure for row in self.rows for figure in row.figures.values()]
        lines = [f"{GAP} not measured, or not in the paper"]
        if any(figure.mean.half_width is not None for figure in figures):
            lines.append("±x: 95 % Student-t interval over our seeds")
        if any(figure.bootstrap is not None for figure in figures):
            lines.append(
                "(x): one seed only: half-width of the 95 % bootstrap interval over utterances, of "
                "an average's pooled utterances; it says nothing about other seeds"
            )
        if any(row.comparisons for row in self.rows):
            lines.append(
                f"p: {self.paper.compared}; the median over the seeds that both have, of one "
                "paired bootstrap each over the test's utterances; it takes them for independent, "
                "but recordings of one sentence share a reference, so p is rather too small"
            )
        return [*lines, *(f"note: {n}" for n in (*self.paper.notes, *self.notes)), *self.signatures]


def fill_table(
    number: int,
    runs: Sequence[str | Path],
    *,
    convention: Convention | None = None,
    bootstrap: int = 1000,
    partial: bool = False,
    progress: bool = False,
) -> FilledTable:
    """Table `number` of the paper with the scores of `runs`.

    Args:
        runs: run directories or folders of them, in any order; none gives the paper's figures.
        convention: how text is compared; by default sacrebleu's zh tokeniser, cased.
        bootstrap: resamples of the paired tests, and of the interval of a row with one seed;
            0: neither.
        partial: a prediction file that is missing leaves a gap instead of an error.

    Raises InputError with all that is wrong with the runs (`paper_runs.read_runs`).
    """
    from tqdm import tqdm

    # The table has BLEU only.
    convention = dataclasses.replace(convention or Convention(), more_bleu={}, error_rate=None)
    table = paper_table(number)
    found, notes = read_runs(runs, table, partial=partial)
    of_system: dict[str, list[TableRun]] = defaultdict(list)
    for run in sorted(found, key=lambda run: run.seed):
        of_system[run.system].append(run)
    rows, signatures = [], {}
    for paper in tqdm(table.rows, desc=f"Table {number}", unit="row", disable=not progress):
        own = of_system.get(paper.system or "", [])
        figures, signed = _figures(own, table, convention, bootstrap)
        comparisons = _comparisons(paper, table, of_system, convention, bootstrap)
        of_pairs = [f"p|{c.signature}" for found in comparisons.values() for c in found.values()]
        signatures |= dict.fromkeys([*signed, *of_pairs])
        rows.append(FilledRow(paper, tuple(run.seed for run in own), figures, comparisons))
    return FilledTable(table, tuple(rows), tuple(signatures), tuple(notes))


def _figures(
    runs: Sequence[TableRun], table: PaperTable, convention: Convention, bootstrap: int
) -> tuple[dict[str, Figure], list[str]]:
    """(figure by column, signatures) of the runs of one row, one a seed."""
    values: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, float | None] = {}
    signatures: list[str] = []
    resamples = bootstrap if len(runs) == 1 else 0
    for run in runs:
        for test, predictions in run.tests.items():
            for column, value, width in _scores(
                test, predictions, convention, resamples, signatures
            ):
                values[column].append(value)
                widths[column] = width
    figures = {
        column: Figure(SeedMean(tuple(values[column])), widths[column])
        for column in table.columns
        if column in values
    }
    return figures, signatures


def _scores(
    test: str,
    predictions: Sequence[Prediction],
    convention: Convention,
    bootstrap: int,
    signatures: list[str],
) -> list[tuple[str, float, float | None]]:
    """(column, BLEU, bootstrap half-width) of each language of a test, and of all if none lacks."""
    if not predictions:
        return []
    languages, average = TESTS[test]
    scored = score(predictions, bootstrap=bootstrap, convention=convention)
    signatures += [text for text in scored.signatures if text.startswith("BLEU|")]
    found = {row.name: row for row in scored.rows if row.kind == "language"}
    columns = [(name, row.bleu.value, row.bleu.half_width) for name, row in found.items()]
    if set(found) == set(languages):
        mean = scored.row("all, mean of languages").bleu.value
        columns.append((average, mean, scored.row("all, pooled").bleu.half_width))
    return columns


def _comparisons(
    paper: PaperRow,
    table: PaperTable,
    of_system: Mapping[str, Sequence[TableRun]],
    convention: Convention,
    samples: int,
) -> dict[str, dict[int, Comparison]]:
    """The paired tests that the row shows, by test and by seed that both systems have."""
    if paper.system not in table.comparisons or samples < 1:
        return {}
    baseline, system = (
        {run.seed: run for run in of_system.get(name, ())}
        for name in table.comparisons[paper.system]
    )
    comparisons = {}
    for test in table.tests:
        seeds = [
            seed
            for seed in baseline.keys() & system.keys()
            if baseline[seed].tests.get(test) and system[seed].tests.get(test)
        ]
        if seeds:
            comparisons[test] = {
                seed: _compare(baseline[seed], system[seed], test, convention, samples)
                for seed in sorted(seeds)
            }
    return comparisons


def _compare(
    old: TableRun, new: TableRun, test: str, convention: Convention, samples: int
) -> Comparison:
    """The paired test of BLEU between two runs of one seed, all languages of `test` pooled."""
    name = f"{test}, seed {new.seed}"
    pairs = match(old.tests[test], new.tests[test])
    bleu, _ = paired_test(name, pairs, samples=samples, convention=convention)
    return bleu


def _printed(paper: PaperRow, column: str) -> str:
    if column not in paper.figures:
        return GAP
    figure, width = f"{paper.figures[column]:.2f}", paper.half_widths.get(column)
    return figure if width is None else f"{figure} ±{width:.2f}"


def _source(row: FilledRow) -> str:
    if not row.seeds:
        return "ours"
    count = len(row.seeds)
    return f"ours, {count} {'seed' if count == 1 else 'seeds'}"
