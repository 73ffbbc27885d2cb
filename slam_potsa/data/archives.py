"""Files inside tar archives, in any order: `archive.tar:member`.

An archive is walked once a process, by its headers; one that changed is walked again. No file stays
open between two reads: threads and forked processes (DataLoader workers) may read at once. Inside a
compressed archive nothing is found without decompressing all before it, so that these are not read:
`unpack` makes a plain one, once.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path

COMPRESSED = (".tar.gz", ".tgz")
_CHUNK = 1024**2  # bytes that one step of `unpack` decompresses
_REFERENCE = re.compile(r"(?P<archive>.+\.(?:tar\.gz|tgz|tar)):(?P<member>.+)")
_BLOCK = 512  # bytes: a tar file is made of whole ones, and one of zeros marks its end


@dataclass(frozen=True)
class ArchiveIndex:
    """What an archive holds, and whether all of it is there."""

    members: dict[str, tuple[int, int]]  # name -> (offset, bytes); whole ones only
    trouble: str = ""  # "truncated": the end is missing
    detail: str = ""  # how that is known


def split_reference(reference: str) -> tuple[str, str | None]:
    """`"a.tar:x/b.wav"` -> `("a.tar", "x/b.wav")`; a path of its own -> `(path, None)`."""
    match = _REFERENCE.fullmatch(reference)
    return (match["archive"], match["member"]) if match else (reference, None)


def read_member(path: str | Path, member: str) -> bytes:
    """The content of one file of an archive.

    Members that are whole are read from a truncated archive too.

    Raises:
        InputError: no archive, a compressed one, or no such member.
        OSError: what the file system says.
    """
    index = index_of(path)
    if member not in index.members:
        raise InputError(_no_such_member(path, member, index))
    offset, size = index.members[member]
    with open(path, "rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise InputError(
            f"{path}:{member}: expected {size} bytes, found {len(content)}; the archive changed "
            f"while it was read: run it again"
        )
    return content


def index_of(path: str | Path) -> ArchiveIndex:
    """The members of an archive. Raises InputError where the file is none, or a compressed one."""
    if str(path).endswith(COMPRESSED):
        raise InputError(
            f"{path}: compressed, and members are read from plain archives only: gunzip it, and "
            f"name {Path(path).stem.removesuffix('.tar')}.tar in the manifest"
        )
    state = Path(path).stat()
    return _walk(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _walk(path: str, size: int, mtime_ns: int) -> ArchiveIndex:
    members, detail = {}, ""
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.offset_data + info.size > size:
                    detail = f"{info.name} should end at byte {info.offset_data + info.size}"
                elif info.isfile():
                    members[info.name] = (info.offset_data, info.size)
            if not detail and archive.offset + _BLOCK > size:
                detail = f"an end should be marked at byte {archive.offset}"
    except tarfile.TarError as error:
        if not members and not detail:
            raise InputError(f"{path}: not an uncompressed tar archive ({error})") from None
        detail = detail or str(error)
    if detail:
        return ArchiveIndex(members, "truncated", f"{detail}, the file has {size} bytes")
    return ArchiveIndex(members)


def unpack(path: str | Path, tar: str | Path, *, allow_truncated: bool = False) -> None:
    """Decompress the archive `path` (.tar.gz) into the plain `tar`, which is whole or not there.

    Args:
        allow_truncated: of an archive that breaks off, write what it still has.

    Raises InputError where the archive is truncated, damaged or no gzip file.
    """
    problem = ""
    with gzip.open(path) as packed, atomic_path(tar) as temporary, open(temporary, "wb") as plain:
        try:
            while content := packed.read1(_CHUNK):  # not read(): it loses what precedes an error
                plain.write(content)
        except EOFError:
            if not allow_truncated:
                size = Path(path).stat().st_size
                problem = f"truncated after {size} bytes: go on with --allow-truncated"
        except (gzip.BadGzipFile, zlib.error) as error:
            problem = f"damaged: {error}"
        if problem:
            raise InputError(f"{path}: {problem}, or copy or download it again")


def _no_such_member(path: str | Path, member: str, index: ArchiveIndex) -> str:
    example = f", such as {next(iter(index.members))}" if index.members else ""
    text = f"{path}:{member}: no such member; the archive has {len(index.members)} files{example}"
    if index.trouble:
        text += f"; it is {index.trouble} ({index.detail}): copy or download it again"
    return text
