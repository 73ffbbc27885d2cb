"""All that `slam-potsa score` says of one prediction file, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.comet import Comet
from slam_potsa.evaluation.compare import (
    Comparison,
    check_blind,
    compare,
    comparisons_text,
    match,
)
from slam_potsa.evaluation.corpus_score import metrics_for, texts
from slam_potsa.evaluation.guards import GUARDS, watch
from slam_potsa.evaluation.presets import Convention
from slam_potsa.evaluation.scores import ScoreTable, score

SUFFIX = "_predictions.jsonl"
WORST = 10  # rows kept in the JSON where no number is asked for


@dataclass(frozen=True)
class ScoreRequest:
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
class PredictionFile:
    """A prediction file with what it is held against; both may be missing."""

    path: Path
    predictions: Sequence[Prediction]
    baseline: Sequence[Prediction] = ()
    blind: Sequence[Prediction] = ()


def read_file(
    path: Path, baseline: Path | None = None, blind: Path | None = None
) -> PredictionFile:
    """Read a prediction file and those it is held against.

    Raises InputError with all that cannot be read, or decodes other utterances.
    """
    read: list[Sequence[Prediction]] = []
    problems: list[str] = []
    for place in (path, baseline, blind):
        with collecting(problems):
            read.append(read_predictions(place) if place else ())
    refuse(problems)
    for place, found, check in ((baseline, read[1], match), (blind, read[2], check_blind)):
        with collecting(problems, place):
            if place:
                check(found, read[0])
    refuse(problems)
    return PredictionFile(path, *read)


def with_found_blind(file: PredictionFile) -> tuple[PredictionFile, list[str]]:
    """(`file` with the blind control that lies beside it, why it is without one that lies there).

    `test_blind_predictions.jsonl` beside `test_predictions.jsonl`.
    """
    path = file.path.with_name(file.path.name.replace(SUFFIX, f"_blind{SUFFIX}"))
    if path == file.path or not path.is_file():
        return file, []
    reasons: list[str] = []
    with collecting(reasons):
        file = replace(file, blind=read_file(file.path, blind=path).blind)
    return file, reasons


@dataclass(frozen=True)
class WorstRow:
    """One row; `guards` are those that fired on it, in the order of `guards.GUARDS`."""

    key: str
    direction: str
    chrf: float
    guards: tuple[str, ...]
    reference: str
    prediction: str


@dataclass(frozen=True)
class FileScores:
    """The scores of one file, and what was asked for besides.

    Attributes:
        comparisons: with the baseline.
        blind: BLEU with the blind control as baseline.
        worst: the rows a reader should see first.
    """

    path: Path
    request: ScoreRequest
    table: ScoreTable
    comparisons: Sequence[Comparison]
    blind: Sequence[Comparison]
    worst: Sequence[WorstRow]

    def text(self) -> str:
        test, parts = self.request.test, [self.table.text()]
        if self.comparisons:
            parts.append(comparisons_text(self.comparisons, test))
        if self.blind:
            head = ("blind control", "exchanged recordings", "heard")
            parts.append(comparisons_text(self.blind, test, head))
        if self.request.worst:
            parts.append(_worst_text(self.worst))
        return "\n\n".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: that of the table, and a list each of the rest."""
        return {
            "file": str(self.path),
            **self.table.as_dict(),
            "comparisons": [item.as_dict() for item in self.comparisons],
            "blind": [item.as_dict() for item in self.blind],
            "worst": [asdict(row) for row in self.worst],
        }


def score_file(
    file: PredictionFile, request: ScoreRequest, comet: Comet | None = None
) -> FileScores:
    """Score one file. Raises what `score` and `compare` raise."""
    asked = {name: getattr(request, name) for name in ("seen", "zero_shot", "convention")}
    tested = asked | {"test": request.test, "samples": request.samples}
    table = score(file.predictions, bootstrap=request.bootstrap, comet=comet, **asked)
    comparisons = compare(file.baseline, file.predictions, **tested) if file.baseline else []
    blind = compare(file.blind, file.predictions, **tested) if file.blind else []
    heard = [item for item in blind if item.metric == "BLEU"]
    count = WORST if request.worst is None else request.worst
    worst = worst_rows(file.predictions, count, request.convention)
    return FileScores(file.path, request, table, comparisons, heard, worst)


def worst_rows(
    predictions: Sequence[Prediction], count: int, convention: Convention
) -> list[WorstRow]:
    """The `count` rows of the lowest sentence chrF (sacrebleu's), ties in the file's order.

    chrF, since a sentence's BLEU is 0 as soon as it shares no four words with its reference.
    """
    targets = {item.target_language for item in predictions}
    measures = {target: metrics_for(target, convention)[convention.chrf_name] for target in targets}
    rows, references = [], texts(predictions)[1]
    for item, reference, fired in zip(predictions, references, watch(predictions), strict=True):
        chrf = measures[item.target_language].sentence_score(item.prediction, [reference]).score
        guards = tuple(name for name in GUARDS if name in fired)
        direction = f"{item.language}→{item.target_language}"
        rows.append(WorstRow(item.key, direction, chrf, guards, reference, item.prediction))
    return sorted(rows, key=lambda row: row.chrf)[:count]


def _worst_text(rows: Sequence[WorstRow]) -> str:
    """Three lines a row: what it is, the reference, the prediction."""
    lines = [f"the {len(rows)} rows of the lowest sentence chrF"]
    for row in rows:
        guards = f"  [{', '.join(row.guards)}]" if row.guards else ""
        lines.append(f"{row.chrf:5.1f}  {row.direction}  {row.key}{guards}")
        lines.append(f"       reference:  {row.reference}")
        lines.append(f"       prediction: {row.prediction}")
    return "\n".join(lines)
