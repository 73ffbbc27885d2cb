"""The papers' tables as printed, and which runs fill which row (figures: `potsa_tables.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from slam_potsa.errors import InputError

FIGURES = Path(__file__).with_name("potsa_tables.yaml")


@dataclass(frozen=True)
class PaperTest:
    """A test set of a table: its name, languages, the columns of their mean and of a p value."""

    name: str
    languages: tuple[str, ...]
    average: str
    p_column: str


@dataclass(frozen=True)
class PaperRow:
    """One row as the paper prints it.

    Attributes:
        label: the paper's name for the system.
        system: `train_config.model_name` of the runs that fill it; None for rivals, which are not
            built here.
        figures: BLEU by column; a column that is missing has no figure in the paper.
        half_widths: of the 95 % interval, by column, where the paper has one.
    """

    label: str
    system: str | None
    figures: Mapping[str, float]
    half_widths: Mapping[str, float]


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        comparisons: by the system whose row shows the p value, (baseline, system) that are
            compared.
        compared: the same in words, for the legend.
        notes: what a reader of the paper should know.
    """

    number: int
    title: str
    columns: tuple[str, ...]
    tests: tuple[PaperTest, ...]
    rows: tuple[PaperRow, ...]
    comparisons: Mapping[str, tuple[str, str]]
    compared: str
    notes: tuple[str, ...] = ()

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems that runs can fill in, in the order of the rows."""
        return tuple(row.system for row in self.rows if row.system)


def _row(columns: Sequence[str], label: str, system: str | None, *cells: Any) -> PaperRow:
    pairs = [cell if isinstance(cell, list) else [cell, None] for cell in cells]
    figures = {column: figure for column, (figure, _) in zip(columns, pairs, strict=False)}
    widths = {column: width for column, (_, width) in zip(columns, pairs, strict=False) if width}
    return PaperRow(label, system, figures, widths)


def _table(number: int, found: Mapping[str, Any]) -> PaperTable:
    columns = found["columns"]
    rest = {name: found[name] for name in ("title", "comparisons", "compared", "notes")}
    tests = tuple(TESTS[name] for name in found["tests"])
    rows = tuple(_row(columns, *cells) for cells in found["rows"])
    return PaperTable(number, columns=tuple(columns), tests=tests, rows=rows, **rest)


_FOUND = yaml.safe_load(FIGURES.read_text(encoding="utf-8"))
TARGET: str = _FOUND["target_language"]
ALIASES: Mapping[str, str] = _FOUND["aliases"]
TESTS = {name: PaperTest(name, **found) for name, found in _FOUND["tests"].items()}
PAPER_TABLES = {number: _table(number, found) for number, found in _FOUND["tables"].items()}
SYSTEMS = sorted({system for table in PAPER_TABLES.values() for system in table.systems})


def paper_table(number: int) -> PaperTable:
    """Table 1, 2 or 3 as printed. Raises InputError for another number."""
    if number not in PAPER_TABLES:
        raise InputError(f"table {number!r}: the paper's tables here are 1, 2 and 3")
    return PAPER_TABLES[number]


def system_of(model_name: str) -> str | None:
    """The system that a `train_config.model_name` stands for; None where no table has it.

    >>> system_of("table2_ot")
    'table1_ours'
    """
    system = ALIASES.get(model_name, model_name)
    return system if system in SYSTEMS else None
