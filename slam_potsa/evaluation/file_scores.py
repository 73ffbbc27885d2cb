"""All that `slam-potsa score` says of one prediction file, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation.blind_control import BlindRow, blind_rows, blind_text, check_blind
from slam_potsa.evaluation.comet import Comet
from slam_potsa.evaluation.scores import Convention, ScoreTable, score
from slam_potsa.evaluation.significance import (
    Comparison,
    compare_corpora,
    comparisons_text,
    match,
)
from slam_potsa.evaluation.worst import WorstRow, worst_rows, worst_text

WORST = 10  # rows kept in the JSON where no number is asked for


@dataclass(frozen=True)
class Request:
    """How files are scored.

    Attributes:
        seen, zero_shot, bootstrap, convention: as of `score`.
        test, samples: of the paired test against a baseline, as of `compare`.
        worst: rows to print; None prints none and keeps WORST in the JSON.
    """

    convention: Convention
    seen: Sequence[str] = ()
    zero_shot: Sequence[str] = ()
    bootstrap: int = 1000
    test: str = "bs"
    samples: int | None = None
    worst: int | None = None


@dataclass(frozen=True)
class Source:
    """A prediction file with what it is held against; both may be missing."""

    path: Path
    predictions: Sequence[Prediction]
    baseline: Sequence[Prediction] = ()
    blind: Sequence[Prediction] = ()

    def check(self) -> None:
        """Raise InputError unless baseline and blind control decode the same utterances."""
        if self.baseline:
            match(self.baseline, self.predictions)
        if self.blind:
            check_blind(self.predictions, self.blind)


@dataclass(frozen=True)
class FileScores:
    """The scores of one file, and what was asked for besides."""

    path: Path
    request: Request
    table: ScoreTable
    comparisons: Sequence[Comparison]
    blind: Sequence[BlindRow]
    worst: Sequence[WorstRow]

    def text(self) -> str:
        parts = [self.table.text()]
        parts += [comparisons_text(self.comparisons, self.request.test)] if self.comparisons else []
        parts += [blind_text(self.blind)] if self.blind else []
        parts += [worst_text(self.worst)] if self.request.worst else []
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: that of the table, and a list each of the rest."""
        return {
            "file": str(self.path),
            **self.table.as_dict(),
            "comparisons": [item.as_dict() for item in self.comparisons],
            "blind": [row.as_dict() for row in self.blind],
            "worst": [row.as_dict() for row in self.worst],
        }


def score_file(source: Source, request: Request, comet: Comet | None = None) -> FileScores:
    """Score one file. Raises what `score`, `compare` and `blind_rows` raise."""
    groups = {"seen": request.seen, "zero_shot": request.zero_shot}
    convention, predictions = request.convention, source.predictions
    table = score(
        predictions, bootstrap=request.bootstrap, convention=convention, comet=comet, **groups
    )
    comparisons, blind = [], []
    if source.baseline:
        comparisons = compare_corpora(
            source.baseline,
            predictions,
            test=request.test,
            samples=request.samples,
            convention=convention,
            **groups,
        )
    if source.blind:
        blind = blind_rows(
            table,
            predictions,
            source.blind,
            convention=convention,
            test=request.test,
            samples=request.samples,
            **groups,
        )
    count = WORST if request.worst is None else request.worst
    worst = worst_rows(predictions, count, convention)
    return FileScores(source.path, request, table, comparisons, blind, worst)
