"""A recipe: stages of training in sequence, each from the best checkpoint of the one before.

A recipe is one YAML file, `conf/recipe/NAME.yaml` or any other path:

    output_dir: outputs/potsa     # stage k is trained in <output_dir>/<k>_<name>
    engine: auto                  # of every stage
    processes: 1                  # of every stage, on this machine
    launcher: torchrun            # or deepspeed
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

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.errors import InputError

LAUNCHERS = ("torchrun", "deepspeed")
SECTIONS = tuple(spec.name for spec in fields(PotsaConfig))
STAGE_NAME = re.compile(r"[a-z][a-z0-9_]*")
OF_THE_RECIPE = ("output_dir", "processes", "launcher", "engine")
TOP = ("output_dir", "engine", "processes", "launcher", "all", "stages", "tests")


@dataclass(frozen=True)
class Launch:
    """How the processes of every stage are started.

    Attributes:
        processes: on this machine, one a GPU.
        launcher: "torchrun" or "deepspeed".
    """

    processes: int = 1
    launcher: str = "torchrun"


@dataclass(frozen=True)
class Stage:
    """One training run. `config.train_config.output_dir` is its folder.

    `config.ckpt_path` is None but for the first stage: the others start from the best checkpoint
    of the stage before, which is known only when that one has been trained.
    """

    name: str
    config: PotsaConfig

    @property
    def folder(self) -> Path:
        return Path(self.config.train_config.output_dir)


@dataclass(frozen=True)
class Recipe:
    """What `load_recipe` read.

    Attributes:
        tests: manifests that the last stage's best model translates, by name.
    """

    name: str
    output_dir: Path
    stages: tuple[Stage, ...]
    tests: dict[str, str]
    launch: Launch


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name in conf/recipe/, or of that file, with every stage composed.

    Args:
        overrides: `key=value` for all stages; `STAGE.key=value` for one; `output_dir=`,
            `processes=`, `launcher=` and `tests.NAME=` (null: leave it out) for the recipe.

    Raises InputError with the problems of the file and of all stages' configurations at once.
    """
    path = recipe_file(name_or_path)
    content = _read(path)
    given = _sort_overrides(overrides, tuple(content.get("stages") or ()))
    content = _merged(content, given.pop(""))
    problems = list(_format_problems(content))
    if problems:
        raise InputError([f"{path}: {problem}" for problem in problems])
    stages: list[Stage] = []
    where: dict[str, list[str]] = {}  # problem -> stages
    for number, name in enumerate(content["stages"], start=1):
        try:
            stages.append(_stage(content, number, name, given))
        except InputError as error:
            for problem in dict.fromkeys(error.problems):
                where.setdefault(problem, []).append(name)
    if where:
        raise InputError(
            f"{path.stem}, {_named(names, len(content['stages']))}: {problem}"
            for problem, names in where.items()
        )
    return Recipe(
        name=path.stem,
        output_dir=Path(content["output_dir"]),
        stages=tuple(stages),
        tests={test: str(manifest) for test, manifest in content["tests"].items() if manifest},
        launch=Launch(content["processes"], content["launcher"]),
    )


def _named(stages: Sequence[str], of: int) -> str:
    return f"stage {', '.join(stages)}" if len(stages) < of or of == 1 else "every stage"


