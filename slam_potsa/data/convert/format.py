"""What a format is, and what they share: reading rows, filling in what is not there, paths."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from slam_potsa.data.archives import split_reference
from slam_potsa.data.jsonl import (
    MISSING,
    Problems,
    Row,
    check_fields,
    other_lines,
    read_rows,
    write_rows,
)
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import FIELDS, REQUIRED, VALID, Utterance
from slam_potsa.data.sentence_ids import text_sentence_id
from slam_potsa.errors import InputError

SENTENCE_IDS = ("transcript", "target", "key", "audio")
REMEDIES = {
    "language": "give --language, such as fr",
    "target_language": "give --target-language, such as zh",
    "sentence_id": f"give --sentence-id {'|'.join(SENTENCE_IDS)}: what tells sentences apart",
}


@dataclass(frozen=True)
class Format:
    """One project's files.

    `read(path, *, language, target_language, sentence_id)` gives utterances whose relative audio
    paths are as in the file. `write(path, utterances, *, base)` re-bases them from the folder
    `base` (default: the folder of `path`). Both raise InputError with every problem.
    """

    name: str
    about: str  # one line
    read: Callable[..., list[Utterance]]
    write: Callable[..., None]
    holds: frozenset[str]  # manifest fields that survive writing and reading without any option
    one_text: bool = False  # there is one text, the target or else the transcript, and not which


@dataclass(frozen=True)
class Fill:
    """What the user says about rows that do not say it themselves."""

    language: str | None = None
    target_language: str | None = None
    sentence_id: str | None = None

    def __post_init__(self):
        problems = []
        for name in ("language", "target_language"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, short_code(value) if value else None)
            except InputError as error:
                problems += error.problems
        if self.sentence_id not in (None, *SENTENCE_IDS):
            problems.append(
                f"sentence_id {self.sentence_id!r}: expected one of {', '.join(SENTENCE_IDS)}"
            )
        if problems:
            raise InputError(problems)


@dataclass
class Fields:
    """One row while it is read: its fields by type; what is wrong with them goes to `problems`."""

    row: dict[str, Any]
    fill: Fill
    problems: Problems
    number: int  # of the line

    def text(self, name: str, *others: str, needed: bool = False) -> str | None:
        """The first of these fields that is there, on one line; None for null and ""."""
        for key in (name, *others):
            value = self.row.get(key)
            if isinstance(value, str) and value.strip():
                return on_one_line(value)
            if value is not None and not isinstance(value, str):
                self.wrong(key, value, "text")
                return None
        if needed:
            self.wrong(name, self.row.get(name, MISSING), "text")
        return None

    def code(self, name: str, *others: str) -> str | None:
        """A language in any spelling, as the manifest's code."""
        value = self.text(name, *others)
        return self.as_code(value) if value else None

    def as_code(self, value: str) -> str | None:
        try:
            return short_code(value)
        except InputError as error:
            self.say(str(error))
            return None

    def measure(self, name: str) -> float | None:
        value = self.row.get(name)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        self.wrong(name, value, "a number")
        return None

    def wrong(self, name: str, found: Any, expected: str) -> None:
        self.problems.wrong(self.number, name, found, expected)

    def say(self, problem: str) -> None:
        self.problems.add(self.number, problem)


def on_one_line(text: str) -> str:
    """Tabs and line breaks as spaces: manifests and prediction files hold one line a text."""
    return " ".join(text.split()) if any(c in text for c in "\t\n\r") else text.strip()


Values = dict[str, Any]  # manifest fields of one row, as far as the row has them


def read_jsonl(
    path: Path,
    parse: Callable[[Fields], Values],
    fill: Fill,
    *,
    tidy: Callable[[list[tuple[int, Values]]], list[tuple[int, Values]]] = lambda rows: rows,
) -> list[Utterance]:
    """Every line through `parse`, then `tidy` over all of them, then what is missing filled in."""
    problems, rows = Problems(path), []
    for number, row in read_rows(path, problems):
        before = len(problems)
        values = parse(Fields(row, fill, problems, number))
        if len(problems) == before:
            rows.append((number, values))
    return complete(tidy(rows), fill, problems)


def complete(rows: list[tuple[int, Values]], fill: Fill, problems: Problems) -> list[Utterance]:
    """Utterances of `rows`, filled in and checked as a manifest's rows are.

    Raises:
        InputError: `problems` and those of every bad row as `file:line: ...`, of one kind once
            where they are many; what is missing in rows is said once, with the option that gives
            it.
    """
    missing, utterances = {}, []
    keys = _keys([values for _, values in rows])
    for (number, values), key in zip(rows, keys, strict=True):
        values, before = _filled({**values, "key": key}, fill), len(problems)
        for name in _lacking(values):
            missing.setdefault(name, []).append(number)
        check_fields(Row(number, values), VALID, problems)
        problems.once(number, key)
        if len(problems) == before and not missing:
            utterances.append(Utterance(**values))
    told = problems.texts()
    for name, numbers in missing.items():
        more = other_lines(len(numbers) - 1)
        told.append(
            f"{problems.path}:{numbers[0]}{more}: no {name}; {REMEDIES.get(name, 'add it')}"
        )
    if not rows and not told:
        told.append(f"{problems.path}: found no row")
    if told:
        raise InputError(told)
    return utterances


