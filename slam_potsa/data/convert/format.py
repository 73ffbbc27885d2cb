"""What a format is, and what they share: reading rows, filling in what is not there, paths."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from slam_potsa.data.archives import split_reference
from slam_potsa.data.audio import measure_audio
from slam_potsa.data.jsonl import Problems, Row, check_fields, read_rows
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import FIELDS, REQUIRED, VALID, Utterance, text_sentence_id
from slam_potsa.errors import InputError, each, placed, refuse
from slam_potsa.files import atomic_write

SENTENCE_IDS = ("transcript", "target", "key", "audio")
REMEDIES = {
    "language": "give --language, such as fr",
    "target_language": "give --target-language, such as zh",
    "sentence_id": f"give --sentence-id {'|'.join(SENTENCE_IDS)}: what tells sentences apart",
}
Values = dict[str, Any]  # manifest fields of one row, as far as the row has them


@dataclass(frozen=True)
class Fill:
    """What the user says about rows that do not say it themselves."""

    language: str | None = None
    target_language: str | None = None
    sentence_id: str | None = None

    @property
    def one_text(self) -> str:
        """Which field the only text of a row is."""
        return "target" if self.target_language else "transcript"


@dataclass(frozen=True)
class Fields:
    """One row while it is read: its fields by type; what is wrong with them goes to `problems`."""

    row: dict[str, Any]
    number: int  # of the line
    problems: Problems
    fill: Fill

    def text(self, *names: str, needed: bool = False) -> str | None:
        """The first of these fields that is there, on one line; None for null and ""."""
        for name in names:
            value = self.row.get(name)
            if value is not None and not isinstance(value, str):
                return self.wrong(name, value, "text")
            if value and value.strip():
                return one_line(value)
        return self.wrong(names[0], self.row.get(names[0]), "text") if needed else None

    def code(self, value: str | None) -> str | None:
        """A language in any spelling, as the manifest's code."""
        try:
            return short_code(value) if value else None
        except InputError as error:
            self.problems.add(self.number, str(error))
            return None

    def wrong(self, name: str, found: Any, expected: str) -> None:
        self.problems.wrong(self.number, name, found, expected)


@dataclass(frozen=True)
class Format:
    """One project's files, as JSON Lines (`.gz` too)."""

    parse: Callable[[Fields], Values]
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
            before = len(problems)
            values = self.parse(Fields(row, number, problems, fill))
            if len(problems) == before:
                rows.append(Row(number, values))
        utterances = _complete(without_repetitions(rows) if self.tasks else rows, fill, problems)
        problems.check()
        if not rows:
            raise InputError(f"{path}: found no row")
        return utterances

    def write(self, path: Path, utterances: Iterable[Utterance], base: Path) -> None:
        """One row an utterance, atomically; relative audio paths are re-based from `base`.

        Raises InputError with every utterance that the format cannot hold.
        """

        def line(utterance: Utterance) -> str:
            with placed(f"{path} (not written): key {utterance.key!r}"):
                audio, seconds = utterance.audio, utterance.duration
                if split_reference(audio)[1] is not None:
                    raise InputError(f"audio {audio!r}: members of archives are ours; unpack it")
                if self.timed and not seconds:
                    seconds = round(measure_audio(audio, base, max_seconds=None), 3)
                moved = rebased(audio, base, path.parent, self.relative)
                row = self.render(replace(utterance, duration=seconds), moved)
            return json.dumps(row, ensure_ascii=False) + "\n"

        content = "".join(each(line, utterances).values()).encode("utf-8")
        # mtime=0: the same rows give the same bytes.
        atomic_write(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def one_line(text: str) -> str:
    """Tabs and line breaks as spaces: manifests and prediction files hold one line a text."""
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text.strip()


def needed(utterance: Utterance, *names: str) -> None:
    """Refuse an utterance without one of these fields; a target is to have its language too."""
    names += ("target_language",) * bool(utterance.target)
    refuse(
        f"field {name!r}: found nothing, but this format needs it; leave the row out or add it"
        for name in names
        if not getattr(utterance, name)
    )


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


def _complete(rows: Sequence[Row], fill: Fill, problems: Problems) -> list[Utterance]:
    """Utterances of `rows`, filled in and checked as a manifest's rows are."""
    utterances, told, seen = [], set(), Counter()
    for number, found in rows:
        values = _filled(found, fill, seen)
        problems.once(number, values["key"])
        required = [*REQUIRED, *["target_language"] * bool(values["target"])]
        lacking = {name: REMEDIES.get(name, "add it") for name in required if not values[name]}
        for name in sorted(lacking.keys() - told):  # once: what is missing in one row is in most
            problems.add(number, f"no {name}; {lacking[name]}")
        told |= lacking.keys()
        if check_fields(Row(number, values), VALID, problems) and not lacking:
            utterances.append(Utterance(**values))
    return utterances


def _filled(found: Values, fill: Fill, seen: Counter) -> Values:
    """All manifest fields. Keys that are not there are the recordings' paths, numbered from the
    second that is alike; `seen` counts them."""
    values = dict.fromkeys(FIELDS) | found
    path = PurePosixPath(values["audio"] or "")
    if not values["key"]:
        name = path.with_suffix("").as_posix().strip("/.")
        seen[name] += 1
        values["key"] = f"{name}-{seen[name]}" if seen[name] > 1 else name
    values["language"] = values["language"] or fill.language
    if values["target"]:
        values["target_language"] = values["target_language"] or fill.target_language
    by, ids = fill.sentence_id, {"key": values["key"], "audio": path.stem}
    for text, code in (("transcript", "language"), ("target", "target_language")):
        if by == text and values[text] and values[code]:
            ids[text] = text_sentence_id(values[text], values[code])
    values["sentence_id"] = values["sentence_id"] or ids.get(by)
    return values
