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

from collections.abc import Iterable
from pathlib import Path

from slam_potsa.data.audio import measure_audio
from slam_potsa.data.convert.format import (
    Fields,
    Fill,
    Format,
    Values,
    needed,
    no_archives,
    read_jsonl,
    write_jsonl,
)
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError

NO_ANSWER = "na"
TRANSLATION = ("ast", "s2t_translation")  # `taskname`; NeMo 1.23 knows the second only


def _parse(fields: Fields) -> Values:
    values: Values = {
        "key": fields.text("key"),
        "audio": fields.text("audio_filepath", needed=True),
        "language": fields.code("source_lang", "lang"),
        "sentence_id": fields.text("sentence_id"),
        "duration": fields.measure("duration"),
    }
    if fields.measure("offset"):
        fields.wrong("offset", fields.row["offset"], "0: cut the recording into files first")
    text, answer = fields.text("text"), fields.text("answer")
    answer = None if answer == NO_ANSWER else answer
    written = fields.code("target_lang") or fields.fill.target_language
    translated = written != (values["language"] or fields.fill.language)
    if written is None or not (translated or fields.text("taskname", "task") in TRANSLATION):
        values["transcript"] = answer or text
        return values
    values["target"], values["target_language"] = answer or text, written
    values["transcript"] = fields.text("transcript") or (
        text if answer and answer != text else None
    )
    if values["target"] is None:
        del values["target_language"]  # a manifest for inference
    return values


def _render(utterance: Utterance, audio: str, file: str) -> dict:
    text = utterance.target or utterance.transcript
    if not text:
        raise InputError(
            "has neither target nor transcript, but this format needs one; leave the row out"
        )
    if utterance.target:
        needed(utterance, "target_language")
    row = {
        "audio_filepath": no_archives(audio),
        "duration": utterance.duration or round(measure_audio(file, max_seconds=None), 3),
        "text": text,
        "source_lang": utterance.language,
        "target_lang": utterance.target_language if utterance.target else utterance.language,
        "taskname": "ast" if utterance.target else "asr",
        "pnc": "yes",
        "key": utterance.key,
        "sentence_id": utterance.sentence_id,
    }
    if utterance.target and utterance.transcript:
        row["transcript"] = utterance.transcript
    return row


def read(path: str | Path, **options: str | None) -> list[Utterance]:
    return read_jsonl(Path(path), _parse, Fill(**options))


def write(
    path: str | Path, utterances: Iterable[Utterance], *, base: str | Path | None = None
) -> None:
    folder = Path(base or Path(path).parent)

    def render(utterance: Utterance, audio: str) -> dict:
        return _render(utterance, audio, str(folder / utterance.audio))

    write_jsonl(Path(path), utterances, render, base=folder, relative=True)


FORMAT = Format("nemo", "NeMo, Canary: audio_filepath, text, ...", read, write, frozenset(FIELDS))
