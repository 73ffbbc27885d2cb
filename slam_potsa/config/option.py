"""What an option is: a typed dataclass field with its meaning, limits and source."""

from __future__ import annotations

from dataclasses import field
from typing import Any

NOT_IN_PAPER = "not given by the POTSA paper; ours, see benchmarks"
SLAM = "SLAM-LLM"
COT_ST = "SLAM-LLM st_covost2 (CoT-ST)"


def option(default: Any, help: str, *, low=None, high=None, choices=None, source: str = "") -> Any:
    """A dataclass field with its meaning, limits (inclusive) and source, for checks and docs."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "source": source}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type) -> Any:
    return field(default_factory=kind)
