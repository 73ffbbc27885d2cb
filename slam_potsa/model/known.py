"""Sizes of public models, shipped with us: what can be planned without asking a hub.

`known.json` has, by hub name, the keys of a model's public config.json that decide its shapes.
A folder on this machine always goes before: its own config.json is read.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError


def model_config(name: str, option: str = "name", kind: str = "") -> Any:
    """The transformers configuration of a folder here, or of a hub name that is known.

    Args:
        option: the configuration key that `name` is the value of, for the message.
        kind: the model type that is wanted, such as "whisper"; "": any.

    Raises InputError for anything else, with what is known; no hub is ever asked.

    >>> model_config("openai/whisper-large-v3").d_model
    1280
    """
    from transformers import AutoConfig

    if Path(name).is_dir():
        try:
            return AutoConfig.from_pretrained(name, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{option}={name!r}: expected a folder with a transformers config.json "
                f"({str(error).splitlines()[0]})"
            ) from error
    if name in known():
        return AutoConfig.for_model(**known()[name])
    names = [other for other, sizes in known().items() if sizes["model_type"].startswith(kind)]
    raise InputError(
        f"{option}={name!r}: no folder here, and not one of the models whose sizes are shipped: "
        f"{', '.join(names)}; for any other give a local folder with its config.json (no weights "
        "are needed)"
    )


@cache
def known() -> dict[str, dict[str, Any]]:
    """Sizes by hub name."""
    return json.loads(Path(__file__).with_suffix(".json").read_text())
