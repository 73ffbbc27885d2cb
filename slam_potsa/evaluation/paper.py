"""Tables of the papers: their figures (`paper.yaml`), and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. Over seeds: the mean and a Student-t interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import yaml

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, read_config
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.compare import SUFFIX, corpora, same_test_problems
from slam_potsa.evaluation.scores import SeedMean, over_seeds
from slam_potsa.evaluation.text_metrics import Convention, corpus_scores
from slam_potsa.text import some, table

PAPER = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
SEEDS = ("train_config.seed", "dataset_config.seed")
TERMS = "alignment.terms"
GAP = "·"  # in a table


@dataclass(frozen=True)
class PaperTest:
    """A test set of a table: its name, its languages and the column of their mean."""

    name: str
    languages: Sequence[str] = ()
    target: str = ""  # "": each is written in itself
    average: str = ""
    metric: str = "BLEU"  # or "error rate"
    prefix: str = ""  # of the columns
    directions: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, tuple[str, str]]:
        """(Language spoken, language written) by column."""
        own = {f"{self.prefix}{name}": (name, self.target or name) for name in self.languages}
        return own | {column: tuple(pair) for column, pair in self.directions.items()}


@dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it, and what our runs have for it."""

    label: str  # the paper's name for the system
    system: str | None  # the experiment whose runs fill it; None for rivals, not built here
    paper: Mapping[str, Sequence[float]]  # column -> [BLEU] or [BLEU, half-width of its interval]
    seeds: Sequence[int] = ()  # of our runs
    figures: Mapping[str, SeedMean] = field(default_factory=dict)  # of the columns measured

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
    """A table of the paper."""

    title: str
    columns: Sequence[str]
    tests: Sequence[PaperTest]
    rows: Sequence[PaperRow]
    notes: Sequence[str] = ()  # what a reader of the paper, and of our runs, should know
    signatures: Sequence[str] = ()
    preset: str = "potsa"  # whose way of scoring it has
    options: Sequence[str] = ()  # what tells its rows' runs apart

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


# -- runs ------------------------------------------------------------------------------------------
#
# A run belongs to the row whose experiment (conf/experiment/) has the same options, of those that
# make a row; whatever else changes the weights is told below the table. Rows may be compared that
# have the same utterances, the same references, each seed once.


class TableRun(NamedTuple):
    """One training run of one row; `tests` are its predictions, of the table's languages."""

    path: Path
    system: str
    seed: int
    tests: Mapping[str, Sequence[Prediction]]
    differing: Sequence[str]  # what changes the weights and is not as the row's file has it


def read_runs(
    paths: Sequence[str | Path],
    systems: Sequence[str],
    tests: Sequence[PaperTest],
    options: Sequence[str] = (),
) -> tuple[list[TableRun], list[str]]:
    """(Every run of one of the `systems`, experiments or recipes; notes for the table's foot.)

    Args:
        options: what tells the systems apart; by default all that makes a row.

    Raises InputError: every path without a decoded run, every broken file, reference or utterance
    that differs between runs, every second run of a row and seed.
    """
    problems: list[str] = []
    notes: list[str] = []
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = _decoded_runs(path, tests)
        folders |= {run.resolve(): run for run in found}
        if not found:
            problems.append(
                f"{path}: no run directory with {tests[0].name}{SUFFIX} there or in a folder below;"
                f" decode it: slam-potsa decode RUN data/fleurs/{tests[0].name}.jsonl"
            )
    runs: dict[tuple[str, int], TableRun] = {}
    for path in folders.values():
        with collecting(problems):
            config = read_config(path)
            system, of_row, others = _nearest_row(config, systems, options)
            if of_row:
                told = f"nearest {system}, but {some(of_row, 5)}"
                notes.append(f"{path}: no row of this table; {told}")
                continue
            found = {test.name: _read_test(path, test, notes) for test in tests}
            decoded = {test: items for test, items in found.items() if items}
            run = TableRun(path, system, config.train_config.seed, decoded, others)
            other = runs.setdefault((system, run.seed), run)
            if other is not run:
                told = f"a second run of {system} with seed {run.seed}, beside {other.path}"
                problems.append(f"{path}: {told}; give one of them")
    for test in (test.name for test in tests):
        files = {str(run.path): run.tests[test] for run in runs.values() if test in run.tests}
        problems += [f"{test}: {text}" for text in same_test_problems(files)]
    refuse(problems)
    alike: dict[str, list[str]] = defaultdict(list)
    for run in runs.values():
        alike["; ".join(run.differing)].append(f"{run.system} seed {run.seed}")
    told = "not as its file in conf/experiment/ has it (found / there)"
    notes += [f"{', '.join(names)}: {told}: {text}" for text, names in alike.items() if text]
    return list(runs.values()), notes


