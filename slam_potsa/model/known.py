"""Sizes of public models, shipped with us: what can be planned without asking a hub.

`known.json` has, by hub name, the keys of a model's public config.json that decide its shapes.
A folder on this machine always goes before: its own config.json is read.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError


def known_names(model_type: str | None = None) -> tuple[str, ...]:
    """Hub names whose sizes are shipped, of one `model_type` ("whisper", "qwen2") or of all."""
    every = model_type is None
    return tuple(n for n, sizes in _known().items() if every or sizes["model_type"] == model_type)


def model_config(name: str, *, option: str = "name", model_type: str | None = None) -> Any:
    """The transformers configuration of a folder here, or of a hub name that is known.

    Args:
        option: the configuration key that `name` is the value of, for the message.
        model_type: offer these in the message only.

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
    if name not in _known():
        raise InputError(_unknown(name, option, known_names(model_type)))
    return AutoConfig.for_model(**_known()[name])


@cache
def _known() -> dict[str, dict[str, Any]]:
    return json.loads(Path(__file__).with_suffix(".json").read_text())


def _unknown(name: str, option: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return (
        f"{option}={name!r}: no folder here, and not one of the models whose sizes are shipped"
        f"{hint}. Known are {', '.join(known)}; for any other give a local folder with its "
        "config.json (no weights are needed)"
    )
