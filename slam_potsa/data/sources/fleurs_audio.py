"""Listening to FLEURS: how long each recording is, or why it cannot be used.

Every recording is decoded once. What was found is kept in a file for each split of each language,
so that an interrupted run goes on where it was, and a second run with other limits takes seconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data import archives
from slam_potsa.data.audio import measure_content
from slam_potsa.data.sources.fleurs_files import Part
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

VERSION = 1  # of the files that keep what was found


@dataclass(frozen=True)
class Heard:
    """What one recording is."""

    audio: str  # its reference: a path, or archive:member
    seconds: float | None  # None: it cannot be used
    problem: str = ""  # why not


def check_archives(parts: Sequence[Part], *, allow_truncated: bool, workers: int) -> None:
    """Refuse archives that break off, before any long work; those that look whole take no time.

    Raises InputError naming each truncated archive (unless `allow_truncated`), and each damaged
    one: what can be read of that may be wrong.
    """
    packed = [part for part in parts if part.audio is not None and part.audio.is_file()]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(_find_trouble, packed))
    problems = [
        problem for problem, truncated in found if problem and not (allow_truncated and truncated)
    ]
    if problems:
        raise InputError(problems)


def _find_trouble(part: Part) -> tuple[str, bool]:
    """(what is wrong with the archive or "", whether it is only truncated)."""
    try:
        index = archives.known_index(part.audio)
    except InputError as error:
        return str(error), False
    if index is None or index.trouble is None:
        return "", False
    remedy = "copy or download it again"
    if index.trouble == "truncated":
        names = {Path(name).name for name in index.members}
        whole = sum(row.file in names for row in part.rows)
        remedy += f", or go on with {whole} of {len(part.rows)} recordings: --allow-truncated"
    return f"{part.audio}: {index.trouble}: {index.detail}; {remedy}", index.trouble == "truncated"


def listen(
    parts: Sequence[Part],
    cache: Path,
    *,
    allow_truncated: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> dict[str, dict[str, Heard]]:
    """Decode every recording of `parts`: part name -> file name -> what it is.

    Files that are not there are left out. Threads, a part each: decompressing and decoding do not
    hold the interpreter's lock.

    Raises:
        InputError: archives that are truncated (unless `allow_truncated`) or damaged.
    """
    from tqdm import tqdm

    check_archives(parts, allow_truncated=allow_truncated, workers=workers)
    stop = threading.Event()
    total = sum(len(part.rows) for part in parts)
    with (
        tqdm(total=total, desc="listening", unit="file", disable=not progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        tasks = {pool.submit(_listen_to, part, cache, stop, bar.update): part for part in parts}
        try:
            heard = {tasks[task].name: task.result() for task in as_completed(tasks)}
        except BaseException:  # also Ctrl-C: the others must not go on for minutes
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    check_archives(parts, allow_truncated=allow_truncated, workers=workers)  # now all are read
    return heard


def _listen_to(part: Part, cache: Path, stop: threading.Event, advance) -> dict[str, Heard]:
    kept = cache / f"{part.name}.json"
    state = _state(part)
    heard = _load(kept, state)
    if heard is not None:
        advance(len(part.rows))
        return heard
    heard, listed = {}, {row.file for row in part.rows}
    try:
        for name, reference, content in _recordings(part.audio):
            if stop.is_set():
                return heard
            if name in listed and name not in heard:
                heard[name] = _hear(reference, content)
                advance(1)
    except BaseException:
        stop.set()  # at once: this thread's next part must not begin
        raise
    advance(len(listed) - len(heard))
    found = {name: dataclasses.astuple(what) for name, what in heard.items()}
    atomic_write(kept, json.dumps({"state": state, "heard": found}, ensure_ascii=False))
    return heard


def _recordings(audio: Path) -> Iterator[tuple[str, str, bytes]]:
    """(file name, reference, content) of every file."""
    if audio.is_dir():
        for path in sorted(audio.iterdir()):
            if path.is_file():
                yield path.name, str(path), path.read_bytes()
    else:
        for member, content in archives.read_through(audio):
            yield Path(member).name, f"{audio}:{member}", content


def _hear(reference: str, content: bytes) -> Heard:
    try:
        # Any length: limits are applied later, so that they can change without listening again.
        return Heard(reference, measure_content(content, reference, max_seconds=None))
    except InputError as error:
        return Heard(reference, None, str(error).removeprefix(f"{reference}: "))


def _load(kept: Path, state: str) -> dict[str, Heard] | None:
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["state"] == state:
            return {name: Heard(*what) for name, what in found["heard"].items()}
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours
        pass
    return None


def _state(part: Part) -> str:
    """Changes when the recordings, their place or the rows do."""
    if part.audio.is_dir():
        paths = sorted(path for path in part.audio.iterdir() if path.is_file())
    else:
        paths = [part.audio]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    listed = sorted(row.file for row in part.rows)
    return hashlib.sha256(json.dumps([VERSION, stats, listed]).encode()).hexdigest()


def default_workers() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
