"""Whether a run is what its row says: its config.yaml against the experiment it is named after.

What makes a row (bias compensation, alignment, pairing) must agree, or the run is refused. Anything
else that changes numbers is told below the table: tiny trials may have their own sizes and steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from slam_potsa.evaluation.paper import ALIASES, PAPER_TABLES

if TYPE_CHECKING:
    from slam_potsa.evaluation.paper_runs import TableRun

NAME, LAMBDA, START = "train_config.model_name", "alignment.weight", "ckpt_path"
BATCH = "items a step and device"
_BATCH_SIZE, _ACCUMULATED = "batch_size_training", "gradient_accumulation_steps"
# What makes a row.
ROW_KEYS = (
    "language_bias.enabled",
    "language_bias.center",
    "language_bias.unseen_language",
    "alignment.",
    "dataset_config.pairing",
    "dataset_config.anchor_language",
)
# Options that seeds of one row may differ in, beside those that `run_directory.FREE` lists. A later
# stage starts from a checkpoint of its own seed.
OF_THE_SEED = ("train_config.seed", "dataset_config.seed", NAME, START)
# A continuation may have other ones, but how long a run trained belongs to its figures.
LENGTH = ("native.max_steps", "train_config.num_epochs")
# Copies of other options, names for logs, and how the same numbers are computed and stored.
NO_EFFECT = (
    "dataset_config.fix_length_audio",
    "dataset_config.encoder_window",
    "dataset_config.feature_store",
    "dataset_config.dataset",
    "dataset_config.inference_mode",
    "model_config.llm_name",
    "model_config.load_encoder",
    "train_config.save_",
    "train_config.enable_",
    "train_config.run_test_",
    "fsdp_config.",
    "deepspeed_config",
    "metric",
)


def row_problems(place: Any, options: Mapping[str, Any]) -> Iterator[str]:
    """The message that a run's options are not those of the row its model_name claims, if so.

    Args:
        place: its config.yaml.
        options: flat; one that is missing has its default.
    """
    name = options[NAME]
    found = with_defaults(options)
    differing = _row_differences(found, experiment(name))
    if not differing:
        return
    others = [other for other in _names() if not _row_differences(found, experiment(other))]
    fits = (
        f"these are the settings of {' or '.join(others)}: put that name there"
        if others
        else "no row of the tables has these settings: leave this run out"
    )
    yield (
        f"{place}: {NAME} is {name}, but what makes this row differs from "
        f"conf/experiment/{name}.yaml (found / expected): {_told(differing)}; {fits}, or train "
        f"with experiment={name}"
    )


def experiment_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """A note for every run whose sizes, steps or data are not its experiment's."""
    for run in runs:
        name, found = run.options[NAME], with_defaults(run.options)
        expected = experiment(name)
        differing = _differences(_other(found), _other(expected))
        if found[LAMBDA] != expected[LAMBDA]:  # not 0 against > 0: that is refused
            differing[LAMBDA] = (found[LAMBDA], expected[LAMBDA])
        if differing:
            yield (
                f"{run.path} ({run.system}): differs from conf/experiment/{name}.yaml in "
                f"{_told(differing)}"
            )


def row_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """A note of what rows differ in beside what makes them: sizes, steps, batch, start, data.

    Checkpoints to start from are compared between runs of one seed: each seed may have its own.
    """
    first: dict[str, TableRun] = {}
    of_seed: dict[int, dict[str, TableRun]] = defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.seed):
        first.setdefault(run.system, run)
        of_seed[run.seed].setdefault(run.system, run)
    options = {system: _other(with_defaults(run.options)) for system, run in first.items()}
    told = []
    for key in sorted({key for found in options.values() for key in found}):
        told += _values(key, {system: found.get(key) for system, found in options.items()})
    for seed, found in of_seed.items():
        starts = {system: run.options.get(START) for system, run in found.items()}
        told += _values(f"{START} (seed {seed})", starts)
    if told:
        yield f"the rows differ in more than what makes them: {'; '.join(told)}"


