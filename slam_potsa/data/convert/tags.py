"""`<|zh|>`: the language tags of CoT-ST and LLM-SRT, which ask for a language and divide texts."""

from __future__ import annotations

import re

_TAG = re.compile(r"<\|([A-Za-z]{2,3}(?:[-_][A-Za-z]+)*)\|>")
_TAGS_AT_END = re.compile(rf"(?:{_TAG.pattern})+$")


def tag(code: str) -> str:
    return f"<|{code}|>"


def tags_at_end(prompt: str) -> tuple[str, list[str]]:
    """`"Hello.<|en|><|zh|>"` -> (`"<|en|><|zh|>"`, [`"en"`, `"zh"`])."""
    match = _TAGS_AT_END.search(prompt)
    return (match[0], _TAG.findall(match[0])) if match else ("", [])


def divide(answer: str, marker: str) -> tuple[str, str | None]:
    """`transcript<marker>translation` -> both; without the marker all of it is the transcript."""
    transcript, found, target = answer.partition(marker)
    return transcript.strip(), target.strip() if found else None


def without_repetitions(rows: list[tuple[int, dict]]) -> list[tuple[int, dict]]:
    """These files hold tasks, manifests hold recordings: a row that tells nothing new goes.

    Left out are rows that repeat a recording with the same texts (the task that also prompts with
    the transcript), and transcription rows of a recording that has the same transcript and a
    translation in another row.
    """
    translated = {
        (values["audio"], values["transcript"]) for _, values in rows if values.get("target")
    }
    kept, seen = [], set()
    for number, values in rows:
        name = values["audio"], values["transcript"], values.get("target")
        repeats = not name[2] and name[:2] in translated
        if name not in seen and not repeats:
            kept.append((number, values))
        seen.add(name)
    return kept
