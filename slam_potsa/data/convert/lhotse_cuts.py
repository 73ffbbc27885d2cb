"""Lhotse's cuts as JSON Lines (`.jsonl` or `.jsonl.gz`), one recording and one supervision a cut.

The key is the cut's id, the transcript and the language are the supervision's, and its custom
fields are `translation`, `target_language` and `sentence_id`. Read as well: `translated_text`
(`{language: text}`, Lhotse's IWSLT recipe). Cuts that are a part of their recording, are mixed, or
have features only are refused: write their audio with `CutSet.save_audios` first.
Nothing of a manifest is lost; the duration becomes the recording's own. In the other direction
ids of recordings and supervisions, speakers and other custom fields are.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from slam_potsa.data.convert.format import (
    Fields,
    Fill,
    Format,
    Values,
    needed,
    no_archives,
    on_one_line,
    paths_from,
    read_jsonl,
)
from slam_potsa.data.jsonl import MISSING
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

LENGTH_TOLERANCE = 0.01  # seconds by which a cut may be shorter than its recording


def _lhotse():
    try:
        import lhotse
    except ImportError:
        raise InputError("this format needs Lhotse: pip install lhotse") from None
    return lhotse


def _parse(fields: Fields) -> Values:
    from lhotse.serialization import deserialize_item

    if fields.row.get("type") != "MonoCut":
        fields.wrong("type", fields.row.get("type", MISSING), "'MonoCut'")
        return {}
    try:
        cut = deserialize_item(dict(fields.row))
    except Exception as error:  # Lhotse has no error class of its own for what is no cut
        fields.say(f"not a cut that Lhotse reads: {type(error).__name__}: {error}")
        return {}
    audio = _audio(cut, fields)
    if len(cut.supervisions) != 1:
        fields.wrong("supervisions", len(cut.supervisions), "one")
        return {}
    supervision = cut.supervisions[0]
    custom = {**(cut.custom or {}), **(supervision.custom or {})}
    return {
        "key": cut.id,
        "audio": audio,
        "language": fields.as_code(supervision.language) if supervision.language else None,
        "transcript": on_one_line(supervision.text or "") or None,
        "sentence_id": custom.get("sentence_id"),
        "duration": cut.duration,
        **_translation(custom, fields),
    }


def _audio(cut, fields: Fields) -> str | None:
    remedy = "write its audio with CutSet.save_audios first"
    if cut.recording is None or [source.type for source in cut.recording.sources] != ["file"]:
        fields.say(f"its recording is not one audio file; {remedy}")
        return None
    if cut.start > 0 or cut.duration < cut.recording.duration - LENGTH_TOLERANCE:
        fields.say(
            f"is {cut.start:g} to {cut.end:g} s of a recording of {cut.recording.duration:g} s, "
            f"expected all of it; {remedy}"
        )
    return cut.recording.sources[0].source


def _translation(custom: dict, fields: Fields) -> Values:
    text, code = custom.get("translation"), custom.get("target_language")
    by_language = custom.get("translated_text")
    if text is None and isinstance(by_language, dict) and len(by_language) == 1:
        ((code, text),) = by_language.items()
    elif text is None and by_language is not None:
        fields.wrong("translated_text", by_language, "{language: text} with one language")
    if not text:
        return {}
    return {
        "target": on_one_line(text),
        "target_language": fields.as_code(code) if code else None,
    }


def _cut(utterance: Utterance, audio: str) -> dict:
    from lhotse import MonoCut, Recording, SupervisionSegment

    if utterance.target:
        needed(utterance, "target_language")
    if not Path(no_archives(audio)).is_file():
        raise InputError(f"{audio}: no such file; Lhotse needs its length: check the path")
    try:
        recording = Recording.from_file(audio, recording_id=utterance.key)
    except Exception as error:  # whatever the audio backend of Lhotse raises
        raise InputError(f"{audio}: Lhotse cannot read it: {error}") from None
    custom = {
        "sentence_id": utterance.sentence_id,
        "translation": utterance.target,
        "target_language": utterance.target_language,
    }
    supervision = SupervisionSegment(
        id=utterance.key,
        recording_id=utterance.key,
        start=0.0,
        duration=recording.duration,
        text=utterance.transcript,
        language=utterance.language,
        custom={name: value for name, value in custom.items() if value is not None},
    )
    return MonoCut(
        id=utterance.key,
        start=0.0,
        duration=recording.duration,
        channel=0,
        supervisions=[supervision],
        recording=recording,
    ).to_dict()


def read(path: str | Path, **options: str | None) -> list[Utterance]:
    _lhotse()
    return read_jsonl(Path(path), _parse, Fill(**options))


def write(
    path: str | Path, utterances: Iterable[Utterance], *, base: str | Path | None = None
) -> None:
    _lhotse()
    from tqdm import tqdm

    path = Path(path)
    place = paths_from(Path(base or path.parent), path.parent, relative=False)
    lines, problems = [], []
    for utterance in tqdm(list(utterances), desc="recordings", unit="file", leave=False):
        try:
            cut = _cut(utterance, place(utterance.audio))
        except InputError as error:
            problems += [f"key {utterance.key!r}: {problem}" for problem in error.problems]
            continue
        lines.append(json.dumps(cut, ensure_ascii=False) + "\n")
    if problems:
        raise InputError([f"{path} (not written): {problem}" for problem in problems])
    content = "".join(lines).encode("utf-8")
    # mtime=0: the same cuts give the same bytes.
    atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


FORMAT = Format("lhotse", "Lhotse: cuts as JSONL", read, write, frozenset(FIELDS))
