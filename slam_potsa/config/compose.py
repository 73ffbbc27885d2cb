"""Hydra's part: where the YAML files are, and a configuration composed without a command line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from slam_potsa.config import SLAM_SWITCHES, AlignmentConfig, PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.config.option import sections
from slam_potsa.errors import InputError, refuse

NAMED = re.compile(r"(?<=^alignment\.terms\.)\w+")  # a name of the user's choice in a key


def conf_dir() -> Path:
    """The folder of YAML files: `conf/` of a checkout, or its copy in the installed package."""
    return _shipped("conf", "config.yaml")


def examples_dir() -> Path:
    """The entry scripts: `examples/potsa/` of a checkout, or their copy in the package."""
    return _shipped("examples", "finetune.py", "potsa")


def _shipped(name: str, holds: str, *inner: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    for folder in (package / name, package.parent.joinpath(name, *inner)):
        if (folder / holds).is_file():
            return folder
    raise InputError(f"the package was installed without its folder {name}; install it again")


def named_file(option: str, group: str, name: str | None, suffix: str = ".yaml") -> Path:
    """The path that `name` is, or the file of that name in conf/`group`/.

    Raises InputError, with the names that there are, for what is neither.
    """
    folder = conf_dir() / group
    for path in (folder / f"{name}{suffix}", Path(name or "")):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob(f"*{suffix}")))
    raise InputError(f"{option}={name!r}: expected the path of a file or one of {known}")


def register_schema() -> None:
    """Let `conf/config.yaml` build on the typed defaults: unknown keys and types are refused.

    Without terms of alignment: those are what the files of conf/alignment/ choose.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("selected_layers", _selected_layers, replace=True)
    schema = PotsaConfig(alignment=AlignmentConfig(terms={}))
    ConfigStore.instance().store(name="potsa_schema", node=schema)


def _selected_layers(path: str) -> list[int]:
    """`alignment.terms.NAME.layers=${selected_layers:PATH}`, a file of `select-layers`."""
    import yaml

    found = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}
    if not found.get("layers"):
        raise ValueError(f"{path}: no layers; `slam-potsa select-layers RUN MANIFEST` writes them")
    return found["layers"]


def compose_config(
    overrides: Sequence[str] = (), *, checked: bool = True, meant: Sequence[str] = ()
) -> PotsaConfig:
    """The configuration that `finetune.py OVERRIDES` would run.

    Args:
        meant: keys of the caller's own that an unknown one may be a slip of.

    Raises InputError for an override that Hydra does not accept and, unless `checked` is False,
    for values that are out of range or do not fit each other.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    require_known_keys(overrides, meant)
    refuse(_terms_twice(overrides))
    register_schema()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            composed = compose(config_name="config", overrides=list(overrides))
        config = defaults(PotsaConfig, composed)
    except (HydraException, OmegaConfBaseException) as error:
        reason = f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ else ""
        if "alignment.terms" in str(error):
            reason += ". A term is chosen before its options: alignment=ot, or alignment=[ot,mse]"
        raise InputError(f"configuration: {str(error).strip()}{reason}") from error
    if checked:
        check(config)
    return config


def require_known_keys(overrides: Sequence[str], meant: Sequence[str] = ()) -> None:
    """Raise InputError with every `key=value` whose key does not exist, and the nearest that do.

    Hydra would advise to append such a key with a `+`, which the typed configuration refuses.

    Args:
        meant: further keys to suggest, such as a recipe's.
    """
    known, problems = _known_keys(), []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        names = {NAMED.sub("NAME", key), key.partition("@")[0]}
        if names & set(known) or key.startswith(("hydra.", "hydra/")):
            continue
        if key == "recipe":
            problems.append("recipe=: recipes are run by `slam-potsa run recipe=NAME`")
            continue
        if key.rpartition(".")[2] in SLAM_SWITCHES:
            problems.append(f"{key} follows from train_config.train_parts=[projector,llm.lora]")
            continue
        near = difflib.get_close_matches(key, [*known, *meant], n=3, cutoff=0.5)
        near += [name for name in known if name.endswith(f".{key}") and name not in near]
        hint = f"did you mean {', '.join(near)}?" if near else "see docs/configuration.md"
        problems.append(f"unknown key {key!r}: {hint}")
    refuse(problems)


def _terms_twice(overrides: Sequence[str]) -> Iterator[str]:
    """Names of terms that several of the files alignment=[…] have: the last would rule silently."""
    import yaml

    chosen = [text[len("alignment=[") : -1] for text in overrides if text.startswith("alignment=[")]
    owners: dict[str, list[str]] = {}
    for name in chosen[-1].split(",") if chosen else ():
        path = conf_dir() / "alignment" / f"{name.strip()}.yaml"
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for term in found.get("terms", ()):
            owners.setdefault(term, []).append(name.strip())
    for term, files in owners.items():
        if len(files) > 1:
            told = f"{' and '.join(files)} both have a term {term!r}"
            yield f"alignment=[{chosen[-1]}]: {told}: choose one"


def _known_keys() -> list[str]:
    """All sections and options, dotted, and the folders of conf/ that files are chosen of."""
    known = [
        f"{path}.{spec.name}".lstrip(".")
        for path, kind in sections(PotsaConfig)
        for spec in dataclasses.fields(kind)
    ]
    folder = conf_dir()
    groups = {path.parent.relative_to(folder).as_posix() for path in folder.glob("*/**/*.yaml")}
    return known + sorted(groups - {"recipe"})  # recipes are no such choice
