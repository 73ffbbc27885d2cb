"""The run directories that fill a table of the paper: found, read, and checked against each other.

Whether two rows may be compared is decided here: the same utterances, the same references, each
seed once, each run with the settings of its row. What makes a row (bias compensation, alignment,
pairing) must be as its experiment's file has it, or the run is refused. Whatever else changes the
weights is told below the table: tiny trials may have their own sizes and steps. All problems of all
runs are reported at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, defaults, flat
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import InputError
from slam_potsa.evaluation.compare import same_test_problems
from slam_potsa.evaluation.paper import ALIASES, SYSTEMS, TARGET, PaperTable, PaperTest, system_of

CONFIG = "config.yaml"
STAGE = re.compile(r"\d+_[a-z][a-z0-9_]*")  # a stage's folder, not an earlier attempt's
DEPTH = 3  # folders below RUN: outputs / table1_ours / seed42, and not all of a data folder
START = "ckpt_path"  # a later stage starts from a checkpoint of its own seed
OF_THE_SEED = ("train_config.seed", "dataset_config.seed", START)
TERMS, BATCH = "alignment.terms", "items a step and device"
BATCH_SIZES = ("train_config.batch_size_training", "train_config.gradient_accumulation_steps")
Differences = dict[str, tuple[Any, Any]]  # option -> (found, expected)


@dataclass(frozen=True)
class TableRun:
    """One training run of one row.

    Attributes:
        system: canonical model_name, as in `paper.PaperRow.system`.
        tests: predictions by test ("test", "zero_shot"), of the languages that the table has.
        notes: what was left out of it, for the foot of the table.
    """

    path: Path
    system: str
    config: PotsaConfig
    tests: Mapping[str, tuple[Prediction, ...]]
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.config.train_config.seed

    @property
    def name(self) -> str:
        return f"{self.system} seed {self.seed}"


def read_runs(
    paths: Sequence[str | Path], table: PaperTable, *, partial: bool = False
) -> tuple[list[TableRun], list[str]]:
    """Read every run that `table` has a row for, and check that they can stand side by side.

    Args:
        paths: run directories, or folders of them.
        partial: a prediction file that is missing leaves a gap and a note instead of an error.

    Returns:
        The runs, and notes for the foot of the table.

    Raises:
        InputError: every missing or broken file, reference or utterance that differs between runs,
            every second run of a row and seed, every run whose settings are another row's, and
            every unknown model_name of a run that `paths` name; of one that was found in a folder
            it is a note.
    """
    folders, problems = find_runs(paths)
    named = {Path(path).resolve() for path in paths}
    runs: list[TableRun] = []
    strangers: list[str] = []
    elsewhere: Counter[str] = Counter()
    for path in folders:
        try:
            config = _read_config(path / CONFIG)
            system = system_of(config.train_config.model_name)
            if system in table.systems:
                runs.append(_read_run(path, system, config, table.tests, partial))
            elif system:
                elsewhere[system] += 1
            elif path.resolve() in named:
                problems.append(_unknown(path, config))
            else:
                strangers.append(str(path))
        except InputError as error:
            problems += error.problems
    problems += [*_same_seed_twice(runs), *_other_tests(runs, table.tests)]
    if problems:
        raise InputError(problems)
    notes = [note for run in runs for note in run.notes]
    if elsewhere:
        told = ", ".join(f"{system} ({count})" for system, count in elsewhere.items())
        notes.append(f"runs that are not in Table {table.number}: {told}")
    if strangers:
        notes.append(
            f"{len(strangers)} {'run' if len(strangers) == 1 else 'runs'} left out, since no table "
            f"has their train_config.model_name: {_some(strangers)}"
        )
    return runs, [*notes, *_setting_notes(runs)]


def find_runs(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The run directories at or below `paths`, each once; and every path that is, or holds, none.

    A run directory holds config.yaml. Of a recipe's folder (1_asr, 2_s2tt, …) the last stage is
    meant.
    """
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, paths):
        runs = list(_below(path, DEPTH))
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
        if not path.is_dir():
            problems.append(f"{path}: no such folder; expected the output_dir of a training run")
        elif not runs:
            problems.append(
                f"{path}: no {CONFIG} here or in a folder below; expected the output_dir of a "
                "training run, or a folder of such"
            )
    return list(found.values()), problems


