"""Tables of the papers: their figures (`paper.yaml`), and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. Over seeds: the mean and a Student-t interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.compare import corpora
from slam_potsa.evaluation.paper_runs import PAPER, PaperTest, read_runs
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
    """

    label: str
    system: str | None
    paper: Mapping[str, Sequence[float]]
    seeds: Sequence[int] = ()
    figures: Mapping[str, SeedMean] = field(default_factory=dict)

    def lines(self, columns: Sequence[str]) -> Iterator[list[str]]:
        """The paper's figures, and below them ours where runs can fill the row."""
        paper = [" ±".join(f"{n:.2f}" for n in self.paper.get(c, ())) for c in columns]
        yield [self.label, "paper", *(text or GAP for text in paper)]
        if self.system:
            seeds = {0: "", 1: ", 1 seed"}.get(len(self.seeds), f", {len(self.seeds)} seeds")
            yield ["", f"ours{seeds}", *map(self._ours, columns)]

    def _ours(self, column: str) -> str:
        """ "31.84 ±0.09" over seeds, "31.84" with one seed."""
        if column not in self.figures:
            return GAP
        found = self.figures[column]
        width = "" if found.high is None else f" ±{found.high - found.value:.2f}"
        return f"{found.value:.2f}{width}"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        notes: what a reader of the paper, and of our runs, should know.
        preset: whose way of scoring it has; `options`: what tells its rows' runs apart.
    """

    title: str
    columns: Sequence[str]
    tests: Sequence[PaperTest]
    rows: Sequence[PaperRow]
    notes: Sequence[str] = ()
    signatures: Sequence[str] = ()
    preset: str = "potsa"
    options: Sequence[str] = ()

    def text(self) -> str:
        """Aligned plain text, with legend, notes and signatures below."""
        body = [line for row in self.rows for line in row.lines(self.columns)]
        foot = [f"{GAP} not measured, or not in the paper"]
        if any(len(row.seeds) > 1 for row in self.rows):
            foot.append("±x: 95 % Student-t interval over our seeds")
        foot += [*(f"note: {note}" for note in self.notes), *self.signatures]
        return "\n".join([self.title, "", table(["", "", *self.columns], body, left=2), "", *foot])


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
    number: int | str, paths: Sequence[str | Path], convention: Convention | None = None
) -> PaperTable:
    """Table `number` of POTSA's, or such as "ai-sta-2", with the scores of runs.

    Args:
        paths: run directories or folders of them, in any order; none gives the paper's figures.
        convention: how text is compared; by default sacrebleu's zh tokeniser, cased.

    Raises InputError with all that is wrong with the runs (`read_runs`).
    """
    from tqdm import tqdm

    paper = PAPER_TABLES[number]
    convention = replace(convention or Convention(), more_bleu={})
    systems = [row.system for row in paper.rows if row.system]
    runs, notes = read_runs(paths, systems, paper.tests, paper.options)
    rows, signatures = [], {}
    for row in tqdm(paper.rows, desc=f"table {number}", unit="row", disable=None, leave=False):
        own = sorted((run for run in runs if run.system == row.system), key=lambda run: run.seed)
        values: dict[str, list[float]] = defaultdict(list)
        for run, test in product(own, paper.tests):
            if test.name in run.tests:
                for column, value in _scores(test, run.tests[test.name], convention, signatures):
                    values[column].append(value)
        figures = {column: over_seeds(values[column]) for column in paper.columns if values[column]}
        rows.append(replace(row, seeds=[run.seed for run in own], figures=figures))
    return replace(paper, rows=rows, notes=[*paper.notes, *notes], signatures=[*signatures])


def _scores(
    test: PaperTest,
    items: Sequence[Prediction],
    convention: Convention,
    signatures: dict[str, None],
) -> Iterator[tuple[str, float]]:
    """A test's measure by column, then their mean where there are all; adds to `signatures`."""
    names = ("WER", "CER") if test.metric == "error rate" else ("BLEU",)
    spoken = [corpus.items for corpus in corpora(items) if corpus.kind == "language"]
    own = {(rows[0].language, rows[0].target_language): rows for rows in spoken}
    found = []
    for column, direction in test.columns.items():
        if direction in own:
            scores = corpus_scores(own[direction], convention, 0)
            (name,) = filter(scores.__contains__, names)
            found.append(scores[name].value)
            signatures[f"{name}|{scores[name].signature}"] = None
            yield column, found[-1]
    if test.average and len(found) == len(test.columns):
        yield test.average, fmean(found)
