"""What a row asks of the model: to transcribe (asr), to translate (s2tt), or both in turn (cot).

    task    prompt         answer                                          scored against
    asr     asr_prompt     transcript                                      transcript
    s2tt    prompt         target                                          target
    cot     cot_prompt     cot_answer: the transcript, a marker, target    target

The prompts and answers of asr and cot default to CoT-ST's (SLAM-LLM's `st_covost2`): the speech of
"Hello." asked for `<|zh|>` is answered with `Hello.<|zh|>你好。`
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from re import Match
from typing import Any

from slam_potsa.config import DatasetConfig
from slam_potsa.config.templates import (
    COT_ANSWER,
    IN_PROMPTS,
    PLACEHOLDER,
    TASKS,
    template_problems,
)
from slam_potsa.data.languages import language_name
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError, refuse

NEEDS = {"asr": ("transcript",), "s2tt": ("target",), "cot": ("transcript", "target")}
USES = {"asr": ("asr_prompt",), "s2tt": ("prompt",), "cot": ("cot_prompt", "cot_answer")}


def needed_fields(tasks: Iterable[str]) -> tuple[str, ...]:
    """The manifest's optional fields that `tasks` cannot do without, for `read_manifest(needs=)`.

    >>> needed_fields(["asr", "s2tt", "s2tt"])
    ('transcript', 'target')
    """
    tasks = check_tasks(tasks)
    return tuple(dict.fromkeys(field for task in tasks for field in NEEDS[task]))


def check_tasks(tasks: Iterable[str]) -> tuple[str, ...]:
    """`tasks` as a tuple. Raises InputError for an empty list and for names that are not known."""
    tasks = tuple(tasks)
    problems = [
        f"task {task!r}: expected one of {', '.join(TASKS)}"
        for task in dict.fromkeys(tasks)
        if task not in TASKS
    ]
    if problems or not tasks:
        raise InputError(problems or f"no tasks: expected some of {', '.join(TASKS)}")
    return tasks


def draw_task(tasks: Sequence[str], *place: Any) -> str:
    """One of `tasks`, a function of `place` alone; a name that is listed twice weighs double."""
    if len(set(tasks)) == 1:
        return tasks[0]
    return random.Random(":".join(map(str, ("task", *place)))).choice(list(tasks))


def task_to_decode(tasks: Sequence[str], wanted: str = "") -> str:
    """`wanted`, or where it is empty the first of s2tt, cot and asr that was trained."""
    if wanted:
        return check_tasks([wanted])[0]
    tasks = check_tasks(tasks)
    return next(task for task in ("s2tt", "cot", "asr") if task in tasks)


def reference(task: str, utterance: Utterance) -> str | None:
    """What the answer is scored against: the transcript of asr, otherwise the target."""
    return utterance.transcript if task == "asr" else utterance.target


def written_language(task: str, utterance: Utterance) -> str | None:
    """The language of the answer that is scored: the spoken one of asr."""
    return utterance.language if task == "asr" else utterance.target_language


@dataclass(frozen=True)
class Reading:
    """What a model's text says.

    Attributes:
        text: the transcription (asr) or translation.
        heard: what the model wrote down as heard before it translated (cot), else None.
        malformed: the marker between the two is missing; `text` is the whole text then.
    """

    text: str
    heard: str | None = None
    malformed: bool = False


@dataclass(frozen=True)
class Templates:
    """The prompts and answers of all tasks, with placeholders in braces.

    Prompts may hold `{language}` and `{target_language}` (codes), `{language_name}` and
    `{target_language_name}` (in English); `cot_answer` `{transcript}` and `{target}` as well.
    Raises InputError for other placeholders, and for a `cot_answer` that cannot be split again.
    """

    prompt: str
    asr_prompt: str = DatasetConfig.asr_prompt
    cot_prompt: str = DatasetConfig.cot_prompt
    cot_answer: str = DatasetConfig.cot_answer

    def __post_init__(self) -> None:
        problems = list(template_problems(vars(self)))
        refuse(problems)

    @classmethod
    def of(cls, data: DatasetConfig) -> Templates:
        return cls(**{field.name: getattr(data, field.name) for field in fields(cls)})

    def question(self, task: str, utterance: Utterance) -> str:
        """The prompt. Raises InputError where it asks for what the utterance does not have."""
        name = USES[task][0]
        return _filled(getattr(self, name), utterance, name)

    def answer(self, task: str, utterance: Utterance) -> str | None:
        """What the model is to write; None where the utterance lacks what the task needs."""
        if any(getattr(utterance, field) is None for field in NEEDS[task]):
            return None
        if task != "cot":
            return reference(task, utterance)
        return _filled(self.cot_answer, utterance, "cot_answer")

    def read(self, task: str, utterance: Utterance, text: str) -> Reading:
        """The inverse of `answer`, of what a model wrote: split at the first marker."""
        if task != "cot":
            return Reading(text.strip())
        parts = COT_ANSWER.fullmatch(self.cot_answer).groups()
        filled = (_filled(part, utterance, "cot_answer") for part in parts)
        # Tokenizers may lose blanks at a border; a marker of blanks alone stays as it is.
        before, marker, after = (part.strip() or part for part in filled)
        heard, found, translation = text.partition(marker)
        if not found:
            return Reading(text.strip(), malformed=True)
        heard = heard.strip().removeprefix(before).strip()
        return Reading(translation.strip().removesuffix(after).strip(), heard)

    def require(self, tasks: Iterable[str], utterances: Sequence[Utterance]) -> None:
        """Raise InputError with all that the templates of `tasks` ask for and utterances lack.

        Whether there is a transcript and a target is `read_manifest(needs=needed_fields(tasks))`'s.
        """
        problems = []
        for name in dict.fromkeys(name for task in tasks for name in USES[task]):
            for placeholder in dict.fromkeys(PLACEHOLDER.findall(getattr(self, name))):
                lacking = [u.key for u in utterances if _field(u, placeholder) is None]
                if lacking and placeholder in IN_PROMPTS:
                    others = f" (and {len(lacking) - 1:,} others)" if len(lacking) > 1 else ""
                    told = _absent(placeholder, name)
                    problems.append(f"utterance {lacking[0]!r}{others}: {told}")
        refuse(problems)


def _filled(template: str, utterance: Utterance, name: str) -> str:
    """`template`, the one called `name`, with this utterance's values."""

    def value(found: Match[str]) -> str:
        value = _field(utterance, found[1])
        if value is None:
            raise InputError(_absent(found[1], name))
        return _english_name(value) if found[1].endswith("_name") else value

    return PLACEHOLDER.sub(value, template)


def _field(utterance: Utterance, placeholder: str) -> str | None:
    return getattr(utterance, placeholder.removesuffix("_name"))


def _absent(placeholder: str, name: str) -> str:
    return f"the {name} asks for {{{placeholder}}}, which this utterance does not have"


@lru_cache
def _english_name(code: str) -> str:
    """`fr` -> `French`; a code that the table of names does not know stands for itself."""
    try:
        return language_name(code)
    except InputError:
        return code
