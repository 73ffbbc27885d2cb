"""What is said of bad lines: equal problems of many lines once, and whose format it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MANY = 20  # problems that are listed one by one; more are grouped

# What a reader tells apart: the field, and whether it is missing, unknown or has a wrong value.
_KIND = re.compile(r"(field '[^']*'): (found nothing|found null|found|not known)")
_VALUES = re.compile(r"found .*?(?=, expected)|, found .*|'[^']*'|[\d.]+|\(.*\)")

# Fields that a format always has and a manifest never; the first that fits.
TELLTALES = {
    "lhotse": {"recording", "supervisions"},
    "ms_swift": {"messages"},
    "nemo": {"audio_filepath"},
    "cot_st": {"prompt", "gt"},
    "slam_llm": {"source", "target"},
}


def grouped(path: str | Path, problems: Sequence[tuple[int, str]]) -> list[str]:
    """`path:line: problem` of each (line, problem); those of one kind once where they are many.

    >>> grouped("m.jsonl", [(n, "field 'key': found nothing, expected ...") for n in range(1, 31)])
    ["m.jsonl:1 (and 29 other lines): field 'key': found nothing, expected ..."]
    """
    if len(problems) <= MANY:
        return [f"{path}:{number}: {problem}" for number, problem in problems]
    first: dict[str, tuple[int, str]] = {}
    count: dict[str, int] = {}
    for number, problem in problems:
        kind = _kind(problem)
        first.setdefault(kind, (number, problem))
        count[kind] = count.get(kind, 0) + 1
    return [
        f"{path}:{number}{other_lines(count[kind] - 1)}: {problem}"
        for kind, (number, problem) in first.items()
    ]


def _kind(problem: str) -> str:
    field = _KIND.match(problem)
    if field:
        return f"{field[1]} {field[2]} {'already' if ', which line ' in problem else ''}"
    return _VALUES.sub("", problem)  # a line that is no object, a language that is not known, ...


def other_lines(count: int) -> str:
    """What stands behind the first line's number: `" (and 4,999 other lines)"`, or nothing."""
    return f" (and {count:,} other line{'s' * (count != 1)})" if count else ""


def foreign_format(row: Any) -> str | None:
    """The format of `slam-potsa prepare convert` that a line's object seems to be in."""
    if not isinstance(row, dict):
        return None
    for name, fields in TELLTALES.items():
        if fields <= row.keys():
            if name == "cot_st" and str(row["prompt"]).count("<|") > 1:
                return "llm_srt"  # the spoken language too
            return None if name == "slam_llm" and "audio" in row else name
    return None


def foreign_hint(path: str | Path, lines: Iterable[str]) -> list[str]:
    """What to do where the first of these lines that is an object is another format's."""
    for line in lines:
        try:
            name = foreign_format(json.loads(line))
        except json.JSONDecodeError:
            continue
        if name is None:
            return []
        return [
            f"{path}: these look like {name}'s fields: slam-potsa prepare convert {path} OUT.jsonl "
            f"--from {name}"
        ]
    return []
