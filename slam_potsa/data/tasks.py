"""What a row asks of the model: to transcribe (asr), to translate (s2tt), or both in turn (cot).

    task      prompt           answer                                          scored against
    asr       asr_prompt       transcript                                      transcript
    s2tt      prompt           target                                          target
    cot       cot_prompt       cot_answer: the transcript, a marker, target    target
    mt        mt_prompt        target, of the transcript without audio         target
    instruct  instruct_prompt  target, a response without audio                target

Prompts and `cot_answer` are options of dataset_config; what stands in braces is filled in from the
utterance. Those of asr and cot default to CoT-ST's (SLAM-LLM's `st_covost2`): the speech of
"Hello." asked for `<|zh|>` is answered with `Hello.<|zh|>你好。`
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from slam_potsa.config import DatasetConfig
from slam_potsa.config.sections import COT_ANSWER, IN_PROMPTS, PLACEHOLDER
from slam_potsa.data.languages import find_language
from slam_potsa.data.rows import Utterance, column
from slam_potsa.errors import InputError, refuse

TEXT = ("mt", "instruct")  # without audio
NEEDS = {"asr": ("audio", "transcript"), "s2tt": ("audio", "target")}
NEEDS |= {"cot": ("audio", "transcript", "target"), **dict.fromkeys(TEXT, ("transcript", "target"))}
USES = {"asr": ("asr_prompt",), "s2tt": ("prompt",), "cot": ("cot_prompt", "cot_answer")}
USES |= {"mt": ("mt_prompt",), "instruct": ("instruct_prompt",)}


def needed_fields(tasks: Iterable[str]) -> tuple[str, ...]:
    """The manifest's optional fields that `tasks` cannot do without, for `read_manifest(needs=)`.

    >>> needed_fields(["asr", "s2tt", "s2tt"])
    ('audio', 'transcript', 'target')
    """
    return tuple(dict.fromkeys(field for task in tasks for field in NEEDS[task]))


def fitting(task: str, utterances: Sequence[Utterance]) -> np.ndarray:
    """[R] bool: which have what the task needs."""
    values = zip(*(column(utterances, field) for field in NEEDS[task]), strict=True)
    return np.array([None not in own for own in values], bool)


def draw_task(tasks: Sequence[str], *place: Any, shares: Sequence[float] = ()) -> str:
    """One of `tasks`, a function of `place` alone; a name that is listed twice weighs double."""
    if len(set(tasks)) == 1:
        return tasks[0]
    rng = random.Random(":".join(map(str, ("task", *place))))
    return rng.choices(tasks, shares)[0] if shares else rng.choice(list(tasks))


def task_to_decode(tasks: Sequence[str], wanted: str = "") -> str:
    """`wanted`, or where it is empty the first of s2tt, cot, asr, mt, instruct that was trained."""
    tasks = [wanted] if wanted else tasks
    return next(task for task in ("s2tt", "cot", "asr", *TEXT) if task in tasks)


def reference(task: str, utterance: Utterance) -> str | None:
    """What the answer is scored against: the transcript of asr, otherwise the target."""
    return utterance.transcript if task == "asr" else utterance.target


def written_language(task: str, utterance: Utterance) -> str | None:
    """The language of the answer that is scored: the spoken one of asr."""
    return utterance.language if task == "asr" else utterance.target_language


def question(data: DatasetConfig, task: str, utterance: Utterance) -> str:
    """The prompt. Whether the utterance has what it asks for is `require`'s to tell."""
    return filled(getattr(data, USES[task][0]), utterance)


def answer(data: DatasetConfig, task: str, utterance: Utterance) -> str | None:
    """What the model is to write; None where the utterance lacks what the task needs."""
    if not fitting(task, [utterance])[0]:
        return None
    return filled(data.cot_answer, utterance) if task == "cot" else reference(task, utterance)


@dataclass(frozen=True)
class Reading:
    """What a model's text says."""

    text: str  # the transcription (asr) or translation
    heard: str | None = None  # what the model wrote down as heard before it translated (cot)
    malformed: bool = False  # the marker between the two is missing: `text` is the whole text


def read_answer(data: DatasetConfig, task: str, utterance: Utterance, text: str) -> Reading:
    """The inverse of `answer`, of what a model wrote: split at the first marker."""
    if task != "cot":
        return Reading(text.strip())
    parts = COT_ANSWER.fullmatch(data.cot_answer).groups()
    # Tokenizers may lose blanks at a border; a marker of blanks alone stays as it is.
    texts = (filled(part, utterance) for part in parts)
    before, marker, after = (part.strip() or part for part in texts)
    heard, found, translation = text.partition(marker)
    if not found:
        return Reading(text.strip(), malformed=True)
    heard = heard.strip().removeprefix(before).strip()
    return Reading(translation.strip().removesuffix(after).strip(), heard)


def require(data: DatasetConfig, tasks: Iterable[str], utterances: Sequence[Utterance]) -> None:
    """Raise InputError with all that prompts and answers of `tasks` ask for and utterances lack.

    Whether there is a transcript and a target is `read_manifest(needs=needed_fields(tasks))`'s.
    What joins without a target is asked nothing, nor what fits no task that has a share.
    """
    problems = []
    for used, name in dict.fromkeys((task, name) for task in tasks for name in USES[task]):
        for field in dict.fromkeys(PLACEHOLDER.findall(getattr(data, name))):
            if field not in IN_PROMPTS:
                continue
            values = column(utterances, field.removesuffix("_name"))
            without = (utterances[row] for row, value in enumerate(values) if value is None)
            asked = (u for u in without if u.language not in data.joining or u.target)
            shares = data.task_shares
            if lacking := [u.key for u in asked if not shares or fitting(used, [u])[0]]:
                others = f" (and {len(lacking) - 1:,} others)" if len(lacking) > 1 else ""
                asks = f"the {name} asks for {{{field}}}, which is not there"
                problems.append(f"utterance {lacking[0]!r}{others}: {asks}")
    refuse(problems)


def filled(template: str, utterance: Utterance) -> str:
    """`template` with this utterance's values in place of what stands in braces."""
    return PLACEHOLDER.sub(lambda found: str(_value(utterance, found[1])), template)


def _value(utterance: Utterance, placeholder: str) -> str | None:
    value = getattr(utterance, placeholder.removesuffix("_name"))
    return _english_name(value) if value and placeholder.endswith("_name") else value


@lru_cache
def _english_name(code: str) -> str:
    """`fr` -> `French`; a code that the table of names does not know stands for itself."""
    try:
        return find_language(code).name
    except InputError:
        return code
