"""NVIDIA NeMo's manifests, with Canary's fields for transcription and translation.

    {"audio_filepath": "a.wav", "duration": 3.5, "text": "hello", "lang": "en"}
    {"audio_filepath": "a.wav", "duration": 3.5, "text": "hallo", "source_lang": "en",
     "target_lang": "de", "taskname": "ast", "pnc": "yes"}

`text` is what the model shall write: the translation where `target_lang` is another language than
`source_lang`, or the task says so. Manifests of speech LLMs have it in `answer`, next to the
transcript in `text`; `answer: "na"` stands for none. Rows with an `offset` are parts of a recording
and are refused.
Written are Canary's fields, and as fields of our own key, sentence_id and, of a translation, the
transcript: NeMo keeps what it does not know in `cut.custom`. Nothing of a manifest is lost, but
a duration that is missing is measured. In the other direction fields that are not named here are.
"""

from __future__ import annotations

from slam_potsa.data.convert.format import Fields, Format, Values, needed, only_text
from slam_potsa.data.jsonl import is_number
from slam_potsa.data.manifest import FIELDS, Utterance

NO_ANSWER = "na"
TRANSLATION = ("ast", "s2t_translation")  # `taskname`; NeMo 1.23 knows the second only


def _parse(fields: Fields) -> Values:
    for name in ("duration", "offset"):
        found = fields.row.get(name)
        if found is not None and not is_number(found):
            fields.wrong(name, found, "a number")
        elif name == "offset" and found:
            fields.wrong(name, found, "0: cut the recording into files first")
    values: Values = {
        "key": fields.text("key"),
        "audio": fields.text("audio_filepath", needed=True),
        "language": fields.code(fields.text("source_lang", "lang")),
        "sentence_id": fields.text("sentence_id"),
        "duration": fields.row.get("duration"),
    }
    text, answer = fields.text("text"), fields.text("answer")
    answer = None if answer == NO_ANSWER else answer
    written = fields.code(fields.text("target_lang")) or fields.fill.target_language
    translated = written != (values["language"] or fields.fill.language)
    if written is None or not (translated or fields.text("taskname", "task") in TRANSLATION):
        return values | {"transcript": answer or text}
    said = text if answer and answer != text else None
    values |= {"transcript": fields.text("transcript") or said, "target": answer or text}
    # Without a target it is a manifest for inference.
    return values | {"target_language": written if values["target"] else None}


def _render(utterance: Utterance, audio: str) -> dict:
    needed(utterance)
    target = utterance.target
    row = {
        "audio_filepath": audio,
        "duration": utterance.duration,
        "text": only_text(utterance),
        "source_lang": utterance.language,
        "target_lang": utterance.target_language if target else utterance.language,
        "taskname": "ast" if target else "asr",
        "pnc": "yes",
        "key": utterance.key,
        "sentence_id": utterance.sentence_id,
    }
    said = target and utterance.transcript
    return row | ({"transcript": utterance.transcript} if said else {})


NEMO = Format(_parse, _render, FIELDS, relative=True, timed=True)
