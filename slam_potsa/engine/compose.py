"""Hydra's part: where the YAML files are, and a configuration composed without a command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.errors import InputError


def conf_dir() -> Path:
    """The folder of YAML files: `conf/` of a checkout, or its copy in the installed package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError("the package was installed without its conf/ folder; install it again")


def register_schema() -> None:
    """Let `conf/config.yaml` build on the typed defaults: unknown keys and types are refused."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="potsa_schema", node=PotsaConfig)


def compose_config(overrides: Sequence[str] = (), *, checked: bool = True) -> PotsaConfig:
    """The configuration that `finetune.py OVERRIDES` would run.

    Raises InputError for an override that Hydra does not accept and, unless `checked` is False,
    for values that are out of range or do not fit each other.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_schema()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            composed = compose(config_name="config", overrides=list(overrides))
        config = typed(composed)
    except (HydraException, OmegaConfBaseException) as error:
        reason = f" ({str(error.__cause__).splitlines()[0]})" if error.__cause__ else ""
        raise InputError(f"configuration: {str(error).strip()}{reason}") from error
    if checked:
        check(config)
    return config


def typed(composed: Any) -> PotsaConfig:
    """What Hydra composed, with its interpolations resolved and its lists plain ones."""
    from omegaconf import OmegaConf

    return defaults(PotsaConfig, OmegaConf.to_container(composed, resolve=True))
