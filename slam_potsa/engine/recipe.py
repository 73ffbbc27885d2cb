"""A recipe: stages of training in sequence, each from the best checkpoint of the one before.

A recipe is one YAML file, `conf/recipe/NAME.yaml` or any other path:

    output_dir: outputs/potsa     # stage k is trained in <output_dir>/<k>_<name>
    processes: 1                  # of every stage, on this machine
    all:                          # what every stage has; a stage of its own
      model_config: {qformer_layers: 8}
    stages:                       # in this order
      asr:
        experiment: fleurs        # optional: a file of conf/experiment/
        choose:                   # optional: files of conf/'s other groups
          alignment: none
        train_config: {lr: 1e-4}  # any section or key of the configuration, over all the above
    tests:                        # manifests that the last stage's best model translates
      test: data/fleurs/test.jsonl

So a stage's configuration is what `finetune.py experiment=.. GROUP=.. KEY=VALUE ..` would compose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.config import PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.config.compose import compose_config, named_file, require_known_keys
from slam_potsa.config.option import option
from slam_potsa.engine.run_directory import BEST
from slam_potsa.errors import InputError, collecting, refuse

STAGE_NAME = re.compile(r"[a-z][a-z0-9_]*")
TAKEN = ("all", "tests", *(spec.name for spec in fields(PotsaConfig)))  # no names of stages
OF_THE_RECIPE = ("output_dir", "processes")


@dataclass
class RecipeFile:
    """The form of the file."""

    output_dir: str = option("", "folder of the stages' folders", affects="nothing")
    processes: int = option(1, "on this machine, one a GPU", low=1)
    all: dict[str, Any] = option({}, "what every stage has")
    stages: dict[str, Any] = option({}, "by name, in order")
    tests: dict[str, Any] = option({}, "manifests by name; null: none", affects="nothing")


class Stage(NamedTuple):
    """One training run. `config.ckpt_path` is the best model of the stage before, if none other."""

    name: str
    config: PotsaConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.train_config.output_dir)


class Recipe(NamedTuple):
    """What `load_recipe` read; the fields are the file's."""

    name: str
    processes: int
    stages: tuple[Stage, ...]
    tests: dict[str, str]


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name in conf/recipe/, or of that file, with every stage composed.

    Args:
        overrides: `key=value` for all stages; `STAGE.key=value` for one; `output_dir=`,
            `processes=` and `tests.NAME=` (null: leave it out) for the recipe.

    Raises InputError with the problems of the file and of all stages' configurations at once.
    """
    path, stages, problems = named_file("recipe", "recipe", name_or_path), [], []
    file, given = _read(path, overrides)
    require_known_keys(given["all"], OF_THE_RECIPE)  # once, not of every stage
    for name in file.stages:
        with collecting(problems, name):
            stages.append(_stage(file, name, [*given["all"], *given[name]]))
    refuse(problems)
    refuse(_between(stages))
    tests = {test: str(manifest) for test, manifest in file.tests.items() if manifest}
    return Recipe(path.stem, file.processes, tuple(stages), tests)


def _between(stages: Sequence[Stage]) -> Iterator[str]:
    """What a stage cannot take up of those before it."""
    by: dict[str, str] = {}  # part -> the stage that trained it first
    for stage in stages:
        config, parts = stage.config, stage.config.train_config.train_parts
        other = "llm.lora" if "llm.lora" in by else "llm" if "llm.lora" in parts else None
        if other in by and other not in parts:
            yield (
                f"{stage.name}: stage {by[other]} trained {other}, and train_config.train_parts="
                f"{parts} cannot take that up: LoRA stays llm.lora, an LLM trained whole stays llm"
            )
        stale = {
            "dataset_config.feature_store": config.dataset_config.feature_store,
            "language_bias.path": config.language_bias.enabled and config.language_bias.path,
        }
        for name in (name for name, path in stale.items() if path and "encoder" in by):
            yield f"{stage.name}: {name} is of the encoder before {by['encoder']} trained it: null"
        for part in parts:
            by.setdefault("encoder" if part.startswith("encoder") else part, stage.name)


def _read(path: Path, overrides: Sequence[str]) -> tuple[RecipeFile, dict[str, list[str]]]:
    """The file with the overrides of its own keys, and those that are for stages.

    Interpolations are not resolved: they belong to the stages' configurations.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        written = {key: value for key, value in dict(content).items() if value is not None}
        given = _sort_overrides(overrides, list(written.get("stages", ())))
        own = OmegaConf.from_dotlist(given.pop(""))
        merged = OmegaConf.merge(OmegaConf.structured(RecipeFile), written, own)
        file = RecipeFile(**OmegaConf.to_container(merged, resolve=False))
    except (OSError, YAMLError, OmegaConfBaseException, TypeError, ValueError) as bad:
        known = ", ".join(spec.name for spec in fields(RecipeFile))
        reason = str(bad).splitlines()[0]
        raise InputError(f"{path}: {reason}; expected a YAML file with {known}") from bad
    problems: list[str] = []
    with collecting(problems):
        check(file)
    if not file.output_dir or not file.stages:
        problems.append("expected output_dir, a folder, and stages by name, in order")
    problems += [
        f"stage {name!r}: expected a name of small letters, digits and _, none of {TAKEN}"
        for name in file.stages
        if not STAGE_NAME.fullmatch(name) or name in TAKEN
    ]
    refuse(f"{path}: {problem}" for problem in problems)
    return file, given