def _decoded_runs(path: Path, tests: Sequence[PaperTest]) -> list[Path]:
    """The run directories at or below `path` that have predictions of a test."""
    places = (place for test in tests for place in path.rglob(f"{test.name}{SUFFIX}"))
    return sorted({place.parent for place in places if place.with_name(CONFIG).is_file()})


def _read_test(path: Path, test: PaperTest, notes: list[str]) -> list[Prediction]:
    """A run's predictions of a test, of the table's languages; `notes` says which are missing."""
    place = path / f"{test.name}{SUFFIX}"
    if not place.is_file():
        told = f"missing; decode it: slam-potsa decode {path} data/fleurs/{test.name}.jsonl"
        notes.append(f"{place}: {told}")
        return []
    wanted = {direction: column for column, direction in test.columns.items()}
    items = [i for i in read_predictions(place) if (i.language, i.target_language) in wanted]
    found = {wanted[item.language, item.target_language] for item in items}
    missing = ", ".join(column for column in wanted.values() if column not in found)
    if missing:
        notes.append(f"{place}: no {missing}, so there is no average")
    return items


def _nearest_row(
    config: PotsaConfig, systems: Sequence[str], options: Sequence[str]
) -> tuple[str, list[str], list[str]]:
    """(The system whose row it is, or nearly is; in which of a row's options it differs from that
    one's file, "option found / there"; in which others.)

    A trial may have its own weight of a term.
    """
    of_row = {key for key in flat(config, row=True) if not key.endswith(".weight")} | {TERMS}
    found, now = [], _used_options(config, options)
    for system in systems:
        there, told = _used_options(_experiment(system), options), ([], [])
        for key in now.keys() & there.keys():
            if now[key] != there[key]:
                is_other = key not in (options or of_row)
                told[is_other].append(f"{key} {now[key]!r} / {there[key]!r}")
        found.append((system, *map(sorted, told)))
    # Rows of different LLMs have the same options of a row: then all options tell.
    return min(found, key=lambda each: (len(each[1]), len(each[2])))


@cache
def _experiment(name: str) -> PotsaConfig:
    from slam_potsa.config.compose import compose_config
    from slam_potsa.engine.recipe import load_recipe

    if name.startswith("recipe/"):
        return load_recipe(name.removeprefix("recipe/")).stages[-1].config
    return compose_config([f"experiment={name}"])


def _used_options(config: PotsaConfig, more: Sequence[str]) -> dict[str, Any]:
    """What changes the weights, less seeds and what nothing reads; and `more`."""
    terms = config.alignment.active
    unread = [*SEEDS, *(f"{TERMS}.{name}." for name in config.alignment.terms if name not in terms)]
    if not terms:
        unread.append("alignment.")
    if not config.language_bias.enabled:
        unread += ["language_bias.center", "language_bias.unseen_language"]
    if config.dataset_config.pairing != "anchor":
        unread.append("dataset_config.anchor_language")
    options = flat(config, affects=("weights", "outcome")).items()
    used = {key: value for key, value in options if not key.startswith(tuple(unread))}
    used |= {key: value for key, value in flat(config).items() if key in more}
    return {TERMS: ", ".join(terms) or "none"} | used
