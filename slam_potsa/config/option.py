"""What an option is: a typed field that knows its meaning, its limits and what it affects."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import field
from typing import Any, Literal

from slam_potsa.errors import InputError, refuse

AI_STA = "AI-STA"
NOT_IN_PAPER = "not given by the POTSA paper; ours, see benchmarks"
SLAM = "SLAM-LLM"
COT_ST = "SLAM-LLM st_covost2 (CoT-ST)"
OURS = "ours, not in the papers: docs/your_language.md"
AUTHORS = "authors' public working tree, may differ from the final code"

# What a change of an option changes:
#   weights  what a training step computes, and so all that comes after it; never free once begun
#   outcome  when training stops and which of its weights are kept; free for a continuation
#   answers  what a trained model writes
#   nothing  places, names, logs, speed, and copies of other options
Affects = Literal["weights", "outcome", "answers", "nothing"]


def option(
    default: Any,
    help: str,
    *,
    affects: Affects = "weights",
    low: float | None = None,
    high: float | None = None,
    choices: Collection[str] | None = None,
    source: str = "",
    row: bool = False,
) -> Any:
    """A dataclass field with its meaning, limits (inclusive) and source, for checks and docs.

    Args:
        affects: an option that nobody has thought about is never free.
        row: it is part of what makes a row of the papers' tables; see `OptionsOfARow`.
    """
    metadata = {"affects": affects, "help": help, "source": source, "row": row}
    metadata |= {"low": low, "high": high, "choices": choices}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class OptionsOfARow:
    """A section all of whose options that affect the weights make a row of the papers' tables."""


def section(kind: type) -> Any:
    """A field that holds the options of `kind`."""
    return field(default_factory=kind)


def sections_by_name(kind: type, **default: Any) -> Any:
    """A field that holds any number of sections of `kind`, by names of the user's choice."""
    return field(default_factory=lambda: deepcopy(default), metadata={"each": kind})


def section_kind(spec: dataclasses.Field) -> type | None:
    """The dataclass whose options a field holds, once or by name; None for an option."""
    if dataclasses.is_dataclass(spec.default_factory):
        return spec.default_factory
    return spec.metadata.get("each")


def sections(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    """(dotted path, dataclass) of `kind` and of all sections in it; NAME for the user's names."""
    yield path, kind
    for spec in dataclasses.fields(kind):
        if inner := section_kind(spec):
            name = f"{path}.{spec.name}" + (".NAME" if "each" in spec.metadata else "")
            yield from sections(inner, name.lstrip("."))


def options(config: Any, path: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """(dotted name, value, metadata) of every option of a section, in their order."""
    for spec in dataclasses.fields(config):
        value, name = getattr(config, spec.name), f"{path}{spec.name}"
        if "each" in spec.metadata:
            for key, one in value.items():
                yield from options(one, f"{name}.{key}.")
        elif section_kind(spec):
            yield from options(value, f"{name}.")
        else:
            facts = dict(spec.metadata)
            facts["row"] |= isinstance(config, OptionsOfARow) and facts["affects"] == "weights"
            yield name, value, facts


def flat(
    config: Any, *, affects: Collection[Affects] | None = None, row: bool | None = None
) -> dict[str, Any]:
    """The options of a section by dotted name, such as `alignment.terms.ot.weight`.

    Args:
        affects: only those that affect one of these.
        row: only those that are (True) or are not (False) part of what makes a row.
    """
    return {
        name: value
        for name, value, facts in options(config)
        if (affects is None or facts["affects"] in affects) and (row is None or facts["row"] == row)
    }


def defaults(kind: type, given: Any = None, ignored: Collection[str] = ()) -> Any:
    """An instance of the section `kind` from `given` (None, a mapping, a section or DictConfig).

    SLAM-LLM hands a factory only what the user's configuration holds; what is missing there takes
    its default from here. Raises InputError on unknown keys that are not in `ignored`.
    """
    if dataclasses.is_dataclass(given):
        given = dataclasses.asdict(given)
    elif type(given) is not dict and given is not None:
        from omegaconf import OmegaConf

        given = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    if isinstance(given, Mapping):
        given = {name: value for name, value in given.items() if name not in ignored}
    return _from_mapping(kind, {} if given is None else given, "")


def _from_mapping(kind: type, given: Any, path: str) -> Any:
    if not isinstance(given, Mapping):
        raise InputError(f"{path[:-1]}={given!r}: expected options of a section, by name")
    known = {spec.name: spec for spec in dataclasses.fields(kind)}
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(
            [f"unknown key {path}{key}: known are {', '.join(sorted(known))}" for key in unknown]
        )
    hints = typing.get_type_hints(kind)
    refuse(
        f"{path}{key}={value!r}: expected {known[key].type}"
        for key, value in given.items()
        if section_kind(known[key]) is None and not _fits(value, hints[key])
    )
    return kind(**{key: _value(known[key], v, f"{path}{key}.") for key, v in given.items()})


def _fits(value: Any, hint: Any) -> bool:
    """An int that is not too large may stand for a float, and a list holds what its hint says."""
    if typing.get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    kinds = typing.get_args(hint) or (hint,)
    as_float = float in kinds and type(value) is int and abs(value) <= sys.float_info.max
    return as_float or type(value) in kinds


def _value(spec: dataclasses.Field, value: Any, path: str) -> Any:
    kind = section_kind(spec)
    if kind is None:
        return value
    if "each" not in spec.metadata:
        return _from_mapping(kind, value, path)
    if not isinstance(value, Mapping):
        raise InputError(f"{path[:-1]}={value!r}: expected sections by name")
    return {name: _from_mapping(kind, one, f"{path}{name}.") for name, one in value.items()}
