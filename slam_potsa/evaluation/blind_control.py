"""The blind control beside the score: what the LLM guesses without hearing the right recording.

`slam-potsa decode RUN NAME.jsonl --shuffle-audio` writes `NAME_blind_predictions.jsonl`, where
every sentence was answered to another one's recording. Its BLEU is what a language model's prior
and the prompt are worth on this test; only the difference was heard. A paired test says whether
it is more than the choice of sentences makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import Convention, ScoreTable, aligned, score
from slam_potsa.evaluation.significance import compare_corpora, match

SUFFIX = "_predictions.jsonl"


@dataclass(frozen=True)
class BlindRow:
    """BLEU of one corpus with its own recordings and with exchanged ones.

    Attributes:
        p_value: of the difference, by a paired test; None for a mean of languages, which has none.
        signature: sacrebleu's, with the test, its samples and its seed.
    """

    name: str
    bleu: float
    blind: float
    p_value: float | None = None
    signature: str = ""

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


def check_blind(
    predictions: Sequence[Prediction], blind: Sequence[Prediction], path: Path | None = None
) -> None:
    """Raise InputError, naming `path`, unless `blind` is a blind decoding of the same utterances.

    It is one if every row names another recording than the system's row does.
    """
    place = f"{path}: " if path else ""
    try:
        pairs = match(predictions, blind, ("the system", "the blind control"))
    except InputError as error:
        raise InputError([f"{place}{problem}" for problem in error.problems]) from None
    same = [own.key for own, other in pairs if own.source == other.source]
    if same:
        shown = ", ".join(map(repr, same[:10])) + (", …" if len(same) > 10 else "")
        raise InputError(
            f"{place}{len(same)} of {len(pairs)} utterances of the blind control have the system's "
            f"own recording as source: {shown}; expected another sentence's for each, as "
            "slam-potsa decode --shuffle-audio writes it"
        )


def blind_rows(
    table: ScoreTable,
    predictions: Sequence[Prediction],
    blind: Sequence[Prediction],
    *,
    seen: Iterable[str] = (),
    zero_shot: Iterable[str] = (),
    convention: Convention | None = None,
    test: str = "bs",
    samples: int | None = None,
) -> list[BlindRow]:
    """The BLEU of `blind` beside that of each row of `table`, which scored `predictions`.

    `test` and `samples` are those of `compare`, which tests the difference. Raises InputError
    unless `blind` is a blind decoding of the same utterances.
    """
    check_blind(predictions, blind)
    seen, zero_shot = list(seen), list(zero_shot)
    groups = {"seen": seen, "zero_shot": zero_shot, "convention": convention}
    guessed = score(blind, bootstrap=0, guards=False, **groups)
    compared = compare_corpora(blind, predictions, test=test, samples=samples, **groups)
    tested = {item.name: item for item in compared if item.metric == "BLEU"}
    rows = []
    for row in table.rows:
        scores = row.name, row.bleu.value, guessed.row(row.name).bleu.value
        found = tested.get(row.name)
        rows.append(BlindRow(*scores, *((found.p_value, found.signature) if found else ())))
    return rows


def blind_text(rows: Sequence[BlindRow]) -> str:
    """One line a corpus; below, what the p-values are of, with the tests' signatures."""
    head = ("blind control", "BLEU", "exchanged recordings", "heard", "p")
    body = [
        (
            row.name,
            f"{row.bleu:.1f}",
            f"{row.blind:.1f}",
            f"{round(row.difference, 1) + 0.0:+.1f}",
            "" if row.p_value is None else f"{row.p_value:.4f}",
        )
        for row in rows
    ]
    signatures = dict.fromkeys(f"BLEU|{row.signature}" for row in rows if row.signature)
    note = "p: of what was heard, each row by itself, not corrected for the number of rows"
    return "\n".join([aligned([head, *body]), *([note] if signatures else []), *signatures])
