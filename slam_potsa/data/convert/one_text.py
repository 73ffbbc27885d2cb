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
    audios = fields.row.get("audios", fields.row.get("audio"))
    audios = [audios] if isinstance(audios, str) else audios
    if not (isinstance(audios, list) and len(audios) == 1 and isinstance(audios[0], str)):
        audios = [fields.wrong("audios", audios, "a list with the path of one recording")]
    return {"audio": audios[0], fields.fill.one_text: _answer(fields)}


def _answer(fields: Fields) -> str | None:
    messages = fields.row.get("messages")
    try:
        turns = [(turn["role"], turn["content"]) for turn in messages if turn["role"] != "system"]
        (asking, question), (answering, answer) = turns
        if (asking, answering) == ("user", "assistant") and question.strip() is not None:
            return one_line(answer) or None
    except (TypeError, KeyError, ValueError, AttributeError):
        pass
    return fields.wrong("messages", messages, "one message of the user and one of the assistant")


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
