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
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from slam_potsa.config import DatasetConfig
from slam_potsa.config.templates import COT_ANSWER, PLACEHOLDER, TASKS, template_problems
from slam_potsa.data.jsonl import MANY
from slam_potsa.data.languages import language_name
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError

NEEDS = {"asr": ("transcript",), "s2tt": ("target",), "cot": ("transcript", "target")}


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
        if problems:
            raise InputError(problems)

    @classmethod
    def of(cls, data: DatasetConfig) -> Templates:
        return cls(**{field.name: getattr(data, field.name) for field in fields(cls)})

    def question(self, task: str, utterance: Utterance) -> str:
        """The prompt. Raises InputError where it asks for what the utterance does not have."""
        name = _templates_of(task)[0]
        return _fill(getattr(self, name), utterance, name)

    def answer(self, task: str, utterance: Utterance) -> str | None:
        """What the model is to write; None where the utterance lacks what the task needs."""
        if any(getattr(utterance, field) is None for field in NEEDS[task]):
            return None
        if task != "cot":
            return reference(task, utterance)
        return _fill(self.cot_answer, utterance, "cot_answer")

    def read(self, task: str, utterance: Utterance, text: str) -> Reading:
        """The inverse of `answer`, of what a model wrote: split at the first marker."""
        if task != "cot":
            return Reading(text.strip())
        before, marker, after = (
            _trimmed(_fill(part, utterance, "cot_answer"))
            for part in COT_ANSWER.fullmatch(self.cot_answer).groups()
        )
        heard, found, translation = text.partition(marker)
        if not found:
            return Reading(text.strip(), malformed=True)
        heard = heard.strip().removeprefix(before).strip()
        return Reading(translation.strip().removesuffix(after).strip(), heard)

    def require(self, tasks: Iterable[str], utterances: Iterable[Utterance]) -> None:
        """Raise InputError with every utterance that a template of `tasks` asks for too much.

        Where they are many, each thing that is asked for is said once, with how many lack it.
        Whether there is a transcript and a target is `read_manifest(needs=needed_fields(tasks))`'s.
        """
        names = dict.fromkeys(name for task in tasks for name in _templates_of(task))
        asked = [
            (placeholder, name)
            for name in names
            for placeholder in dict.fromkeys(PLACEHOLDER.findall(getattr(self, name)))
            if placeholder not in ("transcript", "target")
        ]
        lacking = [
            (utterance.key, problem)
            for utterance in utterances
            for placeholder, name in asked
            if (problem := _absent(utterance, placeholder, name))
        ]
        if lacking:
            raise InputError(list(_told(lacking)))


def _told(lacking: Sequence[tuple[str, str]]) -> Iterator[str]:
    """(key, problem) as text; equal problems once, where they are many."""
    count = Counter(problem for _, problem in lacking)
    for key, problem in lacking:
        if len(lacking) <= MANY:
            yield f"utterance {key!r}: {problem}"
        elif others := count.pop(problem, 0):  # the first that has it
            more = f" (and {others - 1:,} others)" if others > 1 else ""
            yield f"utterance {key!r}{more}: {problem}"


def _templates_of(task: str) -> tuple[str, ...]:
    return {"asr": ("asr_prompt",), "s2tt": ("prompt",), "cot": ("cot_prompt", "cot_answer")}[task]


def _fill(template: str, utterance: Utterance, name: str) -> str:
    return PLACEHOLDER.sub(lambda found: _value(utterance, found[1], name), template)


def _value(utterance: Utterance, placeholder: str, name: str) -> str:
    problem = _absent(utterance, placeholder, name)
    if problem:
        raise InputError(problem)
    value = getattr(utterance, placeholder.removesuffix("_name"))
    return _english_name(value) if placeholder.endswith("_name") else value


def _absent(utterance: Utterance, placeholder: str, name: str) -> str:
    if getattr(utterance, placeholder.removesuffix("_name")) is not None:
        return ""
    return f"the {name} asks for {{{placeholder}}}, which this utterance does not have"


def _english_name(code: str) -> str:
    """`fr` -> `French`; a code that the table of names does not know stands for itself."""
    try:
        return language_name(code)
    except InputError:
        return code


def _trimmed(text: str) -> str:
    """Tokenizers may lose blanks at a border; a marker of blanks alone stays as it is."""
    return text.strip() or text
