"""Tables 1 to 3 of the POTSA paper: its figures (`paper.yaml`), and beside them those of our runs.

BLEU of a language is sacrebleu's over that language's utterances; an average is the unweighted mean
of the languages, as in the paper. Over seeds: the mean and a Student-t interval, and the median of
one paired test a seed: the test set is the same for all seeds, so pooling them would make p smaller
without new evidence.

Rows may be compared that have the same utterances, the same references, each seed once. What makes
a row must be as its experiment's file has it, or the run is refused; whatever else changes the
weights is told below the table. All problems of all runs are reported at once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, read_config
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.compare import Comparison, paired_test
from slam_potsa.evaluation.corpora import SUFFIX, match, same_test_problems
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import SeedMean, over_seeds, score
from slam_potsa.text import some, table

GAP = "·"
STAGE = re.compile(r"\d+_[a-z][a-z0-9_]*")  # a stage's folder, not an earlier attempt's
DEPTH = 3  # folders below RUN: outputs / table1_ours / seed42, and not all of a data folder
START = "ckpt_path"  # each seed may have its own: the stage before, of this seed
SEEDS = ("train_config.seed", "dataset_config.seed")
TERMS, BATCH = "alignment.terms", "items a step and device"
BATCH_SIZES = ("train_config.batch_size_training", "train_config.gradient_accumulation_steps")


@dataclass(frozen=True)
class PaperTest:
    """A test set of a table: its name, languages, the columns of their mean and of a p value."""

    name: str
    languages: Sequence[str]
    average: str
    p_column: str


@dataclass(frozen=True)
class PaperRow:
    """A row as the paper prints it, and what our runs have for it.

    Attributes:
        label: the paper's name for the system.
        system: `train_config.model_name` of the runs that fill it; None for rivals, not built here.
        paper: column -> [BLEU] or [BLEU, half-width of the 95 % interval].
        seeds, figures: of our runs, by column; a column that is missing was not measured.
        bootstrap: with one seed, by column, the half-width of the 95 % bootstrap interval over
            utterances; of an average, over all its utterances pooled, the nearest sacrebleu has.
        comparisons: by test and seed, of the systems that `PaperTable.comparisons` has for it.
        p_values: by test, the median over seeds.
    """

    label: str
    system: str | None
    paper: Mapping[str, Sequence[float]]
    seeds: Sequence[int] = ()
    figures: Mapping[str, SeedMean] = field(default_factory=dict)
    bootstrap: Mapping[str, float] = field(default_factory=dict)
    comparisons: Mapping[str, Mapping[int, Comparison]] = field(default_factory=dict)
    p_values: Mapping[str, float] = field(default_factory=dict)

    def ours(self, column: str) -> str:
        """ "31.84 ±0.09" over seeds, "31.84 (0.62)" with one seed."""
        found = self.figures.get(column)
        if found is None:
            return GAP
        if found.half_width is not None:
            return f"{found.value:.2f} ±{found.half_width:.2f}"
        width = f" ({self.bootstrap[column]:.2f})" if column in self.bootstrap else ""
        return f"{found.value:.2f}{width}"


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        comparisons: by the system whose row shows the p value, (baseline, system) that are
            compared; `compared`: the same in words.
        notes: what a reader of the paper, and of our runs, should know.
    """

    number: int
    title: str
    columns: Sequence[str]
    tests: Sequence[PaperTest]
    rows: Sequence[PaperRow]
    comparisons: Mapping[str, Sequence[str]]
    compared: str
    notes: Sequence[str] = ()
    signatures: Sequence[str] = ()

    def text(self) -> str:
        """Aligned plain text, with legend, notes and signatures below."""
        printed = table(self._head(), self._body(), left=2)
        return "\n".join([self._title(), "", printed, "", *self._foot()])

    def markdown(self) -> str:
        """The same for a README."""
        head = self._head()
        rule = ["---", "---", *["---:"] * (len(head) - 2)]
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *self._body())]
        foot = [f"- {line}" for line in self._foot()]
        return "\n".join([f"**{self._title()}**", "", *lines, "", *foot])

    def _title(self) -> str:
        return f"POTSA Table {self.number}, {self.title}: BLEU, FLEURS x→{TARGET}"

    def _head(self) -> list[str]:
        return ["", "", *self.columns, *(test.p_column for test in self.tests)]

    def _body(self) -> Iterator[list[str]]:
        """A line of the paper's figures a row, and one of ours where runs can fill it."""
        for row in self.rows:
            paper = [" ±".join(f"{n:.2f}" for n in row.paper.get(c, ())) for c in self.columns]
            yield [row.label, "paper", *(text or GAP for text in paper), *[""] * len(self.tests)]
            if row.system:
                seeds = {0: "", 1: ", 1 seed"}.get(len(row.seeds), f", {len(row.seeds)} seeds")
                empty = GAP if row.system in self.comparisons else ""
                values = [row.p_values.get(test.name) for test in self.tests]
                p_values = [empty if value is None else f"{value:.3f}" for value in values]
                yield ["", f"ours{seeds}", *map(row.ours, self.columns), *p_values]

    def _foot(self) -> Iterator[str]:
        yield f"{GAP} not measured, or not in the paper"
        if any(len(row.seeds) > 1 for row in self.rows):
            yield "±x: 95 % Student-t interval over our seeds"
        if any(row.bootstrap for row in self.rows):
            yield (
                "(x): one seed only: half-width of the 95 % bootstrap interval over utterances, of "
                "an average's pooled utterances; it says nothing about other seeds"
            )
        if any(row.comparisons for row in self.rows):
            yield (
                f"p: {self.compared}; the median over the seeds that both have, of one "
                "paired bootstrap each over the test's utterances; it takes them for independent, "
                "but recordings of one sentence share a reference, so p is rather too small"
            )
        yield from (f"note: {note}" for note in self.notes)
        yield from self.signatures


