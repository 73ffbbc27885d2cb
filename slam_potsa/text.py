"""Text for terminals: the one printer of tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


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
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths, left) for cells in lines)


def one_line(text: str) -> str:
    """`text` with its line breaks as blanks."""
    return text.replace("\r", " ").replace("\n", " ")


def some(names: Sequence[str], most: int = 10) -> str:
    """The first `most` of them: "a, b, …"."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    placed = [
        cell.ljust(width) if number < left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(placed).rstrip()
