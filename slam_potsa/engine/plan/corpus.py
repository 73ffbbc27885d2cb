"""How much there is to train on: counted in the manifest where it is here, else assumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.data.dataset import training_items
from slam_potsa.data.tasks import USES
from slam_potsa.engine.plan.assumptions import CORPORA
from slam_potsa.errors import InputError


@dataclass(frozen=True)
class Corpus:
    """What a stage trains on. Answers and prompt are in LLM tokens, answers with eos."""

    source: str  # where the numbers are from
    languages: tuple[str, ...]
    recordings: int
    hours: float
    items: int  # of an epoch
    pairs: int  # of the items; a pair is two rows
    mean_seconds: float
    longest_seconds: float
    mean_answer: float
    longest_answer: float
    prompt: int  # the longest


def corpus_of(config: PotsaConfig, given: Mapping[str, float]) -> Corpus:
    """The training data of a stage.

    Args:
        given: the assumptions, by name.

    Raises InputError with every bad line of a manifest that is here, or without durations.
    """
    data = config.dataset_config
    counted = Path(data.train_data_path or "").is_file()
    speech = _counted(data) if counted else _assumed(data)
    seconds = 3600 * speech["hours"] / speech["recordings"]
    written = {"asr": ("transcript",), "cot": ("transcript", "target")}
    answers = [
        1 + seconds * sum(given[f"{field}_tokens"] for field in written.get(task, ("target",)))
        for task in data.tasks
    ]
    shares = data.task_shares or [1] * len(answers)
    letters = max(len(getattr(data, USES[task][0])) for task in data.tasks)
    return Corpus(
        **speech,
        mean_seconds=seconds,
        mean_answer=fmean(answers, shares),
        longest_answer=given["longest_answer"] * max(answers),
        prompt=math.ceil(letters * given["tokens_per_letter"]),
    )


def _counted(data: DatasetConfig) -> dict[str, Any]:
    items = training_items(data)
    seconds = [utterance.duration for utterance in items.utterances if utterance.audio]
    if None in seconds:
        raise InputError(
            f"{data.train_data_path}: {seconds.count(None)} recordings have no `duration`, which a "
            "plan needs; write them with `slam-potsa prepare`"
        )
    return {
        "source": data.train_data_path,
        "languages": tuple(sorted({utterance.language for utterance in items.utterances})),
        "recordings": len(seconds),
        "hours": sum(seconds) / 3600,
        "items": len(items),
        "pairs": items.num_pairs,
        "longest_seconds": max(seconds),
    }


def _assumed(data: DatasetConfig) -> dict[str, Any]:
    corpus = CORPORA["covost2" if "covost" in data.train_data_path.lower() else "fleurs"]
    count = len(corpus["languages"])
    recordings = count * corpus["recordings"]
    items = recordings if data.pairing in ("none", "partner") or count == 1 else recordings // 2
    path = data.train_data_path or "train_data_path"
    return {
        "source": f"{path} is not here; assumed {corpus['label']}",
        "languages": tuple(corpus["languages"]),
        "recordings": recordings,
        "hours": count * corpus["hours"],
        "items": items,
        "pairs": items if data.pairing != "none" and count > 1 else 0,
        "longest_seconds": 30.0,  # Whisper's window
    }
