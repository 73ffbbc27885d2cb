"""JSON Lines: the one reader. Rows are numbered, and all that is wrong with them is told at once.

    problems = Problems(path)
    rows = read_rows(path, problems)
    good = [row for row in rows if check_fields(row, {"key": (is_text, "a string")}, problems)]
    problems.check()

A line ends at a line feed only: a text may hold U+2028 and others that `splitlines` splits at.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.errors import InputError, refuse
from slam_potsa.files import atomic_write

MANY = 20  # problems that are listed one by one; of more, those of one kind are told once
SHOWN = 60  # characters of a value in a message
LONGEST = 1 << 24  # bytes of a line: a small .gz may unpack to one of gigabytes
CHECKSUM = "crc32"  # the field of `Log`

Expected = str | Callable[[Any], str]  # what is, or what is in place of a value
Fields = Mapping[str, tuple[Callable[[Any], bool], Expected]]  # name -> (is it right?, expected)
MOST = 1e300  # of numbers
_HALVES, _CONTROL = re.compile("[\ud800-\udfff]"), re.compile("[\x00-\x1f\x7f-\x9f]")
_BROKEN = (ValueError, RecursionError)  # of json.loads; the first covers bytes that are no UTF-8
# What differs between problems of one kind: values (but not nothing), numbers, remarks.
_VALUES = re.compile(r"found (?!nothing).*?(?=, )|(?<!field )'[^']*'|[\d.]+|\(.*\)")


class Row(NamedTuple):
    """One line that is a JSON object."""

    number: int  # of the line, from 1
    values: dict[str, Any]


class Problems:
    """What is wrong with the lines of `path`, collected to be told at once."""

    def __init__(self, path: str | Path, found: Iterable[tuple[int, str]] = ()):
        self.path, self.found = path, [*found]
        self._first: dict[Any, int] = {}

    def add(self, number: int, text: str) -> None:
        self.found.append((number, text))

    def wrong(self, number: int, field: str, found: Any, expected: Expected) -> None:
        self.add(number, wrong_field(field, found, expected))

    def once(self, number: int, value: Any, field: str = "key") -> None:
        """Note a value that no other line may have; told of where one has it."""
        first = self._first.setdefault((field, value), number)
        if first != number:
            again = f"which line {first} has already; expected it once"
            self.add(number, f"field {field!r}: found {value!r}, {again}")

    def texts(self) -> list[str]:
        """`path:line: problem` in the order of lines; of many, those of one kind once.

        >>> problems = Problems("m.jsonl")
        >>> for number in range(1, 31): problems.wrong(number, "key", None, "a string")
        >>> problems.texts()
        ["m.jsonl:1 (and 29 other lines): field 'key': found nothing, expected a string"]
        """
        found = sorted(dict.fromkeys(self.found), key=lambda problem: problem[0])
        kinds: dict[Any, list[tuple[int, str]]] = {}
        for number, text in found:
            kind = _VALUES.sub("", text) if len(found) > MANY else (number, text)
            kinds.setdefault(kind, []).append((number, text))
        texts = []
        for (number, text), *others in kinds.values():
            more = f" (and {len(others):,} other line{'s' * (len(others) > 1)})" if others else ""
            texts.append(f"{self.path}:{number}{more}: {text}")
        return texts

    def check(self) -> None:
        """Raise InputError with all problems, if there are any."""
        refuse(self.texts())


def check_fields(
    row: Row, fields: Fields, problems: Problems, required: Collection[str] = ()
) -> bool:
    """Whether all fields of a row are right; what is wrong goes to `problems`.

    Fields whose name begins with `_` are the user's own; null is as good as nothing.
    """
    before, (number, values) = len(problems.found), row
    for name, value in values.items():
        if name in fields:
            valid, expected = fields[name]
            if value is not None and not valid(value):
                problems.wrong(number, name, value, expected)
        elif not name.startswith("_"):
            known = f"one of {', '.join(fields)} (a field of your own begins with '_')"
            problems.add(number, f"field {name!r}: not known, expected {known}")
    for name in required:
        if values.get(name) is None:
            problems.wrong(number, name, None, fields[name][1])
    return len(problems.found) == before


def is_text(value: Any) -> bool:
    """A string of Unicode's characters: JSON's escapes can write halves of some."""
    return isinstance(value, str) and (value.isascii() or not _HALVES.search(value))


def is_line(value: Any) -> bool:
    """A text that is not blank and has no tab, line break or other control character."""
    if isinstance(value, str) and value.isprintable():  # what most are, and quickly told
        return bool(value.strip())
    return is_text(value) and bool(value.strip()) and not _CONTROL.search(value)


def is_number(value: Any) -> bool:
    """Finite; of any number of digits (JSON's integers have no end)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST < value < MOST


def read_rows(path: str | Path, problems: Problems, expected: str = "JSON Lines") -> Iterator[Row]:
    """The lines that are JSON objects; the others go to `problems`. Blank lines are left out.

    Raises InputError where the file cannot be read (`read_lines`).
    """
    for number, line in read_lines(path, problems, expected):
        try:
            values = json_object(line)
        except InputError as error:
            problems.add(number, str(error))
        else:
            yield Row(number, values)


def json_object(text: str) -> dict[str, Any]:
    """Raises InputError where it is none, or has a field twice."""
    try:
        values, why = json.loads(text), ""
        if isinstance(values, dict) and text.count(":") > len(values):
            json.loads(text, object_pairs_hook=_object)  # a field may be there twice
    except _BROKEN as error:
        values, why = None, f" ({str(error)[:SHOWN]})"
    if not isinstance(values, dict):
        raise InputError(f"found {short(text)}, expected a JSON object{why}")
    return values


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        again = next(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        raise ValueError(f"field {short(again)} is there twice")
    return values


def read_lines(
    path: str | Path, problems: Problems, expected: str, *, blank: bool = False
) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are not blank, or of all with `blank`; of `.gz` files too.
    Those that are not UTF-8 or longer than LONGEST go to `problems`.

    Raises InputError where the file cannot be read; `expected` says what it should hold.
    """
    path, number = Path(path), 0
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise OSError("it is a folder, a pipe or a device")
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            while line := file.readline(LONGEST):
                number += 1
                if len(line) == LONGEST and not line.endswith(b"\n"):
                    while line and not line.endswith(b"\n"):
                        line = file.readline(LONGEST)
                    problems.add(number, f"found over {LONGEST >> 20} MiB, expected a shorter line")
                    continue
                try:
                    text = line.decode("utf-8" if number > 1 else "utf-8-sig")
                except UnicodeDecodeError as error:
                    byte = f"byte 0x{line[error.start]:02x} at {error.start}"
                    problems.add(number, f"not UTF-8: found {byte}, expected text saved as UTF-8")
                    continue
                if blank or text.strip():
                    yield number, text.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        absent = isinstance(error, FileNotFoundError)
        why = "no such file" if absent else f"cannot be read ({error})"
        raise InputError(f"{path}: {why}; expected {expected}, in UTF-8") from None


def read_log(path: str | Path, checked: bool = False) -> list[dict[str, Any]]:
    """The objects of a file that was appended to, up to a line that a crash cut off or that is not
    what its checksum says.

    Args:
        checked: every line must have a checksum; it must where one of them has, too.
    """
    content, found = Path(path).read_bytes(), []
    checked = checked or f'"{CHECKSUM}"'.encode() in content
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except _BROKEN:
            break
        if not isinstance(row, dict) or (checked and row.pop(CHECKSUM, None) != _checksum(row)):
            break
        found.append(row)
    return found


class Log:
    """A file that rows are appended to, each with its checksum: what was interrupted goes on there.

    with Log(path) as log:
        log.rows  # that were there, up to a line that was cut off or changed, then all
        log.add([{"key": "a"}])  # on disk when it returns
    """

    def __init__(self, path: str | Path):
        self.rows = read_log(path, checked=True) if Path(path).is_file() else []
        atomic_write(path, "".join(map(with_checksum, self.rows)))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed in __exit__

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        rows = list(rows)
        self._file.writelines(map(with_checksum, rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows += rows

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def with_checksum(row: Mapping[str, Any]) -> str:
    """The row's line, which `read_log` can tell from a damaged one."""
    return json.dumps({**row, CHECKSUM: _checksum(row)}, ensure_ascii=False) + "\n"


def _checksum(row: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(row, sort_keys=True).encode())


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """One object a line, atomically, of a `.gz` compressed; equal rows give equal bytes."""
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if Path(path).suffix == ".gz":
        content = gzip.compress(content, mtime=0)  # no time of day in the file
    atomic_write(path, content)


def wrong_field(field: str, found: Any, expected: Expected) -> str:
    """`field 'x': found ..., expected ...`; None is nothing."""
    expected = expected(found) if callable(expected) else expected
    told = "nothing" if found is None else short(found)
    return f"field {field!r}: found {told}, expected {expected}"


def short(value: Any) -> str:
    """`repr(value)`, cut where it is long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested beyond measure, an integer of 5,000 digits
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
