"""SLAM-LLM's JSON Lines: `{"key", "source", "target"}`, as in its asr_librispeech recipe.

    {"key": "1001-134707-0000_ASR", "source": "/data/1001-134707-0000.wav", "target": "1 little..."}

`target` is what the model shall write: the transcript, or with a target language the translation.
Lost: everything but key, audio and that text.
"""

from __future__ import annotations

from slam_potsa.data.convert.format import (
    Fields,
    Values,
    jsonl_format,
    no_archives,
)
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError


def _parse(fields: Fields) -> Values:
    text = "target" if fields.fill.target_language else "transcript"
    return {
        "key": fields.text("key"),
        "audio": fields.text("source", needed=True),
        text: fields.text("target"),
    }


def _render(utterance: Utterance, audio: str) -> dict:
    text = utterance.target or utterance.transcript
    if not text:
        raise InputError(
            "has neither target nor transcript, but this format needs one; leave the row out"
        )
    return {"key": utterance.key, "source": no_archives(audio), "target": text}


FORMAT = jsonl_format(
    "slam_llm",
    "SLAM-LLM: key, source, target",
    _parse,
    _render,
    {"key", "audio"},
    one_text=True,
)