def _filled(values: Values, fill: Fill) -> Values:
    values = {name: values.get(name) for name in FIELDS}
    values["language"] = values["language"] or fill.language
    if values["target"]:
        values["target_language"] = values["target_language"] or fill.target_language
    values["sentence_id"] = values["sentence_id"] or _sentence_id(values, fill)
    return values


def _sentence_id(values: Values, fill: Fill) -> str | None:
    if fill.sentence_id in ("transcript", "target"):
        text = values[fill.sentence_id]
        name = "language" if fill.sentence_id == "transcript" else "target_language"
        return text_sentence_id(text, values[name]) if text and values[name] else None
    if fill.sentence_id == "audio":
        return PurePosixPath(values["audio"] or "").stem or None
    return values["key"] if fill.sentence_id == "key" else None


def _lacking(values: Values) -> list[str]:
    names = [name for name in REQUIRED if not values[name]]
    if values["target"] and not values["target_language"]:
        names.append("target_language")
    return names


def _keys(rows: list[Values]) -> list[str]:
    """The rows' keys; where there are none, names of the recordings, told apart by what differs.

    The file's name without suffix; with its folders, where names repeat; with the target language,
    where a recording repeats; with a number, where that repeats too.
    """
    audios = {row["audio"] for row in rows if row.get("audio")}
    names = {audio: PurePosixPath(audio).stem for audio in audios}
    if len(set(names.values())) < len(names):
        names = {audio: PurePosixPath(audio).with_suffix("").as_posix() for audio in audios}
        common = os.path.commonprefix([name.split("/")[:-1] for name in names.values()])
        names = {audio: "/".join(name.split("/")[len(common) :]) for audio, name in names.items()}
    keys = [row.get("key") or names.get(row.get("audio")) or "" for row in rows]
    for suffix in ("target_language", None):
        counts, seen = Counter(keys), Counter()
        for place, row in enumerate(rows):
            if row.get("key") or counts[keys[place]] == 1:
                continue
            seen[keys[place]] += 1
            addition = row.get(suffix) if suffix else seen[keys[place]]
            keys[place] += f"-{addition}" if addition else ""
    return keys


def write_jsonl(
    path: Path,
    utterances: Iterable[Utterance],
    render: Callable[[Utterance, str], dict],
    *,
    base: Path | None,
    relative: bool,
) -> None:
    """One `render(utterance, audio path)` a line, atomically.

    `relative`: paths are relative to the file; else absolute, since the project that reads them
    looks relative ones up from its working directory. Absolute paths stay.

    Raises InputError with every utterance that `render` refuses.
    """
    place = paths_from(Path(base or Path(path).parent), Path(path).parent, relative)
    rows, problems = [], []
    for utterance in utterances:
        try:
            rows.append(render(utterance, place(utterance.audio)))
        except InputError as error:
            problems += [f"key {utterance.key!r}: {problem}" for problem in error.problems]
    if problems:
        raise InputError([f"{path} (not written): {problem}" for problem in problems])
    write_rows(path, rows)


def paths_from(base: Path, folder: Path, relative: bool) -> Callable[[str], str]:
    """A function that turns paths relative to `base` into absolute ones, or relative to `folder`.

    Links in both folders are followed: `..` out of a linked folder goes to where it really is.
    """
    start, end = str(base.resolve()), str(folder.resolve())

    def place(audio: str) -> str:
        if os.path.isabs(audio):
            return audio
        path, member = split_reference(audio)
        whole = os.path.normpath(os.path.join(start, path))
        path = os.path.relpath(whole, end) if relative else whole
        return path if member is None else f"{path}:{member}"

    return place


def no_archives(audio: str) -> str:
    """`audio`, unless it is a member of an archive, which only our manifests can name."""
    if split_reference(audio)[1] is not None:
        raise InputError(
            f"audio {audio!r}: this format cannot name a member of an archive; unpack it"
        )
    return audio


def needed(utterance: Utterance, *names: str) -> None:
    """Refuse an utterance without one of these fields, which the format cannot do without."""
    problems = [
        f"field '{name}': found nothing, but this format needs it; leave the row out or add it"
        for name in names
        if not getattr(utterance, name)
    ]
    if problems:
        raise InputError(problems)


def jsonl_format(
    name: str,
    about: str,
    parse: Callable[[Fields], Values],
    render: Callable[[Utterance, str], dict],
    holds: Iterable[str],
    *,
    relative: bool = False,
    tidy: Callable[[list[tuple[int, Values]]], list[tuple[int, Values]]] = lambda rows: rows,
    one_text: bool = False,
) -> Format:
    """The format whose lines are read by `parse` and written by `render`, one an utterance."""

    def read(path: str | Path, **options: str | None) -> list[Utterance]:
        return read_jsonl(Path(path), parse, Fill(**options), tidy=tidy)

    def write(
        path: str | Path, utterances: Iterable[Utterance], *, base: str | Path | None = None
    ) -> None:
        write_jsonl(Path(path), utterances, render, base=base, relative=relative)

    return Format(name, about, read, write, frozenset(holds), one_text)
