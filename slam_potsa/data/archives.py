"""Files inside tar archives, in any order: `archive.tar:member`.

An archive is walked once a process, by its headers; one that changed is walked again. No file stays
open between two reads: threads and forked processes (DataLoader workers) may read at once. Inside a
compressed archive nothing is found without decompressing all before it, so that these are not read:
`unpack` makes a plain one, once.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from functools import lru_cache
from pathlib import Path

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path

COMPRESSED = (".tar.gz", ".tgz")
_REFERENCE = re.compile(r"(.+\.(?:tar\.gz|tgz|tar)):(.+)")
MAX_MEMBER = 1 << 27  # bytes of one that is read: 60 s of speech in any form have less
_BLOCK = 512  # bytes: a tar file is made of whole ones, and one of zeros marks its end


def split_reference(reference: str) -> tuple[str, str | None]:
    """`"a.tar:x/b.wav"` -> `("a.tar", "x/b.wav")`; a path of its own -> `(path, None)`."""
    match = _REFERENCE.fullmatch(reference) if ":" in reference else None
    return (match[1], match[2]) if match else (reference, None)


def read_member(path: str | Path, member: str) -> bytes:
    """The content of one file of an archive.

    Raises:
        InputError: no archive, a compressed or truncated one, or no such member.
        OSError: what the file system says.
    """
    members = index_of(path)
    if member not in members:
        such_as = f", such as {next(iter(members))}" if members else ""
        raise InputError(
            f"{path}:{member}: no such member; the archive has {len(members)} files{such_as}"
        )
    offset, size = members[member]
    if size > MAX_MEMBER:
        raise InputError(f"{path}:{member}: {size} bytes, expected {MAX_MEMBER} at most")
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def index_of(path: str | Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset, bytes) of each file of an archive. Raises InputError as `read_member`."""
    state = Path(path).stat()
    return _walk(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _walk(path: str, size: int, mtime_ns: int) -> dict[str, tuple[int, int]]:
    try:
        with tarfile.open(path, "r:") as archive:
            members = {i.name: (i.offset_data, i.size) for i in archive if i.isfile()}
            end = archive.offset + _BLOCK
    except tarfile.TarError as error:
        raise InputError(
            f"{path}: truncated, or not an uncompressed tar archive ({error}); copy or download it "
            f"again, or gunzip a .tar.gz and name the .tar"
        ) from None
    if end > size:
        found = f"it should have {end} bytes or more, found {size}"
        raise InputError(f"{path}: truncated: {found}; copy or download it again")
    return members


def unpack(path: str | Path, tar: str | Path) -> None:
    """Decompress the archive `path` (.tar.gz) into the plain `tar`, which is whole or not there.

    Raises InputError where the archive is truncated, damaged or no gzip file.
    """
    with gzip.open(path) as packed, atomic_path(tar) as temporary, open(temporary, "wb") as plain:
        try:
            shutil.copyfileobj(packed, plain)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            what = "truncated" if isinstance(error, EOFError) else "damaged"
            raise InputError(f"{path}: {what}: {error}; copy or download it again") from None
