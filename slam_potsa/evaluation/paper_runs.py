"""The run directories that fill a table of the paper: found, read, and checked against each other.

Whether two rows may be compared is decided here: the same utterances, the same references, each
seed once, each run with the settings of its row (`paper_settings`). All problems of all runs are
reported at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import InputError
from slam_potsa.evaluation.paper import TARGET, TESTS, PaperTable, UnknownSystem, system_of
from slam_potsa.evaluation.paper_settings import (
    experiment_notes,
    flat,
    row_notes,
    row_problems,
    seed_notes,
)

CONFIG = "config.yaml"
STAGE = re.compile(r"\d+_[a-z][a-z0-9_]*")  # a stage's folder, not an earlier attempt's
DEPTH = 3  # folders below RUN: outputs / table1_ours / seed42, and not all of a data folder
MANIFESTS = {"test": "data/fleurs/test.jsonl", "zero_shot": "data/fleurs/zero_shot.jsonl"}


@dataclass(frozen=True)
class TableRun:
    """One training run of one row.

    Attributes:
        system: canonical model_name, as in `paper.PaperRow.system`.
        tests: predictions by test ("test", "zero_shot"), of the languages that the table has.
        options: the configuration, flat.
        notes: what was left out of it, for the foot of the table.
    """

    path: Path
    system: str
    seed: int
    tests: Mapping[str, tuple[Prediction, ...]]
    options: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def find_runs(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The run directories at or below `paths`, each once; and every path that is, or holds, none.

    A run directory holds config.yaml. Of a recipe's folder (1_asr, 2_s2tt, …) the last stage is
    meant.
    """
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, paths):
        runs = list(_below(path, DEPTH))
        if not path.is_dir():
            problems.append(f"{path}: no such folder; expected the output_dir of a training run")
        elif not runs:
            problems.append(
                f"{path}: no {CONFIG} here or in a folder below; expected the output_dir of a "
                "training run, or a folder of such"
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values()), problems


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
    runs, notes, strangers, elsewhere = [], [], [], defaultdict(list)
    folders, problems = find_runs(paths)
    named = {Path(path).resolve() for path in paths}
    for path in folders:
        try:
            system, seed, options = _identity(path)
            if system not in table.systems:
                elsewhere[system].append(path)
                continue
            problems += row_problems(path / CONFIG, options)
            tests, found = _read_tests(path, table, partial)
            runs.append(TableRun(path, system, seed, tests, options, tuple(found)))
        except UnknownSystem as error:
            if path.resolve() in named:
                problems += error.problems
            else:
                strangers.append(str(path))
        except InputError as error:
            problems += error.problems
    problems += [*_twice(runs), *_differences(runs, table.tests)]
    if problems:
        raise InputError(problems)
    notes += [note for run in runs for note in run.notes]
    if elsewhere:
        named = ", ".join(f"{system} ({len(found)})" for system, found in elsewhere.items())
        notes.append(f"runs that are not in Table {table.number}: {named}")
    if strangers:
        notes.append(
            f"{len(strangers)} {'run' if len(strangers) == 1 else 'runs'} left out, since no table "
            f"has their train_config.model_name: {_some(strangers)}"
        )
    return runs, [*notes, *experiment_notes(runs), *row_notes(runs), *seed_notes(runs)]


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


def _identity(path: Path) -> tuple[str, int, dict[str, Any]]:
    """(system, seed, flat options) by the run's config.yaml."""
    import yaml

    place = path / CONFIG
    try:
        config = yaml.safe_load(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{place}: cannot be read ({reason}); train the run again") from None
    train = config.get("train_config") if isinstance(config, dict) else None
    name, seed = (train.get(k) for k in ("model_name", "seed")) if train else (None, None)
    if not isinstance(name, str) or not isinstance(seed, int):
        raise InputError(
            f"{place}: found train_config.model_name {name!r} and seed {seed!r}; expected the "
            "configuration that a training writes"
        )
    try:
        return system_of(name), seed, dict(flat(config))
    except UnknownSystem as error:
        raise UnknownSystem(f"{place}: {error}") from None


def _read_tests(
    path: Path, table: PaperTable, partial: bool
) -> tuple[dict[str, tuple[Prediction, ...]], list[str]]:
    tests, notes, problems = {}, [], []
    for test in table.tests:
        place = path / f"{test}_predictions.jsonl"
        if not place.is_file():
            missing = f"{place}: missing"
            if partial:
                notes.append(missing)
            else:
                problems.append(
                    f"{missing}; decode it: slam-potsa decode {path} {MANIFESTS[test]} (or give "
                    "--partial to leave a gap)"
                )
            continue
        try:
            tests[test], found = _of_the_table(place, TESTS[test][0])
            notes += found
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tests, notes


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


def _twice(runs: Sequence[TableRun]) -> Iterator[str]:
    first: dict[tuple[str, int], Path] = {}
    for run in runs:
        other = first.setdefault((run.system, run.seed), run.path)
        if other != run.path:
            yield (
                f"{run.path}: a second run of {run.system} with seed {run.seed}, beside {other}; "
                "give one of them"
            )


def _differences(runs: Sequence[TableRun], tests: Iterable[str]) -> Iterator[str]:
    """Utterances or references that a run does not share with the first one that has the test."""
    for test in tests:
        having = [run for run in runs if test in run.tests]
        if not having:
            continue
        first, *others = having
        expected = {item.key: item for item in first.tests[test]}
        for run in others:
            yield from _difference(run, test, expected, first.path)


def _difference(
    run: TableRun, test: str, expected: Mapping[str, Prediction], first: Path
) -> Iterator[str]:
    place, remedy = run.path / f"{test}_predictions.jsonl", "decode the same manifest with both"
    found = {item.key: item for item in run.tests[test]}
    for keys, words in (
        ([key for key in expected if key not in found], "are missing, which"),
        ([key for key in found if key not in expected], "are not among those that"),
    ):
        if keys:
            yield f"{place}: {len(keys)} keys {words} {first} has ({_some(keys)}); {remedy}"
    shared = [key for key in found if key in expected]
    for name in ("reference", "language"):
        keys = [k for k in shared if getattr(found[k], name) != getattr(expected[k], name)]
        if keys:
            yield f"{place}: {len(keys)} {name}s differ from {first} ({_some(keys)}); {remedy}"


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
