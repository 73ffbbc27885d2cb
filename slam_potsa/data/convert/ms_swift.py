"""ms-swift's JSON Lines: `{"messages": [...], "audios": [...]}`.

    {"messages": [{"role": "user", "content": "<audio>Translate the speech to Chinese:"},
                  {"role": "assistant", "content": "你好。"}], "audios": ["/data/a.wav"]}

One recording and one answer a row; a system message is passed over. The answer is the transcript,
or with a target language the translation. `audio` is understood for `audios`, as ms-swift does.
Lost: everything but the audio and that text; in the other direction the user's words.
"""

from __future__ import annotations

from slam_potsa.data.convert.format import (
    Fields,
    Values,
    jsonl_format,
    needed,
    no_archives,
    on_one_line,
)
from slam_potsa.data.languages import language_name
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError

TRANSCRIBE = "<audio>Transcribe the speech:"
TRANSLATE = "<audio>Translate the speech to {language}:"


def _parse(fields: Fields) -> Values:
    text = "target" if fields.fill.target_language else "transcript"
    return {"audio": _audio(fields), text: _answer(fields)}


def _audio(fields: Fields) -> str | None:
    found = fields.row.get("audios", fields.row.get("audio", "nothing"))
    found = [found] if isinstance(found, str) and found != "nothing" else found
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str):
        return found[0]
    fields.wrong("audios", found, "a list with the path of one recording")
    return None


def _answer(fields: Fields) -> str | None:
    messages = fields.row.get("messages", "nothing")
    try:
        turns = [(turn["role"], turn["content"]) for turn in messages if turn["role"] != "system"]
    except (TypeError, KeyError):
        turns = []
    if [role for role, _ in turns] != ["user", "assistant"] or not all(
        isinstance(content, str) for _, content in turns
    ):
        fields.wrong("messages", messages, "one message of the user and one of the assistant")
        return None
    return on_one_line(turns[1][1]) or None


def _render(utterance: Utterance, audio: str) -> dict:
    answer = utterance.target or utterance.transcript
    if not answer:
        raise InputError(
            "has neither target nor transcript, but this format needs one; leave the row out"
        )
    question = TRANSCRIBE
    if utterance.target:
        needed(utterance, "target_language")
        question = TRANSLATE.format(language=language_name(utterance.target_language))
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "audios": [no_archives(audio)],
    }


FORMAT = jsonl_format(
    "ms_swift",
    "ms-swift: messages, audios",
    _parse,
    _render,
    {"audio"},
    one_text=True,
)
