"""One training a folder: a lock that the process holds."""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from slam_potsa.errors import InputError

logger = logging.getLogger(__name__)
LOCK = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextmanager
def alone(folder: str | Path, patience: float = 10.0) -> Iterator[None]:
    """Hold `folder` while training: a second run there would write into the same files.

    The lock is the process's and ends with it, however it ends. Raises InputError where another
    process holds it still after `patience` seconds: one whose launcher was killed may go on by
    itself; one that was killed itself needs some seconds until its data loaders notice. Where the
    file system has no locks, a warning, and nobody is kept out.
    """
    folder, end = Path(folder), time.monotonic() + patience
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "a+") as file:
        while not (held := _lock(file)) and time.monotonic() < end:
            time.sleep(0.2)
        if not held:
            file.seek(0)
            raise InputError(
                f"{folder}: process {file.read().strip()} is training there; wait for it, or end it"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock(file: TextIO) -> bool:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not POSIX: nobody looks
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        warn_once(
            f"{Path(file.name).parent}: its file system has no locks ({error.strerror}; Lustre: "
            "mount with -o flock), so nothing keeps a second training out: start only one there"
        )
    return True


@functools.cache
def warn_once(text: str) -> None:
    """Log `text` as a warning, the first time only."""
    logger.warning("%s", text)
