"""Is this still what it was made from? One record beside a result, one comparison.

A record is a JSON file with what a result was made from, by name, the files it consists of, the
command that made it, and notes, such as where something lay, which are not compared:

    {"made_from": {"manifest": "9f86d0…", "decode.num_beams": 4},
     "files": {"test_predictions.jsonl": {"bytes": 8123, "sha256": "2c26b4…"}},
     "argv": ["slam-potsa", "decode", "outputs/mine", "test.jsonl"],
     "notes": {"manifest": "/data/test.jsonl"}}

What is large is named by its content (`content_hash`, `fingerprint`), never by its path or time. A
record is written last, when what it speaks of is whole and on disk. A file that is worth one of its
own (`sealed`) has it beside itself, in `<name>.record`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from slam_potsa.errors import refuse
from slam_potsa.files import atomic_path, on_disk, write_json

SHOWN = 40  # characters of a value in a message
MODEL_FILES = (".safetensors", ".bin", ".pt", ".json", ".model", ".txt")


@dataclass(frozen=True)
class Record:
    """What one result was made from, see above."""

    made_from: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    argv: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


def write_record(
    path: str | Path,
    made_from: Mapping[str, Any],
    files: Iterable[str | Path] = (),
    notes: Mapping[str, Any] | None = None,
) -> Record:
    """Write a record to `path`, atomically, once its files are on disk.

    They are named relative to its folder.

    Args:
        made_from: JSON-able values by name.
        files: those that the result consists of, all there.
        notes: JSON-able values that are good to know and not compared.
    """
    path, files = Path(path), [*map(Path, files)]
    for there in (*files, *{file.parent for file in files}):
        on_disk(there)
    found = {str(file.relative_to(path.parent)): _state(file) for file in files}
    record = Record(dict(made_from), found, list(sys.argv), dict(notes or {}))
    write_json(path, asdict(record))
    return record


def read_record(path: str | Path) -> Record | None:
    """The record at `path`; None where there is none, or something else."""
    try:
        record = Record(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if list(map(type, vars(record).values())) == [dict, dict, list, dict] else None


def why_outdated(path: str | Path, made_from: Mapping[str, Any]) -> list[str]:
    """Why what the record at `path` speaks of is to be made anew; nothing where it is up to date.

    It is not there, it was made from something else, or its files are not those that were written.
    """
    record = read_record(path)
    if record is None:
        return [f"nothing there says what it was made from ({Path(path).name})"]
    return [*differences(record.made_from, made_from), *changed_files(record, Path(path).parent)]


@contextmanager
def sealed(path: str | Path) -> Iterator[Path]:
    """`atomic_path`, and a record of the file beside it, which goes before the file does."""
    record = seal(path)
    record.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        yield temporary
    write_record(record, {}, [path])


def seal(path: str | Path) -> Path:
    """Where the record of a `sealed` file is."""
    return Path(f"{path}.record")


def refuse_damaged(path: str | Path, record: str | Path | None = None) -> None:
    """Raise InputError where a file is not what its record says (None: its seal); one without is
    taken."""
    if (record := Path(record or seal(path))).exists():
        found = read_record(record)
        why = changed_files(found, record.parent) if found else [f"{record.name} is no record"]
        refuse(f"{path}: damaged ({w}): copy or make it again, or remove {record}" for w in why)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each name whose value differs; one that only one side has differs too.

    >>> differences({"beams": 4, "task": "asr"}, {"beams": 1, "task": "asr"})
    ['beams: 4 then, 1 now']
    """
    now = json.loads(json.dumps(dict(now)))  # as a record has it: lists for tuples
    return [
        f"{name}: {_short(before.get(name))} then, {_short(now.get(name))} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def changed_files(record: Record, folder: Path) -> Iterator[str]:
    """A line for each file of the record that is missing from `folder` or has other content."""
    for name, state in record.files.items():
        path = folder / name
        try:
            found = _state(path)
        except (OSError, UnicodeError) as error:  # the latter: a name that no file can have
            yield f"{name} is not there" if not path.exists() else f"{name}: {error.strerror}"
            continue
        if found != state:
            yield f"{name} is not the one that was written ({found['bytes']} bytes now)"


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file; read once by a process as long as inode, size and time of change stay."""
    path = Path(path).resolve()
    state = path.stat()
    return _hashed(path, state.st_ino, state.st_size, state.st_mtime_ns)


@cache
def _hashed(path: Path, *_state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: str | Path) -> str:
    """Of a model's folder: of each of its files the size and 4 KiB at up to 1,024 even places.

    That tells models apart and takes no minutes for tens of gigabytes; it does not find damage.
    """
    files = sorted(f for f in Path(folder).iterdir() if f.suffix in MODEL_FILES)
    return fingerprint(files=[[file.name, file.stat().st_size, _sampled(file)] for file in files])


def _sampled(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        for place in range(0, size, max(4096, size // 1024)):
            file.seek(place)
            digest.update(file.read(4096))
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """SHA-256 of JSON-able `parts`: equal parts, equal hash, in any order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _state(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": content_hash(path)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
