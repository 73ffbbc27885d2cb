"""CoT-ST's JSON Lines, SLAM-LLM's `st_covost2` recipe: `{"audio", "prompt", "gt", "source"}`.

    {"audio": "a.mp3", "prompt": "<|zh|>", "gt": "Hello.<|zh|>你好。", "source": "covost_enzh"}
    {"audio": "b.mp3", "prompt": "<|en|>", "gt": "Hello.", "source": "covost_en"}

The languages are those of `source`, whose end is the spoken and the target language; its loader
takes a row where `source` is the one that was asked for. Rows that prompt with the transcript
(`Hello.<|zh|>`, `covost_enenzh`) repeat others and are left out, as are transcription rows of
recordings that are translated in another row. The loader reads `key` too, so it is written.
Lost: sentence_id, duration; in the other direction the corpus in `source`, written as `covost`.
"""

from __future__ import annotations

from functools import lru_cache

from slam_potsa.data.convert import tags
from slam_potsa.data.convert.format import (
    Fields,
    Values,
    jsonl_format,
    needed,
    no_archives,
)
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError

CORPUS = "covost"  # what the recipe's scripts ask for


def _parse(fields: Fields) -> Values:
    prompt, answer = fields.text("prompt", needed=True), fields.text("gt", needed=True)
    values: Values = {"key": fields.text("key"), "audio": fields.text("audio", needed=True)}
    if not prompt or not answer:
        return values
    marker, found = tags.tags_at_end(prompt)
    if len(found) != 1:
        fields.wrong("prompt", prompt, "one language at its end, such as '<|zh|>'")
        return values
    code = fields.as_code(found[0])
    values["transcript"], values["target"] = tags.divide(answer, marker)
    if values["target"] is None:
        values["language"] = code
    else:
        values["language"] = _spoken(fields.text("source") or "", found[0])
        values["target_language"] = code
    return values


@lru_cache(maxsize=1024)  # a few sources, many rows
def _spoken(source: str, target: str) -> str | None:
    """`covost_enzh` and `covost_enenzh` with target `zh` -> `en`; None where it cannot be told."""
    end = source.rsplit("_", 1)[-1]
    spoken = end.removesuffix(target)
    half = spoken[: len(spoken) // 2]
    for candidate in (spoken, half if half * 2 == spoken else ""):
        try:
            return short_code(candidate)
        except InputError:
            continue
    return None


def _render(utterance: Utterance, audio: str) -> dict:
    needed(utterance, "transcript", *(["target_language"] if utterance.target else []))
    language, target = utterance.language, utterance.target_language
    row = {"key": utterance.key, "audio": no_archives(audio)}
    if utterance.target is None:
        return row | {
            "prompt": tags.tag(language),
            "gt": utterance.transcript,
            "source": f"{CORPUS}_{language}",
        }
    return row | {
        "prompt": tags.tag(target),
        "gt": f"{utterance.transcript}{tags.tag(target)}{utterance.target}",
        "source": f"{CORPUS}_{language}{target}",
    }


FORMAT = jsonl_format(
    "cot_st",
    "SLAM-LLM's st_covost2 (CoT-ST): audio, prompt, gt, source",
    _parse,
    _render,
    {"key", "audio", "language", "transcript", "target", "target_language"},
    tidy=tags.without_repetitions,
)
