"""Lhotse's cuts as JSON Lines (`.jsonl` or `.jsonl.gz`), one recording and one supervision a cut.

The key is the cut's id, transcript and language are the supervision's, whose custom fields are
`translation`, `target_language` and `sentence_id`, or `translated_text` (`{language: text}`, of
Lhotse's IWSLT recipe). Cuts that are a part of their recording, mixed or features are refused.
Nothing of a manifest is lost; the duration becomes the recording's own. In the other direction
ids of recordings and supervisions, speakers and other custom fields are.
"""

from __future__ import annotations

from slam_potsa.data.convert.format import Fields, Format, Values, needed, one_line
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError

LENGTH_TOLERANCE = 0.01  # seconds by which a cut may be shorter than its recording
REMEDY = "write its audio with CutSet.save_audios first"


def _parse(fields: Fields) -> Values:
    from lhotse.serialization import deserialize_item

    try:
        cut = deserialize_item(dict(fields.row))
        (supervision,), recording = cut.supervisions, cut.recording
        (source,) = [one.source for one in recording.sources if one.type == "file"]
        custom = {**(cut.custom or {}), **(supervision.custom or {})}
        ours = {custom.get("target_language"): custom.get("translation")}
        ((code, target),) = custom.get("translated_text", ours).items()
    except Exception as error:  # Lhotse has no error class of its own for what is no cut
        expected = "a MonoCut with one supervision, one translation at most, of one audio file"
        fields.wrong("type", fields.row.get("type"), f"{expected} ({error!r}); {REMEDY}")
        return {}
    if cut.start > 0 or cut.duration < recording.duration - LENGTH_TOLERANCE:
        expected = f"{recording.duration:g}, all of its recording; {REMEDY}"
        fields.wrong("duration", cut.duration, expected)
    return {
        "key": cut.id,
        "audio": source,
        "language": fields.code(supervision.language),
        "transcript": one_line(supervision.text or "") or None,
        "sentence_id": custom.get("sentence_id"),
        "duration": cut.duration,
        "target": one_line(target or "") or None,
        "target_language": fields.code(code) if target else None,
    }


def _render(utterance: Utterance, audio: str) -> dict:
    from lhotse import Recording, SupervisionSegment

    needed(utterance)
    try:
        cut = Recording.from_file(audio, recording_id=utterance.key).to_cut()
    except Exception as error:  # whatever the audio backend of Lhotse raises
        raise InputError(f"{audio}: Lhotse cannot read its length: {error}") from None
    custom = {"sentence_id": utterance.sentence_id}
    if utterance.target:
        custom |= {"translation": utterance.target, "target_language": utterance.target_language}
    cut.id = name = utterance.key
    said = {"text": utterance.transcript, "language": utterance.language, "custom": custom}
    cut.supervisions = [SupervisionSegment(name, name, 0.0, cut.duration, **said)]
    return cut.to_dict()


LHOTSE = Format(_parse, _render, FIELDS)
