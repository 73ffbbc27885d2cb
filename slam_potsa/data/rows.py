"""The rows of a manifest: what a line may hold, and all lines of one in columns.

A million Python objects take a gigabyte; Arrow's columns take the text alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from slam_potsa.data import jsonl
from slam_potsa.data.archives import COMPRESSED, split_reference
from slam_potsa.data.languages import code_for, is_code

REQUIRED = ("key", "language", "sentence_id")
LONGEST_DURATION = 86_400  # seconds: what is longer is a mistake
LONGEST_PATH, LONGEST_NAME = 4_095, 255  # bytes, Linux's
AT_ONCE = 4_096  # rows that are made objects at once


@dataclass(frozen=True)
class Utterance:
    """One recording of one sentence; the fields are the manifest's."""

    key: str  # unique in the manifest; no tab or line break (prediction files are key<TAB>text)
    audio: str | None  # path relative to the manifest, or archive.tar:member; None: text alone
    language: str  # spoken language, such as "fr"
    sentence_id: str  # the same string = the same meaning
    transcript: str | None = None  # what is said, in `language`
    target: str | None = None  # its translation, in `target_language`
    target_language: str | None = None
    duration: float | None = None  # seconds
    synthetic: str | None = None  # what a machine made of it: "target" or "audio"


FIELDS = tuple(field.name for field in fields(Utterance))
SCHEMA = pa.schema(dict.fromkeys(FIELDS, pa.string()) | {"duration": pa.float64()})


def _is_audio(value: object) -> bool:
    if not jsonl.is_line(value) or (length := len(value.encode())) > LONGEST_PATH:
        return False
    path, member = split_reference(value)
    names = path.split("/") if length > LONGEST_NAME else ()
    fits = all(len(name.encode()) <= LONGEST_NAME for name in names)
    return fits and (member is None or not path.endswith(COMPRESSED))


def _is_duration(value: object) -> bool:
    return jsonl.is_number(value) and 0 < value <= LONGEST_DURATION


def _expected_code(value: object) -> str:
    return f"a language code such as {code_for(value)!r}"


_ONE_LINE = "without tabs, line breaks and other control characters"
VALID: jsonl.Fields = {
    "key": (jsonl.is_line, f"a unique string {_ONE_LINE}"),
    "audio": (
        _is_audio,
        "a path that a file may have, relative to the manifest, or archive.tar:member, gunzipped",
    ),
    "language": (is_code, _expected_code),
    "sentence_id": (jsonl.is_line, f"a string {_ONE_LINE}, the same for the same meaning"),
    "transcript": (jsonl.is_line, f"what is said, as a string {_ONE_LINE}"),
    "target": (jsonl.is_line, f"the translation, as a string {_ONE_LINE}"),
    "target_language": (is_code, _expected_code),
    "duration": (_is_duration, f"seconds, a number above 0, at most {LONGEST_DURATION:,}"),
    "synthetic": (lambda value: value in ("target", "audio"), "'target' or 'audio'"),
}


class Rows(Sequence[Utterance]):
    """Utterances in Arrow's columns, which are not copied for a process that is forked.

    An utterance is made when it is asked for; a slice is a list. Equal to any sequence of equals.
    """

    def __init__(self, table: pa.Table):
        self.table = table

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int | slice) -> Any:
        places = range(len(self))[index]
        if isinstance(index, slice):
            return [self[place] for place in places]
        return Utterance(*(column[places].as_py() for column in self.table.columns))

    def __iter__(self) -> Iterator[Utterance]:
        for batch in self.table.to_batches(AT_ONCE):
            yield from map(Utterance, *(column.to_pylist() for column in batch.columns))

    def lacks(self, name: str) -> np.ndarray:
        """[R] bool: which have nothing in this field."""
        return self.table[name].is_null().to_numpy()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def column(rows: Sequence[Utterance], name: str) -> list[Any]:
    """One field of every row; of `Rows` without making utterances."""
    if isinstance(rows, Rows):
        return rows.table[name].to_pylist()
    return [getattr(row, name) for row in rows]


def heard(rows: Sequence[Utterance], name: str) -> list[Any]:
    """One field of the rows that are more than text."""
    both = zip(column(rows, name), column(rows, "audio"), strict=True)
    return [value for value, audio in both if audio]


def codes(values: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """(numbers [R] int64, names): equal values have equal numbers, in the order of appearance."""
    found = pa.array(values, pa.string()).dictionary_encode()
    return found.indices.to_numpy().astype(np.int64), found.dictionary.to_pylist()


class Sentences:
    """Which rows are of one sentence, as arrays.

    By row [R]: `number` of its sentence, `language` (its place in `languages`), whether it `joins`
    (its language is one of `joining`), whether it may be a partner, which it `meets` (speech that
    does not join). By sentence: how many partners (`recordings`), in how many languages
    (`spoken_in`).
    """

    def __init__(self, utterances: Sequence[Utterance], joining: Sequence[str] = ()):
        self.number, names = codes(column(utterances, "sentence_id"))
        self.language, self.languages = codes(column(utterances, "language"))
        joining = [place for place, name in enumerate(self.languages) if name in joining]
        self.joins = np.isin(self.language, joining)
        self.meets = np.fromiter(map(bool, column(utterances, "audio")), bool, len(utterances))
        self.meets &= ~self.joins
        rows = np.flatnonzero(self.meets)
        self._ordered = rows[np.argsort(self.number[rows], kind="stable")]
        self.recordings = np.bincount(self.number[rows], minlength=len(names))
        self._starts = np.cumsum(self.recordings) - self.recordings
        both = np.unique(self.number[rows] * len(self.languages) + self.language[rows])
        spoken, self.spoken_languages = np.divmod(both, len(self.languages))
        self.spoken_in = np.bincount(spoken, minlength=len(names))

    def rows(self, sentence: int) -> np.ndarray:
        """Those that may be partners, in the order of the manifest."""
        start = self._starts[sentence]
        return self._ordered[start : start + self.recordings[sentence]]

    def by_language(self, sentence: int) -> dict[str, list[int]]:
        """Language -> `rows` in it."""
        found = defaultdict(list)
        for row in self.rows(sentence).tolist():
            found[self.languages[self.language[row]]].append(row)
        return found


def in_columns(rows: Sequence[jsonl.Row]) -> pa.Table:
    """Lines that are right (`VALID`), with sentence ids that are equal where they look equal."""
    values = [[row.values.get(name) for row in rows] for name in FIELDS]
    table = pa.table(values, SCHEMA)
    ids = alike(table["sentence_id"])
    return table.set_column(FIELDS.index("sentence_id"), "sentence_id", ids)


def alike(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Sentence ids, equal where they look equal: one file writes é as one character, another as
    two."""
    return pc.utf8_trim_whitespace(pc.utf8_normalize(ids, "NFC"))