def _sort_overrides(overrides: Iterable[str], stages: Sequence[str]) -> dict[str, list[str]]:
    """By whom they are for: "" the recipe itself, "all", or a stage's name."""
    sorted_out: dict[str, list[str]] = {"": [], "all": [], **{name: [] for name in stages}}
    for override in overrides:
        key = override.partition("=")[0]
        first, dot, _ = key.partition(".")
        if dot and first in stages:
            sorted_out[first].append(override.removeprefix(f"{first}."))
        else:
            own = key in OF_THE_RECIPE or first == "tests"
            sorted_out["" if own else "all"].append(override)
    return sorted_out


# -- a stage's configuration -----------------------------------------------------------------------


def _stage(file: RecipeFile, name: str, given: Sequence[str]) -> Stage:
    folders = [f"{file.output_dir}/{k}_{stage}" for k, stage in enumerate(file.stages, start=1)]
    number = list(file.stages).index(name)
    folder = folders[number]
    fixed = {"train_config.output_dir": folder, "log_config.log_file": f"{folder}/train.log"}
    if number:  # whatever an experiment names
        fixed["ckpt_path"] = f"{folders[number - 1]}/{BEST}"
    composed = [*_overrides(file.all, file.stages[name] or {}), *_values(fixed)]
    config = compose_config([*composed, *given], meant=OF_THE_RECIPE)
    if config.train_config.output_dir != folder:
        raise InputError(
            f"train_config.output_dir={config.train_config.output_dir!r}: a stage's folder is "
            f"{folder}; set the recipe's output_dir"
        )
    return Stage(name, config)


def _overrides(*bodies: Mapping[str, Any]) -> list[str]:
    """Hydra's command line for bodies of stages, the later over the earlier."""
    choices: dict[str, Any] = {}
    sections: list[str] = []
    for body in bodies:
        if not isinstance(body, Mapping) or not isinstance(body.get("choose") or {}, Mapping):
            raise InputError("expected a mapping, in which choose is one too: {alignment: none}")
        choices |= body.get("choose") or {}
        choices |= {"experiment": body["experiment"]} if "experiment" in body else {}
        options = {k: v for k, v in body.items() if k not in ("choose", "experiment")}
        sections += _values(options)
    chosen = {group: names for group, names in choices.items() if names is not None}
    return [*_values(chosen), *sections]


def _values(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`key=value` of every leaf, quoted as Hydra reads it."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _values(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={literal(value)}"


def literal(value: Any) -> str:
    """A value as Hydra's command line has it.

    >>> literal(["a, b", 1, None, True])
    "['a, b',1,null,true]"
    """
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    return json.dumps(value)
