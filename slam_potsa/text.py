"""Text for terminals: the one printer of tables. And what a text should not hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

MARKUP = re.compile(r"</?s>|<\|?\w+\|?>|\[/?INST\]", re.IGNORECASE)  # <eos>, <|im_end|>


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> str:
    """Columns two spaces apart, as wide as their widest cell.

    Args:
        rows: cells as they are to be printed; None is an empty one.
        left: how many columns, from the left, hold text; the others are aligned to the right.

    >>> print(table(["language", "BLEU"], [["fr", 7.3], ["it", None]]))
    language  BLEU
    fr         7.3
    it
    """
    lines = [list(head), *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    columns = []
    for number, column in enumerate(zip(*lines, strict=True)):
        width = max(map(len, column))
        columns.append([c.ljust(width) if number < left else c.rjust(width) for c in column])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def one_line(text: str) -> str:
    """`text` with its line breaks as blanks."""
    return text.replace("\r", " ").replace("\n", " ")


def some(names: Sequence[str], most: int = 10) -> str:
    """The first `most` of them: "a, b, …"."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