def _below(path: Path, depth: int) -> Iterator[Path]:
    if (path / CONFIG).is_file():
        yield path
        return
    if not path.is_dir() or depth == 0:
        return
    children = sorted(c for c in path.iterdir() if c.is_dir() and not c.name.startswith("."))
    stages = [child for child in children if STAGE.fullmatch(child.name)]
    if stages:  # "10_x" after "9_x"
        children = [max(stages, key=lambda child: int(child.name.partition("_")[0]))]
    for child in children:
        yield from _below(child, depth - 1)


# -- one run ---------------------------------------------------------------------------------------


def _read_config(place: Path) -> PotsaConfig:
    import yaml

    try:
        return defaults(PotsaConfig, yaml.safe_load(place.read_text(encoding="utf-8")))
    except InputError as error:
        raise InputError([f"{place}: {problem}" for problem in error.problems]) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{place}: cannot be read ({reason}); train the run again") from None


def _unknown(path: Path, config: PotsaConfig) -> str:
    known = ", ".join(sorted([*SYSTEMS, *ALIASES]))
    return (
        f"{path / CONFIG}: train_config.model_name is {config.train_config.model_name!r}, expected "
        f"one of {known}: train with experiment=<one of these>, or leave this run out"
    )


def _read_run(
    path: Path, system: str, config: PotsaConfig, tests: Sequence[PaperTest], partial: bool
) -> TableRun:
    read: dict[str, tuple[Prediction, ...]] = {}
    notes: list[str] = []
    problems = list(_other_row(path / CONFIG, config))
    for test in tests:
        place = path / f"{test.name}_predictions.jsonl"
        if place.is_file():
            try:
                read[test.name], found = _of_the_table(place, test.languages)
                notes += found
            except InputError as error:
                problems += error.problems
        elif partial:
            notes.append(f"{place}: missing")
        else:
            problems.append(
                f"{place}: missing; decode it: slam-potsa decode {path} "
                f"data/fleurs/{test.name}.jsonl (or give --partial to leave a gap)"
            )
    if problems:
        raise InputError(problems)
    return TableRun(path, system, config, read, tuple(notes))


def _of_the_table(
    place: Path, languages: tuple[str, ...]
) -> tuple[tuple[Prediction, ...], list[str]]:
    """The predictions of the table's languages, and notes on languages too few and too many."""
    predictions = read_predictions(place)
    problems, notes = [], []
    targets = sorted({item.target_language for item in predictions} - {TARGET})
    if targets:
        problems.append(
            f"{place}: translations into {', '.join(targets)}; the paper's tables are x→{TARGET}: "
            "decode the manifest whose target_language is zh"
        )
    bare = [item.key for item in predictions if item.reference is None]
    if bare:
        problems.append(
            f"{place}: {len(bare)} predictions have no reference ({_some(bare)}); decode a "
            "manifest whose utterances have a target"
        )
    if problems:
        raise InputError(problems)
    spoken = {item.language for item in predictions}
    missing = [language for language in languages if language not in spoken]
    if missing:
        notes.append(f"{place}: no {', '.join(missing)}, so there is no average")
    other = sorted(spoken - set(languages))
    if other:
        notes.append(f"{place}: {', '.join(other)} left out, since the paper's table has none")
    return tuple(item for item in predictions if item.language in languages), notes


# -- runs beside each other ------------------------------------------------------------------------


def _same_seed_twice(runs: Sequence[TableRun]) -> Iterator[str]:
    first: dict[str, TableRun] = {}
    for run in runs:
        other = first.setdefault(run.name, run)
        if other is not run:
            yield (
                f"{run.path}: a second run of {run.system} with seed {run.seed}, beside "
                f"{other.path}; give one of them"
            )


def _other_tests(runs: Sequence[TableRun], tests: Sequence[PaperTest]) -> Iterator[str]:
    """Utterances or references that a run does not share with the first one that has the test."""
    for test in tests:
        having = {str(run.path): run.tests[test.name] for run in runs if test.name in run.tests}
        if having:
            yield from (f"{test.name}: {text}" for text in same_test_problems(having))


