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
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.compare import same_test_problems
from slam_potsa.evaluation.paper import ALIASES, SYSTEMS, TARGET, PaperTable, PaperTest, system_of
from slam_potsa.text import some

CONFIG = "config.yaml"
STAGE = re.compile(r"\d+_[a-z][a-z0-9_]*")  # a stage's folder, not an earlier attempt's
DEPTH = 3  # folders below RUN: outputs / table1_ours / seed42, and not all of a data folder
START = "ckpt_path"  # each seed may have its own: the stage before, of this seed
SEEDS = ("train_config.seed", "dataset_config.seed")
TERMS, BATCH = "alignment.terms", "items a step and device"
BATCH_SIZES = ("train_config.batch_size_training", "train_config.gradient_accumulation_steps")


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
    others: Counter[str] = Counter()
    for path in folders:
        with collecting(problems):
            config = _read_config(path / CONFIG)
            name = config.train_config.model_name
            system = system_of(name)
            if system in table.systems:
                runs.append(_read_run(path, system, config, table.tests, partial))
            elif system or path.resolve() not in named:
                others[system or name] += 1
            else:
                raise InputError(
                    f"{path / CONFIG}: train_config.model_name is {name!r}, expected one of "
                    f"{', '.join([*SYSTEMS, *ALIASES])}: train with experiment=<one of these>, or "
                    "leave this run out"
                )
    refuse([*problems, *_same_seed_twice(runs), *_other_tests(runs, table.tests)])
    notes = [note for run in runs for note in run.notes]
    if others:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        notes.append(f"runs that are not in Table {table.number}: {told}")
    return runs, [*notes, *_setting_notes(runs)]


def find_runs(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """The run directories at or below `paths`, each once; and every path that is, or holds, none.

    A run directory holds config.yaml. Of a recipe's folder (1_asr, 2_s2tt, …) the last stage is
    meant.
    """
    found: dict[Path, Path] = {}
    problems = []
    for path in map(Path, paths):
        runs = {run.resolve(): run for run in _below(path, DEPTH)}
        found |= runs
        if not runs:
            problems.append(
                f"{path}: no {CONFIG} there or in a folder below; expected the output_dir of a "
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


def _read_run(
    path: Path, system: str, config: PotsaConfig, tests: Sequence[PaperTest], partial: bool
) -> TableRun:
    read: dict[str, tuple[Prediction, ...]] = {}
    notes: list[str] = []
    problems = list(_other_row(path / CONFIG, config))
    for test in tests:
        place = path / f"{test.name}_predictions.jsonl"
        if place.is_file():
            with collecting(problems):
                read[test.name], found = _of_the_table(place, test.languages)
                notes += found
        elif partial:
            notes.append(f"{place}: missing")
        else:
            problems.append(
                f"{place}: missing; decode it: slam-potsa decode {path} "
                f"data/fleurs/{test.name}.jsonl (or give --partial to leave a gap)"
            )
    refuse(problems)
    return TableRun(path, system, config, read, tuple(notes))


def _of_the_table(
    place: Path, languages: tuple[str, ...]
) -> tuple[tuple[Prediction, ...], list[str]]:
    """The predictions of the table's languages, and notes on languages too few and too many."""
    predictions, notes = read_predictions(place), []
    wrong = [p.key for p in predictions if p.target_language != TARGET or p.reference is None]
    if wrong:
        raise InputError(
            f"{place}: {len(wrong)} predictions are no translations into {TARGET} with a reference "
            f"({some(wrong, 3)}); decode a manifest whose utterances have such a target"
        )
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
    """That a run's settings are not those of the row that its model_name claims, if so."""
    name = config.train_config.model_name
    found, expected = _row_options(config), _row_options(_experiment(name))
    told = [
        f"{key} {_shown(value)} / {_shown(expected[key])}"
        for key, value in found.items()
        # A trial may have its own weight of a term.
        if key in expected and value != expected[key] and not _is_weight(key)
    ]
    if told:
        yield (
            f"{place}: train_config.model_name is {name}, but what makes this row differs from "
            f"conf/experiment/{name}.yaml (found / expected): {', '.join(told)}; train with "
            f"experiment={name}, or leave this run out"
        )


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
    return {k: v for k, v in options.items() if k not in SEEDS} | {BATCH: size * accumulated}


def _is_weight(key: str) -> bool:
    return key.startswith(TERMS) and key.endswith(".weight")


def _setting_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """One note of all that differs from the experiments' files, each seed's start aside."""
    differing: dict[str, list[str]] = {}
    starts: dict[int, str | None] = {}
    for run in runs:
        expected = _other_options(_experiment(run.config.train_config.model_name))
        expected[START] = starts.setdefault(run.seed, run.config.ckpt_path)
        for key, value in _other_options(run.config).items():
            if value != expected[key]:
                told = f"{key} {_shown(value)} / {_shown(expected[key])}"
                differing.setdefault(told, []).append(run.name)
    if differing:
        told = [f"{text} ({_names(names, runs)})" for text, names in differing.items()]
        yield (
            "settings that are not those of conf/experiment/, or a start that is not that of the "
            f"seed's first run (found / there): {'; '.join(told)}"
        )


def _names(names: Sequence[str], runs: Sequence[TableRun]) -> str:
    return "all runs" if 1 < len(names) == len(runs) else ", ".join(names)


def _shown(value: Any) -> str:
    """One line, and prompts in quotation marks, so that blanks and line breaks are seen."""
    plain = isinstance(value, str) and value and not any(map(str.isspace, value))
    return value if plain else repr(value)