def _table(number: int, found: dict[str, Any]) -> PaperTable:
    rows = []
    for label, system, *cells in found.pop("rows"):
        pairs = [cell if isinstance(cell, list) else [cell] for cell in cells]
        rows.append(PaperRow(label, system, dict(zip(found["columns"], pairs, strict=False))))
    tests = [TESTS[name] for name in found.pop("tests")]
    return PaperTable(number, rows=rows, tests=tests, **found)


_FOUND = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
TARGET: str = _FOUND["target_language"]
ALIASES: Mapping[str, str] = _FOUND["aliases"]  # such as table2_ot -> table1_ours
TESTS = {name: PaperTest(name, **found) for name, found in _FOUND["tests"].items()}
PAPER_TABLES = {number: _table(number, found) for number, found in _FOUND["tables"].items()}
SYSTEMS = sorted({row.system for t in PAPER_TABLES.values() for row in t.rows if row.system})


def fill_table(
    number: int,
    paths: Sequence[str | Path],
    *,
    convention: Convention | None = None,
    bootstrap: int = 1000,
    partial: bool = False,
    progress: bool = False,
) -> PaperTable:
    """Table `number` of the paper with the scores of runs.

    Args:
        paths: run directories or folders of them, in any order; none gives the paper's figures.
        convention: how text is compared; by default sacrebleu's zh tokeniser, cased.
        bootstrap: resamples of the paired tests, and of the interval of a row with one seed;
            0: neither.
        partial: a prediction file that is missing leaves a gap instead of an error.

    Raises InputError with all that is wrong with the runs (`read_runs`).
    """
    from tqdm import tqdm

    if number not in PAPER_TABLES:
        raise InputError(f"table {number!r}: the paper's tables here are 1, 2 and 3")
    # The table has BLEU only.
    convention = replace(convention or Convention(), more_bleu={}, error_rate=None)
    paper = PAPER_TABLES[number]
    runs, notes = read_runs(paths, paper, partial=partial)
    of_system: dict[str | None, list[TableRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.seed):
        of_system[run.system].append(run)
    rows: list[PaperRow] = []
    signatures: list[str] = []
    for row in tqdm(paper.rows, desc=f"Table {number}", unit="row", disable=not progress):
        row, used = _filled(row, paper, of_system[row.system], convention, bootstrap)
        pair = [of_system[name] for name in paper.comparisons.get(row.system, ()) if bootstrap]
        if pair:
            found = _compared(*pair, paper.tests, convention, bootstrap)
            p_values = {test: median(c.p_value for c in of.values()) for test, of in found.items()}
            row = replace(row, comparisons=found, p_values=p_values)
            used += [f"p|{c.signature}" for of in found.values() for c in of.values()]
        rows.append(row)
        signatures += used
    signatures = list(dict.fromkeys(signatures))
    return replace(paper, rows=rows, notes=[*paper.notes, *notes], signatures=signatures)


def _filled(
    row: PaperRow,
    paper: PaperTable,
    runs: Sequence[TableRun],
    convention: Convention,
    bootstrap: int,
) -> tuple[PaperRow, list[str]]:
    """(The row with the figures of its runs, the signatures.)"""
    values: dict[str, list[float]] = defaultdict(list)
    widths: dict[str, float] = {}
    signatures = []
    options = {"bootstrap": bootstrap if len(runs) == 1 else 0, "convention": convention}
    for run, test in product(runs, paper.tests):
        if not run.tests.get(test.name):
            continue
        found = score(run.tests[test.name], guards=False, **options)
        signatures += [text for text in found.signatures if text.startswith("BLEU")]
        bleu = {row.name: row.bleu for row in found.rows}
        columns = {name: (bleu[name], bleu[name]) for name in test.languages if name in bleu}
        if len(columns) == len(test.languages):
            columns[test.average] = bleu["all, mean of languages"], bleu["all, pooled"]
        for column, (figure, with_interval) in columns.items():
            if column in paper.columns:
                values[column].append(figure.value)
                if with_interval.half_width is not None:
                    widths[column] = with_interval.half_width
    figures = {column: over_seeds(found) for column, found in values.items()}
    seeds = [run.seed for run in runs]
    return replace(row, seeds=seeds, figures=figures, bootstrap=widths), signatures


def _compared(
    baselines: Sequence[TableRun],
    runs: Sequence[TableRun],
    tests: Sequence[PaperTest],
    convention: Convention,
    samples: int,
) -> dict[str, dict[int, Comparison]]:
    """By test and by seed that both have: the paired test of BLEU, all languages pooled."""
    found: dict[str, dict[int, Comparison]] = {}
    olds = {run.seed: run.tests for run in baselines}
    for test, run in product([test.name for test in tests], runs):
        old, new = olds.get(run.seed, {}).get(test), run.tests.get(test)
        if old and new:
            name, pairs = f"{test}, seed {run.seed}", match(old, new)
            bleu, _ = paired_test(name, pairs, samples=samples, convention=convention)
            found.setdefault(test, {})[run.seed] = bleu
    return found


# -- the runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TableRun:
    """One training run of one row; `tests` are its predictions, of the table's languages."""

    path: Path
    system: str
    config: PotsaConfig
    tests: Mapping[str, Sequence[Prediction]]

    @property
    def seed(self) -> int:
        return self.config.train_config.seed


def read_runs(
    paths: Sequence[str | Path], paper: PaperTable, *, partial: bool = False
) -> tuple[list[TableRun], list[str]]:
    """(Every run that the table has a row for, notes for the foot of the table.)

    Raises InputError: every missing or broken file, reference or utterance that differs between
    runs, every second run of a row and seed, every run whose settings are another row's, and every
    unknown model_name of a run that `paths` name; of one that was found in a folder it is a note.
    """
    folders, problems = find_runs(paths)
    named = {Path(path).resolve() for path in paths}
    runs: dict[tuple[str, int], TableRun] = {}
    notes: list[str] = []
    others: Counter[str] = Counter()
    systems = {row.system for row in paper.rows}
    for path in folders:
        with collecting(problems):
            config = _read_config(path)
            name = config.train_config.model_name
            system = ALIASES.get(name, name)
            if system in systems:
                run = TableRun(
                    path, system, config, _read_tests(path, config, paper, partial, notes)
                )
                other = runs.setdefault((system, run.seed), run)
                if other is not run:
                    raise InputError(
                        f"{path}: a second run of {system} with seed {run.seed}, beside "
                        f"{other.path}; give one of them"
                    )
            elif system in SYSTEMS or path.resolve() not in named:
                others[system] += 1
            else:
                raise InputError(
                    f"{path / CONFIG}: train_config.model_name is {name!r}, expected one of "
                    f"{', '.join([*SYSTEMS, *ALIASES])}: train with experiment=<one of these>, or "
                    "leave this run out"
                )
    for test in (test.name for test in paper.tests):
        files = {str(run.path): run.tests[test] for run in runs.values() if test in run.tests}
        problems += [f"{test}: {text}" for text in same_test_problems(files)]
    refuse(problems)
    if others:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        notes.append(f"runs that are not in Table {paper.number}: {told}")
    return list(runs.values()), [*notes, *_setting_notes(list(runs.values()))]


def find_runs(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The run directories at or below `paths`, each once; and every path that is, or holds, none.

    A run directory holds config.yaml. Of a recipe's folder (1_asr, 2_s2tt, …) the last stage is
    meant.
    """
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, paths):
        runs = _below(path, DEPTH)
        found |= {run.resolve(): run for run in runs}
        if not runs:
            problems.append(
                f"{path}: no {CONFIG} there or in a folder below; expected the output_dir of a "
                "training run, or a folder of such"
            )
    return list(found.values()), problems


def _below(path: Path, depth: int) -> list[Path]:
    if (path / CONFIG).is_file():
        return [path]
    if depth == 0:
        return []
    children = sorted(child for child in path.glob("[!.]*") if child.is_dir())
    stages = [child for child in children if STAGE.fullmatch(child.name)]
    if stages:  # "10_x" after "9_x"
        children = [max(stages, key=lambda child: int(child.name.partition("_")[0]))]
    return [run for child in children for run in _below(child, depth - 1)]


def _read_config(path: Path) -> PotsaConfig:
    problems: list[str] = []
    try:
        with collecting(problems, path / CONFIG):
            return read_config(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        problems.append(f"{path / CONFIG}: cannot be read ({reason}); train it again")
    raise InputError(problems)


def _read_tests(
    path: Path, config: PotsaConfig, paper: PaperTable, partial: bool, notes: list[str]
) -> dict[str, Sequence[Prediction]]:
    """The predictions of each test of the table, in its languages; adds to `notes`."""
    name, read = config.train_config.model_name, {}
    of_row, _ = _differing(config)
    problems = of_row and [
        f"{path / CONFIG}: train_config.model_name is {name}, but what makes this row differs from "
        f"conf/experiment/{name}.yaml (found / expected): {', '.join(of_row)}; train with "
        f"experiment={name}, or leave this run out"
    ]
    for test in paper.tests:
        place = path / f"{test.name}{SUFFIX}"
        if place.is_file():
            with collecting(problems):
                read[test.name] = _of_the_table(place, test.languages, notes)
        elif partial:
            notes.append(f"{place}: missing")
        else:
            problems.append(
                f"{place}: missing; decode it: slam-potsa decode {path} "
                f"data/fleurs/{test.name}.jsonl (or give --partial to leave a gap)"
            )
    refuse(problems)
    return read


def _of_the_table(place: Path, languages: Sequence[str], notes: list[str]) -> list[Prediction]:
    predictions = read_predictions(place)
    wrong = [p.key for p in predictions if p.target_language != TARGET or p.reference is None]
    if wrong:
        raise InputError(
            f"{place}: {len(wrong)} predictions are no translations into {TARGET} with a reference "
            f"({some(wrong, 3)}); decode a manifest whose utterances have such a target"
        )
    spoken = {item.language for item in predictions}
    if not spoken.issuperset(languages):
        missing = ", ".join(name for name in languages if name not in spoken)
        notes.append(f"{place}: no {missing}, so there is no average")
    if not spoken.issubset(languages):
        other = ", ".join(sorted(spoken.difference(languages)))
        notes.append(f"{place}: {other} left out, since the paper's table has none")
    return [item for item in predictions if item.language in languages]


# -- settings --------------------------------------------------------------------------------------


@cache
def _experiment(name: str) -> PotsaConfig:
    from slam_potsa.config.compose import compose_config

    return compose_config([f"experiment={name}"])


def _differing(config: PotsaConfig, start: str | None = None) -> tuple[list[str], list[str]]:
    """("option found / expected" of what makes a row; the same of what else changes the weights.)

    `start`: the checkpoint that is expected. A trial may have its own weight of a term.
    """
    of_row: list[str] = []
    of_others: list[str] = []
    expected = _options(_experiment(config.train_config.model_name)) | {START: start}
    for key, value in _options(config).items():
        if key in expected and value != expected[key]:
            makes_row = (
                key == TERMS or key in flat(config, row=True) and not key.endswith(".weight")
            )
            told = of_row if makes_row else of_others
            told.append(f"{key} {_shown(value)} / {_shown(expected[key])}")
    return of_row, of_others


def _options(config: PotsaConfig) -> dict[str, Any]:
    """What changes the weights, less what nothing reads; the batch in items."""
    terms, has_bias = config.alignment.active, config.language_bias.enabled
    is_unread = {
        "alignment.": not terms,
        "language_bias.center": not has_bias,
        "language_bias.unseen_language": not has_bias,
        "dataset_config.anchor_language": config.dataset_config.pairing != "anchor",
    } | {f"{TERMS}.{name}.": name not in terms for name in config.alignment.terms}
    options = flat(config, affects=("weights", "outcome"))
    size, accumulated = (options[key] for key in BATCH_SIZES)
    unread = (*(prefix for prefix, unread in is_unread.items() if unread), *SEEDS, *BATCH_SIZES)
    read = {key: value for key, value in options.items() if not key.startswith(unread)}
    return {TERMS: ", ".join(terms) or "none", BATCH: size * accumulated} | read


def _setting_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """One note of all that differs from the experiments' files, each seed's start aside."""
    differing: dict[str, list[str]] = {}
    starts: dict[int, str | None] = {}
    for run in runs:
        start = starts.setdefault(run.seed, run.config.ckpt_path)
        for told in _differing(run.config, start)[1]:
            differing.setdefault(told, []).append(f"{run.system} seed {run.seed}")
    if differing:
        told = [
            f"{text} ({'all runs' if 1 < len(names) == len(runs) else ', '.join(names)})"
            for text, names in differing.items()
        ]
        yield (
            "settings that are not those of conf/experiment/, or a start that is not that of the "
            f"seed's first run (found / there): {'; '.join(told)}"
        )


def _shown(value: Any) -> str:
    """One line, and prompts in quotation marks, so that blanks and line breaks are seen."""
    plain = isinstance(value, str) and value and not any(map(str.isspace, value))
    return value if plain else repr(value)