def recipe_file(name_or_path: str) -> Path:
    """Raises InputError, with the recipes there are, for a name that is none and no file."""
    folder = conf_dir() / "recipe"
    for path in (folder / f"{name_or_path}.yaml", Path(name_or_path)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    raise InputError(
        f"recipe={name_or_path!r}: expected one of {', '.join(known)} or the path of a YAML file"
    )


def _read(path: Path) -> dict[str, Any]:
    """The file's mapping, interpolations unresolved: they belong to the stage's configuration."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with output_dir, stages, ...")
    return content


# -- overrides -------------------------------------------------------------------------------------


def _sort_overrides(overrides: Sequence[str], stages: Sequence[str]) -> dict[str, list[str]]:
    """By whom they are for: "" the recipe itself, "all", or a stage's name."""
    sorted_out: dict[str, list[str]] = {"": [], "all": [], **{name: [] for name in stages}}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals and not key.startswith("~"):
            raise InputError(f"{override!r}: expected key=value")
        first, dot, _ = key.partition(".")
        if dot and first in stages:
            sorted_out[first].append(override.removeprefix(f"{first}."))
        elif key in OF_THE_RECIPE or first == "tests":
            sorted_out[""].append(override)
        else:
            sorted_out["all"].append(override)
    return sorted_out


def _merged(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    base = {"engine": "auto", "processes": 1, "launcher": "torchrun", "all": {}, "tests": {}}
    base |= {key: value for key, value in content.items() if value is not None}
    merged = OmegaConf.merge(OmegaConf.create(base), OmegaConf.from_dotlist(list(overrides)))
    return OmegaConf.to_container(merged, resolve=False)


# -- the file's form -------------------------------------------------------------------------------


def _format_problems(content: Mapping[str, Any]) -> Iterator[str]:
    for key in content:
        if key not in TOP:
            yield f"unknown key {key}: known are {', '.join(TOP)}"
    if not isinstance(content.get("output_dir"), str):
        yield f"output_dir={content.get('output_dir')!r}: expected a folder"
    processes = content["processes"]
    if not (isinstance(processes, int) and processes >= 1):
        yield f"processes={processes!r}: expected a whole number, 1 or more"
    if content["launcher"] not in LAUNCHERS:
        yield f"launcher={content['launcher']!r}: expected one of {', '.join(LAUNCHERS)}"
    if not isinstance(content["tests"], dict):
        yield f"tests={content['tests']!r}: expected manifests by name"
    stages = content.get("stages")
    if not isinstance(stages, dict) or not stages:
        yield f"stages={stages!r}: expected stages by name, in order"
        return
    for name, body in {"all": content["all"], **stages}.items():
        yield from _stage_problems(str(name), body)


def _stage_problems(name: str, body: Any) -> Iterator[str]:
    known = ("experiment", "choose", *SECTIONS)
    if not STAGE_NAME.fullmatch(name) or name in SECTIONS or name == "tests":
        yield (
            f"stage {name!r}: expected a name of small letters, digits and _, none of the "
            f"configuration's own ({', '.join(SECTIONS)})"
        )
    if not isinstance(body, dict | None):
        yield f"stage {name}: expected a mapping with {', '.join(known)}"
        return
    for key, value in (body or {}).items():
        if key not in known:
            yield f"stage {name}: unknown key {key}: known are {', '.join(known)}"
        elif key == "choose" and not isinstance(value, dict):
            yield f"stage {name}: choose={value!r}: expected files by group, as alignment: none"


# -- a stage's configuration -----------------------------------------------------------------------


def _stage(
    content: Mapping[str, Any], number: int, name: str, given: Mapping[str, Sequence[str]]
) -> Stage:
    folder = f"{content['output_dir']}/{number}_{name}"
    fixed = {
        "train_config": {"output_dir": folder},
        "log_config": {"log_file": f"{folder}/train.log"},
        "engine": content["engine"],
    }
    if number > 1:
        fixed["ckpt_path"] = None  # an experiment may name one; here it is the stage before's
    composed = [*_overrides(content["all"], content["stages"][name]), *_values(fixed)]
    config = compose_config([*composed, *given["all"], *given[name]], meant=OF_THE_RECIPE)
    _check_stage(config, number, folder)
    return Stage(name, config)


def _check_stage(config: PotsaConfig, number: int, folder: str) -> None:
    problems = []
    if number > 1 and config.ckpt_path:
        problems.append(
            f"ckpt_path={config.ckpt_path!r}: only the first stage may name one, the others start "
            "from the stage before"
        )
    if config.train_config.output_dir != folder:
        problems.append(
            f"train_config.output_dir={config.train_config.output_dir!r}: a stage's folder is "
            f"{folder}; set the recipe's output_dir"
        )
    if problems:
        raise InputError(problems)


def _overrides(*bodies: Mapping[str, Any] | None) -> list[str]:
    """Hydra's command line for bodies of stages, the later over the earlier."""
    bodies = [body or {} for body in bodies]
    choices: dict[str, Any] = {}
    for body in bodies:
        choices |= body.get("choose") or {}
        if "experiment" in body:
            choices["experiment"] = body["experiment"]
    sections = [
        {key: value for key, value in body.items() if key not in ("choose", "experiment")}
        for body in bodies
    ]
    chosen = [f"{group}={name}" for group, name in choices.items() if name is not None]
    return chosen + [override for section in sections for override in _values(section)]


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

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.single).with_quotes()
    return repr(value)
