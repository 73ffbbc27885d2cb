"""Lhotse's cuts as JSON Lines (`.jsonl` or `.jsonl.gz`), one recording and one supervision a cut.

The key is the cut's id, the transcript and the language are the supervision's, and its custom
fields are `translation`, `target_language` and `sentence_id`. Read as well: `translated_text`
(`{language: text}`, Lhotse's IWSLT recipe). Cuts that are a part of their recording, are mixed, or
have features only are refused: write their audio with `CutSet.save_audios` first.
Nothing of a manifest is lost; the duration becomes the recording's own. In the other direction
ids of recordings and supervisions, speakers and other custom fields are.
"""

from __future__ import annotations

from slam_potsa.data.convert.format import Fields, Format, Values, needed, one_line
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError

LENGTH_TOLERANCE = 0.01  # seconds by which a cut may be shorter than its recording
REMEDY = "write its audio with CutSet.save_audios first"


def _lhotse():
    try:
        import lhotse
    except ImportError:
        raise InputError("this format needs Lhotse: pip install lhotse") from None
    return lhotse


def _parse(fields: Fields) -> Values:
    _lhotse()
    from lhotse.serialization import deserialize_item

    try:
        cut = deserialize_item(dict(fields.row))
        (supervision,), recording = cut.supervisions, cut.recording
        (source,) = [one.source for one in recording.sources if one.type == "file"]
    except Exception as error:  # Lhotse has no error class of its own for what is no cut
        said = f"{type(error).__name__}: {error}"
        expected = f"a MonoCut with one supervision of one audio file ({said}); {REMEDY}"
        fields.wrong("type", fields.row.get("type"), expected)
        return {}
    if cut.start > 0 or cut.duration < recording.duration - LENGTH_TOLERANCE:
        expected = f"{recording.duration:g}, all of its recording; {REMEDY}"
        fields.wrong("duration", cut.duration, expected)
    custom = {**(cut.custom or {}), **(supervision.custom or {})}
    target, code = _translation(custom, fields)
    return {
        "key": cut.id,
        "audio": source,
        "language": fields.code(supervision.language),
        "transcript": one_line(supervision.text or "") or None,
        "sentence_id": custom.get("sentence_id"),
        "duration": cut.duration,
        "target": one_line(target) if target else None,
        "target_language": fields.code(code) if target else None,
    }


def _translation(custom: dict, fields: Fields) -> tuple[str | None, str | None]:
    by_language = custom.get("translated_text")
    if "translation" in custom or by_language is None:
        return custom.get("translation"), custom.get("target_language")
    if not isinstance(by_language, dict) or len(by_language) != 1:
        fields.wrong("translated_text", by_language, "{language: text} with one language")
        return None, None
    ((code, text),) = by_language.items()
    return text, code


def _render(utterance: Utterance, audio: str) -> dict:
    lhotse = _lhotse()
    needed(utterance)
    try:
        cut = lhotse.Recording.from_file(audio, recording_id=utterance.key).to_cut()
    except Exception as error:  # whatever the audio backend of Lhotse raises, for its length
        raise InputError(f"{audio}: Lhotse cannot read it: {error}; check the path") from None
    custom = {
        "sentence_id": utterance.sentence_id,
        "translation": utterance.target,
        "target_language": utterance.target_language,
    }
    supervision = lhotse.SupervisionSegment(
        id=utterance.key,
        recording_id=utterance.key,
        start=0.0,
        duration=cut.duration,
        text=utterance.transcript,
        language=utterance.language,
        custom={name: value for name, value in custom.items() if value is not None},
    )
    cut.id, cut.supervisions = utterance.key, [supervision]
    return cut.to_dict()


LHOTSE = Format(_parse, _render, FIELDS)
