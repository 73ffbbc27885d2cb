"""The tasks that rows can have, and what their templates may hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

# Transcribe; translate; transcribe, then translate; without audio: translate, follow instructions.
TASKS = ("asr", "s2tt", "cot", "mt", "instruct")
IN_PROMPTS = ("language", "target_language", "language_name", "target_language_name")
IN_TEXT_PROMPTS = ("transcript", *IN_PROMPTS)
IN_ANSWERS = ("target", *IN_TEXT_PROMPTS)
TEMPLATES = {
    "prompt": IN_PROMPTS,
    "asr_prompt": IN_PROMPTS,
    "cot_prompt": IN_PROMPTS,
    "mt_prompt": IN_TEXT_PROMPTS,
    "instruct_prompt": IN_TEXT_PROMPTS,
    "cot_answer": IN_ANSWERS,
}
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# cot_answer in three: what stands before the transcript, the marker, what follows the target.
COT_ANSWER = re.compile(r"(.*?)\{transcript\}(.+?)\{target\}(.*)", re.DOTALL)


def template_problems(templates: Mapping[str, str], where: str = "") -> Iterator[str]:
    """What is wrong with templates by their option's name, each with what is allowed there."""
    for name, allowed in TEMPLATES.items():
        known = ", ".join(f"{{{placeholder}}}" for placeholder in allowed)
        for found in dict.fromkeys(PLACEHOLDER.findall(templates[name])):
            if found not in allowed:
                yield f"{where}{name}: unknown placeholder {{{found}}}; known are {known}"
    answer = templates["cot_answer"]
    once = all(answer.count(f"{{{name}}}") == 1 for name in ("transcript", "target"))
    if not (once and COT_ANSWER.fullmatch(answer)):
        yield (
            f"{where}cot_answer={answer!r}: expected {{transcript}}, a marker, then {{target}}, "
            "each once: decoding splits the model's text at the marker"
        )
