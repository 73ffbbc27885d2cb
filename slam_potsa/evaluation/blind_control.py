"""The blind control beside the score: what the LLM guesses without hearing the right recording.

`slam-potsa decode RUN NAME.jsonl --shuffle-audio` writes `NAME_blind_predictions.jsonl`, where
every sentence was answered to another one's recording. Its BLEU is what a language model's prior
and the prompt are worth on this test; only the difference was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.scores import Convention, ScoreTable, aligned, score
from slam_potsa.evaluation.significance import match

SUFFIX = "_predictions.jsonl"


@dataclass(frozen=True)
class BlindRow:
    """BLEU of one corpus with its own recordings and with exchanged ones."""

    name: str
    bleu: float
    blind: float

    @property
    def difference(self) -> float:
        return self.bleu - self.blind

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"difference": self.difference}


def blind_file(predictions: Path) -> Path | None:
    """`test_blind_predictions.jsonl` beside `test_predictions.jsonl`; None where there is none."""
    if not predictions.name.endswith(SUFFIX):
        return None
    name = predictions.name.removesuffix(SUFFIX)
    found = predictions.with_name(f"{name}_blind{SUFFIX}")
    return found if found.is_file() else None


def blind_rows(
    table: ScoreTable,
    predictions: Sequence[Prediction],
    blind: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    convention: Convention | None = None,
) -> list[BlindRow]:
    """The BLEU of `blind` beside that of each row of `table`, which scored `predictions`.

    Raises InputError unless both decoded the same utterances.
    """
    match(predictions, blind, ("the system", "the blind control"))
    guessed = score(
        blind, seen=seen, zero_shot=zero_shot, bootstrap=0, convention=convention, guards=False
    )
    return [
        BlindRow(row.name, row.bleu.value, guessed.row(row.name).bleu.value) for row in table.rows
    ]


def blind_text(rows: Sequence[BlindRow]) -> str:
    head = ("blind control", "BLEU", "exchanged recordings", "heard")
    body = [
        (row.name, f"{row.bleu:.1f}", f"{row.blind:.1f}", f"{round(row.difference, 1) + 0.0:+.1f}")
        for row in rows
    ]
    return aligned([head, *body])
