"""The figures that the POTSA paper prints in its Tables 1 to 3, and which runs fill which row.

BLEU on FLEURS, x→zh. They are copied from the paper to stand beside what was measured here; none
of them is a result of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slam_potsa.errors import InputError

TARGET = "zh"
SEEN = ("en", "ja", "es", "ko", "ru")
ZERO_SHOT = ("fr", "de", "kea", "ceb", "ast", "ky")
AVERAGE, ZERO_AVERAGE = "avg.", "zero-shot avg."
OURS, BASELINE = "table1_ours", "table1_baseline"
# One system under the name that each table has for it.
ALIASES = {"table2_ot": OURS, "table3_ucb_lower": OURS}


@dataclass(frozen=True)
class PaperTest:
    """A test set of a table.

    Attributes:
        name: of its prediction file, `<name>_predictions.jsonl`.
        languages: its columns, where the table has one a language.
        average: the column of their mean.
        p_column: that of a paired test.
    """

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
    half_widths: Mapping[str, float] = field(default_factory=dict)


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


def _row(label: str, system: str | None, *figures: float) -> PaperRow:
    return PaperRow(label, system, dict(zip((*SEEN, AVERAGE, ZERO_AVERAGE), figures, strict=False)))


def _average(label: str, system: str, figure: float, half_width: float) -> PaperRow:
    return PaperRow(label, system, {AVERAGE: figure}, {AVERAGE: half_width})


_TEST = PaperTest("test", SEEN, AVERAGE, "p")
_ZERO_SHOT = PaperTest("zero_shot", ZERO_SHOT, ZERO_AVERAGE, "p zero-shot")
_INTERVALS = "the paper does not say what its ± intervals are taken over"

_TABLE_1 = PaperTable(
    number=1,
    title="main results and ablations",
    columns=(*SEEN, AVERAGE, ZERO_AVERAGE),
    tests=(_TEST, _ZERO_SHOT),
    rows=(
        _row("Qwen2-Audio", None, 37.45, 20.02, 28.69, 25.69, 29.01, 28.17, 16.67),
        _row("Qwen2.5-Omni", None, 38.35, 23.76, 27.81, 27.05, 29.69, 29.33, 16.91),
        _row("MinMo", None, 40.68, 25.14, 32.05, 23.39, 34.34, 31.12),
        _row("WhisperV3+Qwen2.5", BASELINE, 40.09, 24.32, 30.14, 27.07, 31.13, 30.55, 17.91),
        _row("Our model", OURS, 40.87, 25.97, 31.10, 28.97, 32.30, 31.84, 20.84),
        _row("(a) w/o bias comp.", "table1_a_no_bias",
             40.44, 24.83, 30.91, 28.06, 31.31, 31.11, 19.34),
        _row("(b) w/o OT align.", "table1_b_no_ot",
             40.22, 25.22, 30.89, 25.91, 31.40, 30.73, 18.51),
        _row("(c) en anchor, fixed", "table1_c_en_frozen",
             40.15, 24.51, 30.68, 27.17, 31.51, 30.80, 18.37),
        _row("(d) en anchor, trained", "table1_d_en_trained",
             23.69, 25.22, 19.50, 27.09, 31.21, 25.34, 11.53),
    ),
    comparisons={
        system: (BASELINE, system)
        for system in (OURS, "table1_a_no_bias", "table1_b_no_ot", "table1_c_en_frozen",
                       "table1_d_en_trained")
    },
    compared="the row against the baseline WhisperV3+Qwen2.5",
)  # fmt: skip

_TABLE_2 = PaperTable(
    number=2,
    title="alignment methods",
    columns=(AVERAGE,),
    tests=(_TEST,),
    rows=(
        _average("MSE", "table2_mse", 30.52, 0.17),
        _average("Cosine similarity", "table2_cosine", 30.74, 0.12),
        _average("OT", OURS, 31.84, 0.09),
    ),
    comparisons={"table2_mse": ("table2_mse", OURS), "table2_cosine": ("table2_cosine", OURS)},
    compared="OT against the row",
    notes=(_INTERVALS,),
)

_TABLE_3 = PaperTable(
    number=3,
    title="layer selection",
    columns=(AVERAGE,),
    tests=(_TEST,),
    rows=(
        _average("(i) single", "table3_single", 31.36, 0.12),
        _average("(ii) multi", "table3_multi", 30.19, 0.15),
        _average("(iii) random", "table3_random", 31.50, 0.11),
        _average("(iv) ours, all layers", "table3_ucb_all", 30.86, 0.14),
        _average("(v) ours", OURS, 31.84, 0.09),
    ),
    comparisons={OURS: ("table3_random", OURS)},
    compared="(v) against (iii)",
    notes=(
        _INTERVALS,
        "the paper's text calls (iv) the worst strategy; by the figures of its table it is (ii)",
    ),
)

PAPER_TABLES = {table.number: table for table in (_TABLE_1, _TABLE_2, _TABLE_3)}
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
