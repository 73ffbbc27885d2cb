"""The run directories that fill a table of the paper: found, read, and checked against each other.

Rows may be compared that have the same utterances, the same references, each seed once. What makes
a row must be as its experiment's file has it, or the run is refused; whatever else changes the
weights is told below the table. All problems of all runs are reported at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, read_config
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.compare import SUFFIX, same_test_problems
from slam_potsa.text import some

PAPER = yaml.safe_load(Path(__file__).with_name("paper.yaml").read_text(encoding="utf-8"))
TARGET: str = PAPER["target_language"]
ALIASES: Mapping[str, str] = PAPER["aliases"]  # such as table2_ot -> table1_ours
SYSTEMS = {n: [row[1] for row in t["rows"] if row[1]] for n, t in PAPER["tables"].items()}
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
    paths: Sequence[str | Path], number: int, tests: Sequence[PaperTest], partial: bool
) -> tuple[list[TableRun], list[str]]:
    """(Every run that the table has a row for, notes for the foot of the table.)

    Raises InputError: every missing or broken file, reference or utterance that differs between
    runs, every second run of a row and seed, every run whose settings are another row's, and every
    unknown model_name of a run that `paths` name; of one that was found in a folder it is a note.
    """
    problems: list[str] = []
    notes: list[str] = []
    folders: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = find_runs(path)
        folders |= {run.resolve(): run for run in found}
        if not found:
            told = "expected the output_dir of a training run, or a folder of such"
            problems.append(f"{path}: no {CONFIG} there or in a folder below; {told}")
    runs: dict[tuple[str, int], TableRun] = {}
    others: Counter[str] = Counter()
    known = {system for systems in SYSTEMS.values() for system in systems}
    for path in folders.values():
        with collecting(problems):
            config = read_config(path)
            name = config.train_config.model_name
            system = ALIASES.get(name, name)
            if system in SYSTEMS[number]:
                problems += _other_row(path, config)
                found = _read_tests(path, tests, partial, problems, notes)
                run = TableRun(path, system, config, found)
                other = runs.setdefault((system, run.seed), run)
                if other is not run:
                    told = f"a second run of {system} with seed {run.seed}, beside {other.path}"
                    problems.append(f"{path}: {told}; give one of them")
            elif system in known or path not in map(Path, paths):
                others[system] += 1
            else:
                names = ", ".join([*sorted(known), *ALIASES])
                problems.append(
                    f"{path / CONFIG}: train_config.model_name is {name!r}, expected one of "
                    f"{names}: train with experiment=<one of these>, or leave this run out"
                )
    for test in (test.name for test in tests):
        files = {str(run.path): run.tests[test] for run in runs.values() if test in run.tests}
        problems += [f"{test}: {text}" for text in same_test_problems(files)]
    refuse(problems)
    if others:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        notes.append(f"runs that are not in Table {number}: {told}")
    return list(runs.values()), [*notes, *_setting_notes(list(runs.values()))]


def find_runs(path: Path, depth: int = DEPTH) -> list[Path]:
    """The run directories (they hold config.yaml) at or below `path`; of a recipe's folder (1_asr,
    2_s2tt, …) the last stage."""
    if (path / CONFIG).is_file():
        return [path]
    if depth == 0:
        return []
    children = sorted(child for child in path.glob("[!.]*") if child.is_dir())
    stages = [child for child in children if STAGE.fullmatch(child.name)]
    if stages:  # "10_x" after "9_x"
        children = [max(stages, key=lambda child: int(child.name.partition("_")[0]))]
    return [run for child in children for run in find_runs(child, depth - 1)]


def _read_tests(
    path: Path,
    tests: Sequence[PaperTest],
    partial: bool,
    problems: list[str],
    notes: list[str],
) -> dict[str, list[Prediction]]:
    """The predictions of each test in its languages; adds to `problems` and `notes`."""
    read: dict[str, list[Prediction]] = {}
    for test in tests:
        place, languages = path / f"{test.name}{SUFFIX}", test.languages
        if not place.is_file():
            how = f"slam-potsa decode {path} data/fleurs/{test.name}.jsonl"
            told = f"; decode it: {how} (or give --partial to leave a gap)"
            (notes if partial else problems).append(f"{place}: missing{'' if partial else told}")
            continue
        with collecting(problems):
            items = read_predictions(place)
            wrong = [i.key for i in items if i.target_language != TARGET or i.reference is None]
            if wrong:
                raise InputError(
                    f"{place}: {len(wrong)} predictions are no translations into {TARGET} with a "
                    f"reference ({some(wrong, 3)}); decode a manifest whose utterances have both"
                )
            spoken = {item.language for item in items}
            missing = ", ".join(language for language in languages if language not in spoken)
            other = ", ".join(sorted(spoken.difference(languages)))
            notes += [f"{place}: no {missing}, so there is no average"] if missing else []
            told = f"{place}: {other} left out, since the paper's table has none"
            notes += [told] if other else []
            read[test.name] = [item for item in items if item.language in languages]
    return read


# -- settings --------------------------------------------------------------------------------------


@cache
def _experiment(name: str) -> PotsaConfig:
    from slam_potsa.config.compose import compose_config

    return compose_config([f"experiment={name}"])


def _differing(config: PotsaConfig, start: str | None = None) -> tuple[list[str], list[str]]:
    """("option found / expected" of what makes a row; the same of what else changes the weights.)

    `start`: the checkpoint that is expected. A trial may have its own weight of a term.
    """
    row_options = {key for key in flat(config, row=True) if not key.endswith(".weight")} | {TERMS}
    expected = _options(_experiment(config.train_config.model_name)) | {START: start}
    told = {
        key: f"{key} {_shown(value)} / {_shown(expected[key])}"
        for key, value in _options(config).items()
        if key in expected and value != expected[key]
    }
    of_row = [text for key, text in told.items() if key in row_options]
    return of_row, [text for key, text in told.items() if key not in row_options]


def _other_row(path: Path, config: PotsaConfig) -> list[str]:
    """That a run's settings are not those of the row that its model_name claims, if so."""
    name, (differing, _) = config.train_config.model_name, _differing(config)
    told = (
        f"{path / CONFIG}: train_config.model_name is {name}, but what makes this row differs from "
        f"conf/experiment/{name}.yaml (found / expected): {', '.join(differing)}; train with "
        f"experiment={name}, or leave this run out"
    )
    return [told] if differing else []


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
    """Prompts in quotation marks, so that blanks and line breaks are seen."""
    return value if isinstance(value, str) and value.split() == [value] else repr(value)
