"""Which data set a folder of manifests holds, so that no other one takes its place unseen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError

SUMMARY, BUILT_WITH = "summary.json", "built_with"


def refuse_another(output: Path, choices: Mapping[str, Any], *, replace: bool) -> None:
    """Raise InputError where `output` was built with other choices, unless `replace`.

    Args:
        choices: as this build will write them into summary.json, under `built_with`. Lists are
            compared without their order; what an earlier version did not write is not compared.
    """
    place = output / SUMMARY
    if replace or not place.is_file():
        return
    remedy = "choose another folder, or --replace"
    try:
        summary = json.loads(place.read_text(encoding="utf-8"))
        earlier = _earlier(summary)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{place}: not a summary of this command ({error}); {remedy}") from None
    differing = [
        key
        for key, value in choices.items()
        if key in earlier and _comparable(earlier[key]) != _comparable(value)
    ]
    if differing:
        found, wanted = (
            ", ".join(f"{key} {_text(values[key])}" for key in differing)
            for values in (earlier, choices)
        )
        raise InputError(f"{output} was built with {found}; now: {wanted}: {remedy}")


def _earlier(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a summary was built with; of an earlier version's, what can be read off it."""
    if not isinstance(summary, Mapping):
        raise TypeError("expected a JSON object")
    if BUILT_WITH in summary:
        return dict(summary[BUILT_WITH])
    names = ("language", "target_language", "view", "train_splits")
    known = {name: summary[name] for name in names if name in summary}
    if "licence" in summary:  # FLEURS'
        recordings = summary["recordings"]
        known |= {"dataset": "fleurs", "train_languages": list(recordings["train"])}
        known["zero_shot"] = list(recordings.get("zero_shot", ()))
    elif "view" in summary:
        known["dataset"] = "covost2"
    return known


def _comparable(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
