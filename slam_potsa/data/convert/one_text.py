"""JSON Lines with one text: the transcript, or with --target-language the translation.

slam_llm, as in SLAM-LLM's asr_librispeech recipe; all but key, audio and that text is lost:

    {"key": "1001-134707-0000_ASR", "source": "/data/1001-134707-0000.wav", "target": "1 little..."}

ms_swift; all but audio and that text is lost, in the other direction the user's words. One
recording and one answer a row; a system message is passed over, `audio` is understood for `audios`:

    {"messages": [{"role": "user", "content": "<audio>Translate the speech to Chinese:"},
                  {"role": "assistant", "content": "你好。"}], "audios": ["/data/a.wav"]}
"""

from __future__ import annotations

from slam_potsa.data.convert.format import Fields, Format, Values, needed, one_line, only_text
from slam_potsa.data.languages import find_language
from slam_potsa.data.manifest import Utterance

TRANSCRIBE = "<audio>Transcribe the speech:"
TRANSLATE = "<audio>Translate the speech to {language}:"


def _parse_slam_llm(fields: Fields) -> Values:
    return {
        "key": fields.text("key"),
        "audio": fields.text("source", needed=True),
        fields.fill.one_text: fields.text("target"),
    }


def _render_slam_llm(utterance: Utterance, audio: str) -> dict:
    return {"key": utterance.key, "source": audio, "target": only_text(utterance)}


def _parse_ms_swift(fields: Fields) -> Values:
    found = fields.row.get("audios", fields.row.get("audio"))
    try:
        (audio,) = [found] if isinstance(found, str) else found
        asked, answered = (m for m in fields.row["messages"] if m["role"] != "system")
        if (asked["role"], answered["role"]) == ("user", "assistant"):
            return {"audio": audio, fields.fill.one_text: one_line(answered["content"]) or None}
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    expected = "one message of the user and one of the assistant, and one path in 'audios'"
    fields.wrong("messages", fields.row.get("messages"), expected)
    return {}


def _render_ms_swift(utterance: Utterance, audio: str) -> dict:
    needed(utterance)
    question = TRANSCRIBE
    if utterance.target:
        question = TRANSLATE.format(language=find_language(utterance.target_language).name)
    turns = {"user": question, "assistant": only_text(utterance)}
    messages = [{"role": role, "content": content} for role, content in turns.items()]
    return {"messages": messages, "audios": [audio]}


SLAM_LLM = Format(_parse_slam_llm, _render_slam_llm, {"key", "audio"}, one_text=True)
MS_SWIFT = Format(_parse_ms_swift, _render_ms_swift, {"audio"}, one_text=True)
