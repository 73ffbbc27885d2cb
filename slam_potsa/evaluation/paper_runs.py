"""The runs that fill a table of the paper: found by their predictions, told apart by their options.

A run belongs to the row whose experiment (`conf/experiment/`) has the same options, of those that
make a row; whatever else changes the weights is told below the table. Rows may be compared that
have the same utterances, the same references, each seed once. All problems of all runs are reported
at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, read_config
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.compare import SUFFIX, same_test_problems
from slam_potsa.text import some

PAPER = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
SEEDS = ("train_config.seed", "dataset_config.seed")
TERMS = "alignment.terms"


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
            system, told = _nearest_row(config, systems, options)
            if told:
                notes.append(f"{path}: no row of this table; nearest {system}, but {told}")
                continue
            found = {test.name: _read_test(path, test, notes) for test in tests}
            run = TableRun(path, system, config, {k: items for k, items in found.items() if items})
            other = runs.setdefault((system, run.seed), run)
            if other is not run:
                told = f"a second run of {system} with seed {run.seed}, beside {other.path}"
                problems.append(f"{path}: {told}; give one of them")
    for test in (test.name for test in tests):
        files = {str(run.path): run.tests[test] for run in runs.values() if test in run.tests}
        problems += [f"{test}: {text}" for text in same_test_problems(files)]
    refuse(problems)
    return list(runs.values()), [*notes, *_setting_notes(list(runs.values()))]


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


# -- settings --------------------------------------------------------------------------------------


def _nearest_row(
    config: PotsaConfig, systems: Sequence[str], options: Sequence[str]
) -> tuple[str, str]:
    """(The system whose row it is, or nearly is; in which of a row's options it differs.)

    A trial may have its own weight of a term.
    """
    of_row = {key for key in flat(config, row=True) if not key.endswith(".weight")} | {TERMS}
    told, of_row = {}, {*options} or of_row
    for system in systems:
        found = _differing(config, system, options)
        told[system] = [text for key, text in found.items() if key in of_row], len(found)
    # Rows of different LLMs have the same options of a row: then all options tell.
    nearest = min(told, key=lambda name: (len(told[name][0]), told[name][1]))
    return nearest, some(told[nearest][0], 5)


def _differing(config: PotsaConfig, system: str, options: Sequence[str] = ()) -> dict[str, str]:
    """Option -> "option found / expected", of those that are not as the system's experiment's."""
    now, expected = (_used_options(each, options) for each in (config, _experiment(system)))
    return {
        key: f"{key} {now[key]!r} / {expected[key]!r}"
        for key in now
        if key in expected and now[key] != expected[key]
    }


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


def _setting_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """One note of all that differs from the experiments' files."""
    differing: dict[str, list[str]] = {}
    for run in runs:
        for told in _differing(run.config, run.system).values():
            differing.setdefault(told, []).append(f"{run.system} seed {run.seed}")
    if differing:
        told = [
            f"{text} ({'all runs' if 1 < len(names) == len(runs) else ', '.join(names)})"
            for text, names in differing.items()
        ]
        yield f"settings that are not those of conf/experiment/ (found / there): {'; '.join(told)}"
