"""The rows a reader should see first: the worst by sentence chrF, and which guards fired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.guards import GUARDS, watch
from slam_potsa.evaluation.scores.conventions import Convention
from slam_potsa.evaluation.scores.metrics import metrics_for, texts


@dataclass(frozen=True)
class WorstRow:
    """One row; `guards` are those that fired on it, in the order of `guards.GUARDS`."""

    key: str
    direction: str
    chrf: float
    guards: tuple[str, ...]
    reference: str
    prediction: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def worst_rows(
    predictions: Sequence[Prediction], count: int = 10, convention: Convention | None = None
) -> list[WorstRow]:
    """The `count` rows of the lowest sentence chrF (sacrebleu's), ties in the file's order.

    chrF, since a sentence's BLEU is 0 as soon as it shares no four words with its reference.
    """
    convention, references = convention or Convention(), texts(predictions)[1]
    measures = {
        target: metrics_for(target, convention)["chrf"]
        for target in {item.target_language for item in predictions}
    }
    rows = []
    fired = watch(predictions)
    for item, reference, guards in zip(predictions, references, fired, strict=True):
        chrf = measures[item.target_language].sentence_score(item.prediction, [reference]).score
        names = tuple(name for name in GUARDS if name in guards)
        direction = f"{item.language}→{item.target_language}"
        rows.append(WorstRow(item.key, direction, chrf, names, reference, item.prediction))
    return sorted(rows, key=lambda row: row.chrf)[:count]


def worst_text(rows: Sequence[WorstRow]) -> str:
    """Three lines a row: what it is, the reference, the prediction."""
    lines = [f"the {len(rows)} rows of the lowest sentence chrF"]
    for row in rows:
        guards = f"  [{', '.join(row.guards)}]" if row.guards else ""
        lines.append(f"{row.chrf:5.1f}  {row.direction}  {row.key}{guards}")
        lines.append(f"       reference:  {row.reference}")
        lines.append(f"       prediction: {row.prediction}")
    return "\n".join(lines)
