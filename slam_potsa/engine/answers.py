"""What a model wrote, as predictions: the format of the task taken off again."""

from __future__ import annotations

import logging
from pathlib import Path

from slam_potsa.config import DatasetConfig
from slam_potsa.data.manifest import Utterance, read_manifest
from slam_potsa.data.predictions import Prediction, rewrite_pred
from slam_potsa.data.tasks import Templates, reference, task_to_decode, written_language
from slam_potsa.engine.journal import Answer

logger = logging.getLogger(__name__)


def prediction(
    answer: Answer,
    utterance: Utterance,
    recording: Utterance,
    *,
    task: str,
    templates: Templates,
    beams: int,
) -> Prediction:
    """`answer` to `utterance` as it is scored; `recording` is the utterance that was heard."""
    readings = [templates.read(task, utterance, text) for text in answer.texts]
    alternatives = None
    if answer.scores is not None:
        texts = [reading.text for reading in readings]
        alternatives = tuple(zip(texts, answer.scores, strict=True))
    return Prediction(
        key=utterance.key,
        language=utterance.language,
        source=recording.audio,
        target_language=written_language(task, utterance) or "",
        reference=reference(task, utterance),
        prediction=readings[0].text,
        beam=beams,
        transcript=utterance.transcript,
        heard=readings[0].heard,
        alternatives=alternatives,
    )


def warn_of_malformed(malformed: int, answers: int) -> None:
    """Say that answers of cot have no marker: they count whole as translations."""
    if malformed:
        logger.warning(
            "%d of %d answers lack the marker of dataset_config.cot_answer: the whole text is "
            "taken for the translation",
            malformed,
            answers,
        )


def take_format_off(decode_log: str | Path, data: DatasetConfig) -> None:
    """Rewrite `<decode_log>_pred` of SLAM-LLM's decoder without cot's format; `_raw` keeps it.

    The other tasks have no format, and their file stays as it is.
    """
    task = task_to_decode(data.tasks, data.test_task)
    if task != "cot":
        return
    templates, readings = Templates.of(data), []

    def read(utterance: Utterance, text: str) -> str:
        readings.append(templates.read(task, utterance, text))
        return readings[-1].text

    rewrite_pred(decode_log, read_manifest(data.test_data_path or data.val_data_path), read)
    warn_of_malformed(sum(reading.malformed for reading in readings), len(readings))
