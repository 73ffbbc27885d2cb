"""Tables 1 to 3 of the POTSA paper: its figures, and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. A language that was not decoded, and the average it belongs to,
stay empty. Over seeds: the mean and a Student-t interval (`compare.over_seeds`), and the median of
one paired test a seed: the test set is the same for all seeds, so pooling them would make p smaller
without new evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from slam_potsa.evaluation.compare import Comparison, SeedMean, match, over_seeds, paired_test
from slam_potsa.evaluation.paper import TARGET, PaperRow, PaperTable, PaperTest, paper_table
from slam_potsa.evaluation.paper_runs import TableRun, read_runs
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import ScoreTable, score
from slam_potsa.text import table as text_table

GAP = "·"


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


@dataclass(frozen=True)
class FilledRow:
    """A row of the paper and what our runs have for it; a column that is missing was not measured.

    Attributes:
        comparisons: by test, then by seed, of the systems that `PaperTable.comparisons` has for
            this row.
        p_values: by test, the median over seeds.
    """

    paper: PaperRow
    seeds: tuple[int, ...] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    comparisons: Mapping[str, Mapping[int, Comparison]] = field(default_factory=dict)
    p_values: Mapping[str, float] = field(default_factory=dict)


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
            "rows": [asdict(row) for row in self.rows],
            "compared": self.paper.compared,
            "signatures": list(self.signatures),
            "notes": [*self.paper.notes, *self.notes],
        }

    def _head(self) -> list[str]:
        return ["", "", *self.paper.columns, *(test.p_column for test in self.paper.tests)]

    def _body(self) -> list[list[str]]:
        """A line of the paper's figures a row, and one of ours where runs can fill it."""
        lines = []
        for row in self.rows:
            columns, tests = self.paper.columns, self.paper.tests
            printed = [_printed(row.paper, column) for column in columns]
            lines.append([row.paper.label, "paper", *printed, *[""] * len(tests)])
            if row.paper.system is None:
                continue
            count = len(row.seeds)
            seeds = f", {count} {'seed' if count == 1 else 'seeds'}" if count else ""
            ours = [row.figures[c].text() if c in row.figures else GAP for c in columns]
            lines.append(["", f"ours{seeds}", *ours, *(self._p_value(row, t) for t in tests)])
        return lines

    def _p_value(self, row: FilledRow, test: PaperTest) -> str:
        if row.paper.system not in self.paper.comparisons:
            return ""
        value = row.p_values.get(test.name)
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
    convention = replace(convention or Convention(), more_bleu={}, error_rate=None)
    table = paper_table(number)
    found, notes = read_runs(runs, table, partial=partial)
    of_system: dict[str | None, list[TableRun]] = defaultdict(list)
    for run in sorted(found, key=lambda run: run.seed):
        of_system[run.system].append(run)
    rows: list[FilledRow] = []
    signatures: list[str] = []
    for paper in tqdm(table.rows, desc=f"Table {number}", unit="row", disable=not progress):
        own = of_system[paper.system]
        scored = [_scores(run, convention, bootstrap if len(own) == 1 else 0) for run in own]
        pair = table.comparisons.get(paper.system or "") if bootstrap else None
        systems = [of_system[name] for name in pair or ()]
        comparisons = _comparisons(*systems, table.tests, convention, bootstrap) if systems else {}
        signatures += [s for tests in scored for t in tests.values() for s in t.signatures]
        signatures += [f"p|{c.signature}" for of in comparisons.values() for c in of.values()]
        facts = tuple(run.seed for run in own), _figures(table, scored), comparisons
        rows.append(FilledRow(paper, *facts, _medians(comparisons)))
    bleu = [text for text in dict.fromkeys(signatures) if not text.startswith("chrF")]
    return FilledTable(table, tuple(rows), tuple(bleu), tuple(notes))


def _scores(run: TableRun, convention: Convention, bootstrap: int) -> dict[str, ScoreTable]:
    return {
        test: score(predictions, bootstrap=bootstrap, convention=convention, guards=False)
        for test, predictions in run.tests.items()
        if predictions
    }


def _figures(table: PaperTable, scored: Sequence[Mapping[str, ScoreTable]]) -> dict[str, Figure]:
    """By column, from the scores of one row's runs by test."""
    values: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, float | None] = {}
    for test in table.tests:
        for found in (tables[test.name] for tables in scored if test.name in tables):
            rows = {row.name: row.bleu for row in found.rows}
            columns = {name: (rows[name], rows[name]) for name in test.languages if name in rows}
            if len(columns) == len(test.languages):
                columns[test.average] = rows["all, mean of languages"], rows["all, pooled"]
            for column, (bleu, with_interval) in columns.items():
                values[column].append(bleu.value)
                widths[column] = with_interval.half_width
    return {
        column: Figure(over_seeds(values[column]), widths[column])
        for column in table.columns
        if column in values
    }


def _comparisons(
    baseline: Sequence[TableRun],
    system: Sequence[TableRun],
    tests: Sequence[PaperTest],
    convention: Convention,
    samples: int,
) -> dict[str, dict[int, Comparison]]:
    """By test and by seed that both have: the paired test of BLEU, all languages pooled."""
    olds = {run.seed: run.tests for run in baseline}
    found: dict[str, dict[int, Comparison]] = {}
    for test in (test.name for test in tests):
        for run in system:
            old, new = olds.get(run.seed, {}).get(test), run.tests.get(test)
            if old and new:
                bleu, _ = paired_test(
                    f"{test}, seed {run.seed}",
                    match(old, new),
                    samples=samples,
                    convention=convention,
                )
                found.setdefault(test, {})[run.seed] = bleu
    return found


def _medians(comparisons: Mapping[str, Mapping[int, Comparison]]) -> dict[str, float]:
    return {
        test: median(found.p_value for found in seeds.values() if found.p_value is not None)
        for test, seeds in comparisons.items()
    }


def _printed(paper: PaperRow, column: str) -> str:
    if column not in paper.figures:
        return GAP
    figure, width = f"{paper.figures[column]:.2f}", paper.half_widths.get(column)
    return figure if width is None else f"{figure} ±{width:.2f}"