# -- settings --------------------------------------------------------------------------------------


@cache
def _experiment(name: str) -> PotsaConfig:
    from slam_potsa.config.compose import compose_config

    return compose_config([f"experiment={name}"])


def _other_row(place: Path, config: PotsaConfig) -> Iterator[str]:
    """That a run's settings are not those of the row that its model_name claims."""
    name = config.train_config.model_name
    differing = _row_differences(config, name)
    if not differing:
        return
    others = [other for other in SYSTEMS if not _row_differences(config, other)]
    fits = (
        f"these are the settings of {' or '.join(others)}: put that name there"
        if others
        else "no row of the tables has these settings: leave this run out"
    )
    told = ", ".join(f"{key} {_shown(a)} / {_shown(b)}" for key, (a, b) in differing.items())
    yield (
        f"{place}: train_config.model_name is {name}, but what makes this row differs from "
        f"conf/experiment/{name}.yaml (found / expected): {told}; {fits}, or train with "
        f"experiment={name}"
    )


def _row_differences(config: PotsaConfig, name: str) -> Differences:
    """What makes the row and differs, less a term's weight: a trial may have its own."""
    found, expected = _row_options(config), _row_options(_experiment(name))
    return {
        key: (value, expected[key])
        for key, value in found.items()
        if key in expected and value != expected[key] and not _is_weight(key)
    }


def _row_options(config: PotsaConfig) -> dict[str, Any]:
    """What makes a row, less what nothing reads."""
    terms, has_bias = config.alignment.active, config.language_bias.enabled
    is_unread = {
        "alignment.": not terms,
        "language_bias.center": not has_bias,
        "language_bias.unseen_language": not has_bias,
        "dataset_config.anchor_language": config.dataset_config.pairing != "anchor",
    } | {f"{TERMS}.{name}.": name not in terms for name in config.alignment.terms}
    unread = tuple(prefix for prefix, unread in is_unread.items() if unread)
    options = flat(config, row=True).items()
    read = {key: value for key, value in options if not key.startswith(unread)}
    return {TERMS: ", ".join(terms) or "none"} | read


def _other_options(config: PotsaConfig) -> dict[str, Any]:
    """What else changes the weights; the batch in items, however it is accumulated."""
    options = flat(config, affects=("weights", "outcome"), row=False)
    options |= {key: value for key, value in _row_options(config).items() if _is_weight(key)}
    size, accumulated = (options.pop(key) for key in BATCH_SIZES)
    return {k: v for k, v in options.items() if k not in OF_THE_SEED} | {BATCH: size * accumulated}


def _is_weight(key: str) -> bool:
    return key.startswith(TERMS) and key.endswith(".weight")


def _setting_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """One note of what differs from the experiments' files, and one of the starts."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        expected = _other_options(_experiment(run.config.train_config.model_name))
        for key, value in _other_options(run.config).items():
            if value != expected[key]:
                values = f"{_shown(value)} / {_shown(expected[key])}"
                found.setdefault(key, {}).setdefault(values, []).append(run.name)
    if found:
        told = [
            f"{key} {values} ({_names(names, runs)})"
            for key, of_value in found.items()
            for values, names in of_value.items()
        ]
        yield f"settings that are not those of conf/experiment/ (found / there): {'; '.join(told)}"
    starts: dict[int, dict[Any, list[str]]] = {}
    for run in runs:
        of_seed = starts.setdefault(run.seed, {})
        of_seed.setdefault(run.config.ckpt_path, []).append(run.system)
    for seed, paths in starts.items():
        if len(paths) > 1:
            told = [f"{path} ({', '.join(systems)})" for path, systems in paths.items()]
            yield f"runs of seed {seed} start from different weights, {START}: {'; '.join(told)}"


def _names(names: Sequence[str], runs: Sequence[TableRun]) -> str:
    return "all runs" if 1 < len(names) == len(runs) else ", ".join(names)


def _shown(value: Any) -> str:
    """One line, and prompts in quotation marks, so that blanks and line breaks are seen."""
    plain = isinstance(value, str) and value and not any(map(str.isspace, value))
    return value if plain else repr(value)


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