def seed_notes(runs: Sequence[TableRun]) -> Iterator[str]:
    """Options other than the seed in which runs of one row differ: their mean mixes systems."""
    rows = defaultdict(list)
    for run in runs:
        rows[run.system].append(run.options)
    for system, options in rows.items():
        names = sorted({name for option in options for name in option})
        differing = [
            name
            for name in names
            if not name.startswith(_ignored())
            and any(option.get(name) != options[0].get(name) for option in options)
        ]
        if differing:
            shown = ", ".join(differing[:3]) + (", …" if len(differing) > 3 else "")
            yield f"{system}: its runs differ in more than the seed: {shown}"


@cache
def experiment(name: str) -> Mapping[str, Any]:
    """The flat options that `experiment=<name>` composes."""
    import dataclasses

    from slam_potsa.config.compose import compose_config

    return dict(flat(dataclasses.asdict(compose_config([f"experiment={name}"]))))


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Flat options, with the default of each that is missing, as of a run by an earlier version."""
    import dataclasses

    from slam_potsa.config import PotsaConfig

    return dict(flat(dataclasses.asdict(PotsaConfig()))) | dict(options)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _names() -> list[str]:
    return sorted({s for table in PAPER_TABLES.values() for s in table.systems} - set(ALIASES))


def _row_differences(
    found: Mapping[str, Any], expected: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """What makes the row and differs, where it has an effect: (found, expected) by key."""
    differing = _differences(_of_the_row(found), _of_the_row(expected))
    if LAMBDA in differing and all(differing[LAMBDA]):
        del differing[LAMBDA]  # both align, a trial with its own strength
    return differing


def _of_the_row(options: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in options.items() if key.startswith(ROW_KEYS)}
    without = ["alignment.diagnose_interval", "alignment.insight_interval"]
    if not own[LAMBDA]:  # then nothing else of it is read
        without += [key for key in own if key.startswith("alignment.") and key != LAMBDA]
    if not own["language_bias.enabled"]:
        without += ["language_bias.center", "language_bias.unseen_language"]
    if own["dataset_config.pairing"] != "anchor":
        without += ["dataset_config.anchor_language"]
    return {key: value for key, value in own.items() if key not in without}


def _other(options: Mapping[str, Any]) -> dict[str, Any]:
    """What changes numbers but makes no row; the batch in items, however it is accumulated."""
    sizes = [f"train_config.{name}" for name in (_BATCH_SIZE, _ACCUMULATED)]
    ignored = (*_ignored(), *ROW_KEYS, *NO_EFFECT, *sizes)
    kept = {
        key: value
        for key, value in options.items()
        if key.startswith(LENGTH) or not key.startswith(ignored)
    }
    return kept | {BATCH: options[sizes[0]] * options[sizes[1]]}


def _ignored() -> tuple[str, ...]:
    from slam_potsa.engine.run_directory import FREE

    return (*FREE, *OF_THE_SEED)


def _differences(
    found: Mapping[str, Any], expected: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Keys that both have, with other values. A key of one side only has no effect on the other."""
    return {
        key: (value, expected[key])
        for key, value in found.items()
        if key in expected and value != expected[key]
    }


def _told(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(
        f"{key} {_shown(one)} / {_shown(two)}" for key, (one, two) in differing.items()
    )


def _shown(value: Any) -> str:
    """One line, and prompts in quotation marks, so that blanks and line breaks are seen."""
    plain = isinstance(value, str) and value and not any(map(str.isspace, value))
    return value if plain else repr(value)


def _values(key: str, of_system: Mapping[str, Any]) -> list[str]:
    """ "train_config.lr 1e-05 (table1_ours), 0.0001 (table1_baseline)", where values differ."""
    systems: dict[str, list[str]] = defaultdict(list)
    for system, value in of_system.items():
        systems[_shown(value)].append(system)
    if len(systems) < 2:
        return []
    return [f"{key} " + ", ".join(f"{v} ({', '.join(names)})" for v, names in systems.items())]
