"""Files that are either whole or not there, and folders that one process at a time writes to."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from slam_potsa.errors import InputError

logger = logging.getLogger(__name__)
LOCK = ".lock"
# How the names of files begin that are being written; after it PROCESS@HOST@ and some of the name:
# on a file system of many machines a process is alive on its own alone.
TEMPORARY, HOST, SHOWN = ".slam-potsa-", socket.gethostname(), 32


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: it replaces `path` on success and goes on error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: libraries such as soundfile choose the format by it.
    prefix = f"{TEMPORARY}{os.getpid()}@{HOST}@{path.stem[:SHOWN]}-"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)  # mkstemp makes files of mode 600; give the one that open() would
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | Path, data: str | bytes) -> None:
    """Write `data` (text as UTF-8) so that a reader sees the old file or the whole new one."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


def write_json(path: str | Path, content: Any) -> None:
    """`content` as indented JSON, whole or not at all."""
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def on_disk(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, would survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def alone(
    folder: str | Path, doing: str = "is training", *, prefix: str = "", patience: float = 10.0
) -> Iterator[None]:
    """Hold `folder` while writing: a second process there would write into the same files.

    What a process of this machine left half-written that was killed is removed first. The lock is
    the process's, which may take it again, and ends with it, however it ends.

    Args:
        doing: what the process does there, for the others' message; it stands in the lock's file.
        prefix: of the files that are held; none: all of them.
        patience: seconds. A process whose launcher was killed may go on by itself; one that was
            killed itself needs some seconds until its data loaders notice.

    Raises InputError where another process holds it still then. Where the file system has no locks,
    a warning, and nobody is kept out.
    """
    folder = Path(os.path.realpath(folder))  # resolve() would trip over a circle of links
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    # A soft lock, filelock's way out, would outlive a process that was killed on another machine.
    held = folder / f"{prefix}{LOCK}"
    lock = FileLock(held, fallback_to_soft=False, is_singleton=True)
    try:
        lock.acquire(patience)
    except Timeout:
        who = held.read_text() or "unknown works"
        raise InputError(f"{folder}: process {who} there; wait for it, or end it") from None
    except OSError as error:  # Lustre, unless it is mounted with -o flock
        logger.warning("%s: no locks (%s), write there from one process", folder, error.strerror)
    else:
        with suppress(OSError):  # a full disk; a folder below that goes meanwhile
            if lock.lock_counter == 1:
                remove_temporaries(folder, prefix)
            held.write_text(f"{os.getpid()} on {HOST} {doing}")  # filelock keeps it for the others
    try:
        yield
    finally:
        lock.release()
        if is_new and [*folder.iterdir()] == [held]:
            held.unlink()
            folder.rmdir()


def remove_temporaries(folder: Path, prefix: str) -> None:
    """What killed processes left below `folder`, or with a prefix, beside which others may work,
    of its files alone."""
    for path in (folder.glob if prefix else folder.rglob)(f"{TEMPORARY}*@{HOST}@*"):
        process, _, name = path.name.removeprefix(TEMPORARY).split("@", 2)
        if not name.startswith(prefix[:SHOWN]):
            continue
        with suppress(ValueError, PermissionError):  # no name of ours; a process of somebody else
            if not _is_alive(int(process)):
                path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Here. One that ended counts as dead before its parent has asked how."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it has ended by now, or this is no Linux
        return not Path("/proc/self").exists()
    return state not in (b"Z", b"X")
