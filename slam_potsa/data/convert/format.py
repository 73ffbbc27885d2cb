"""What a format is, and what they share: reading rows, filling in what is not there, paths."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from slam_potsa.data.archives import split_reference
from slam_potsa.data.audio import measure_audio
from slam_potsa.data.jsonl import Problems, Row, check_fields, read_rows, short, write_rows
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import FIELDS, VALID, Utterance, text_sentence_id
from slam_potsa.errors import InputError, each, placed

REMEDIES = {  # what a row may lack, and an option gives
    "language": "give --language, such as fr",
    "target_language": "give --target-language, such as zh",
    "sentence_id": "give --sentence-id transcript|target|key|audio: what tells sentences apart",
}
Values = dict[str, Any]  # manifest fields of one row, as far as the row has them


class Fill(NamedTuple):
    """What the user says about rows that do not say it themselves."""

    language: str | None = None
    target_language: str | None = None
    sentence_id: str | None = None

    @property
    def one_text(self) -> str:
        """Which field the only text of a row is."""
        return "target" if self.target_language else "transcript"


@dataclass(frozen=True)
class Format:
    """One project's files, as JSON Lines (`.gz` too)."""

    parse: Callable[[dict[str, Any], Fill], Values]  # raises InputError for a bad row
    render: Callable[[Utterance, str], dict[str, Any]]  # with the recording's path as written
    holds: Collection[str]  # manifest fields that survive writing and reading without any option
    one_text: bool = False  # there is one text, the target or else the transcript, and not which
    relative: bool = False  # paths are relative to the file; else to where it is used
    tasks: bool = False  # rows are tasks: several may tell the same of a recording
    timed: bool = False  # rows have durations

    def read(self, path: Path, fill: Fill) -> list[Utterance]:
        """Relative audio paths are as in the file.

        Raises InputError with every bad row, as those of manifests; what is missing in rows is
        said with the option that gives it.
        """
        problems, rows = Problems(path), []
        for number, row in read_rows(path, problems):
            try:
                rows.append(Row(number, self.parse(row, fill)))
            except InputError as error:
                problems.add(number, str(error))
        rows, seen = without_repetitions(rows) if self.tasks else rows, Counter()
        utterances = [_complete(row, fill, seen, problems) for row in rows]
        problems.check()
        if not rows:
            raise InputError(f"{path}: found no row")
        return utterances

    def write(self, path: Path, utterances: Iterable[Utterance], base: Path) -> None:
        """One row an utterance, atomically; relative audio paths are re-based from `base`.

        Raises InputError with every utterance that the format cannot hold.
        """

        def row(utterance: Utterance) -> dict[str, Any]:
            with placed(f"{path} (not written): key {utterance.key!r}"):
                audio, seconds = utterance.audio, utterance.duration
                if split_reference(audio)[1] is not None:
                    raise InputError(f"audio {audio!r}: members of archives are ours; unpack it")
                if self.timed and not seconds:
                    seconds = round(measure_audio(audio, base, max_seconds=None), 3)
                moved = rebased(audio, base, path.parent, self.relative)
                return self.render(replace(utterance, duration=seconds), moved)

        write_rows(path, each(row, utterances).values())


def text(row: dict[str, Any], *names: str, needed: bool = False) -> str | None:
    """The first of these fields that is there, on one line; None for null and "".

    Raises InputError where it is no text, or needed and not there.
    """
    for name in names:
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            raise wrong(name, value, "text")
        if value and value.strip():
            return one_line(value)
    if needed:
        raise wrong(names[0], row.get(names[0]), "text")
    return None


def code(value: str | None) -> str | None:
    """A language in any spelling, as the manifest's code. Raises InputError."""
    return short_code(value) if value else None


def wrong(name: str, found: Any, expected: str) -> InputError:
    """The error that tells what a row's field holds and what it should."""
    told = "nothing" if found is None else short(found)
    return InputError(f"field {name!r}: found {told}, expected {expected}")


def one_line(text: str) -> str:
    """Tabs and line breaks as spaces: manifests and prediction files hold one line a text."""
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text.strip()


def needed(utterance: Utterance, *names: str) -> None:
    """Refuse an utterance without one of these fields; a target is to have its language too."""
    for name in (*names, *["target_language"] * bool(utterance.target)):
        if not getattr(utterance, name):
            expected = "but this format needs it; leave the row out or add it"
            raise InputError(f"field {name!r}: found nothing, {expected}")


def only_text(utterance: Utterance) -> str:
    """The target, or else the transcript. Raises InputError without either."""
    if not utterance.target:
        needed(utterance, "transcript")
    return utterance.target or utterance.transcript


def rebased(audio: str, base: Path, folder: Path, relative: bool) -> str:
    """A path relative to `base` as an absolute one, or relative to `folder`. Absolute ones stay.

    Links in both folders are followed: `..` out of a linked folder goes to where it really is.
    """
    path, member = split_reference(audio)
    if not os.path.isabs(path):
        path = os.path.normpath(base.resolve() / path)
        path = os.path.relpath(path, folder.resolve()) if relative else path
    return path if member is None else f"{path}:{member}"


def without_repetitions(rows: Sequence[Row]) -> list[Row]:
    """These files hold tasks, manifests hold recordings: a row that tells nothing new goes, such as
    the task that prompts with the transcript, or transcription of a recording that has the same
    transcript and a translation in another row."""
    told = {(v["audio"], v["transcript"]) for _, v in rows if v.get("target")}
    kept: dict[tuple, Row] = {}
    for row in rows:
        name = row.values["audio"], row.values["transcript"], row.values.get("target")
        if name[2] or name[:2] not in told:
            kept.setdefault(name, row)
    return list(kept.values())


def _complete(row: Row, fill: Fill, seen: Counter, problems: Problems) -> Utterance:
    """With what the row lacks filled in; what is wrong with it goes to `problems`.

    Keys that are not there are the recordings' paths, numbered from the second that is alike;
    `seen` counts them.
    """
    values = dict.fromkeys(FIELDS) | row.values
    path = PurePosixPath(values["audio"])
    if not values["key"]:
        name = path.with_suffix("").as_posix().strip("/.")
        seen[name] += 1
        values["key"] = f"{name}-{seen[name]}" if seen[name] > 1 else name
    values["language"] = values["language"] or fill.language
    if values["target"]:
        values["target_language"] = values["target_language"] or fill.target_language
    ids = {"key": values["key"], "audio": path.stem}
    for text, language in (("transcript", "language"), ("target", "target_language")):
        if fill.sentence_id == text and values[text] and values[language]:
            ids[text] = text_sentence_id(values[text], values[language])
    values["sentence_id"] = values["sentence_id"] or ids.get(fill.sentence_id)
    for name, remedy in REMEDIES.items():
        if not values[name] and (name != "target_language" or values["target"]):
            problems.add(row.number, f"no {name}; {remedy}")
    problems.once(row.number, values["key"])
    check_fields(Row(row.number, values), VALID, problems)
    return Utterance(**values)
