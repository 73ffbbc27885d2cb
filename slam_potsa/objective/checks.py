"""What is wrong with the options of this folder's dataclasses: all of it, not the first alone."""

from __future__ import annotations

import math
from collections.abc import Mapping


def unexpected(options: object, expected: Mapping[str, tuple[str, object]]) -> list[str]:
    """A line for each attribute of `options` that is wrong: {name: (what is expected, it fits)}."""
    return [
        f"{name}: expected {what}, got {getattr(options, name)!r}"
        for name, (what, fits) in expected.items()
        if not fits
    ]


def is_positive(number: object) -> bool:
    """A finite number above 0; True is none."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and 0 < number < math.inf
