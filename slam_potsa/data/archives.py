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
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path

COMPRESSED = (".tar.gz", ".tgz")
_CHUNK = 1024**2  # bytes that one step of `unpack` decompresses
_REFERENCE = re.compile(r"(.+\.(?:tar\.gz|tgz|tar)):(.+)")
_BLOCK = 512  # bytes: a tar file is made of whole ones, and one of zeros marks its end


class ArchiveIndex(NamedTuple):
    """What an archive holds, and whether all of it is there."""

    members: dict[str, tuple[int, int]]  # name -> (offset, bytes); whole ones only
    trouble: str = ""  # "truncated: ...": the end is missing, and how that is known


def split_reference(reference: str) -> tuple[str, str | None]:
    """`"a.tar:x/b.wav"` -> `("a.tar", "x/b.wav")`; a path of its own -> `(path, None)`."""
    match = _REFERENCE.fullmatch(reference)
    return (match[1], match[2]) if match else (reference, None)


def read_member(path: str | Path, member: str) -> bytes:
    """The content of one file of an archive; of a truncated one too, where the member is whole.

    Raises:
        InputError: no archive, a compressed one, or no such member.
        OSError: what the file system says.
    """
    members, trouble = index_of(path)
    if member not in members:
        text = f"{path}:{member}: no such member; the archive has {len(members)} files"
        text += f", such as {next(iter(members))}" if members else ""
        text += f"; it is {trouble}: copy or download it again" if trouble else ""
        raise InputError(text)
    offset, size = members[member]
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def index_of(path: str | Path) -> ArchiveIndex:
    """The members of an archive. Raises InputError where the file is none, or a compressed one."""
    state = Path(path).stat()
    return _walk(str(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _walk(path: str, size: int, mtime_ns: int) -> ArchiveIndex:
    members, end = {}, 0
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                end = info.offset_data + info.size
                if info.isfile() and end <= size:
                    members[info.name] = (info.offset_data, info.size)
            end = max(end, archive.offset + _BLOCK)
    except tarfile.TarError as error:
        if not end:
            what = f"not an uncompressed tar archive ({error})"
            raise InputError(f"{path}: {what}; gunzip a .tar.gz and name the .tar") from None
        end = max(end, size + 1)  # at least: a header is cut off
    cut = f"truncated: it should have {end} bytes or more, found {size}"
    return ArchiveIndex(members, cut if end > size else "")


def unpack(path: str | Path, tar: str | Path, *, allow_truncated: bool = False) -> None:
    """Decompress the archive `path` (.tar.gz) into the plain `tar`, which is whole or not there.

    Args:
        allow_truncated: of an archive that breaks off, write what it still has.

    Raises InputError where the archive is truncated, damaged or no gzip file.
    """
    with gzip.open(path) as packed, atomic_path(tar) as temporary, open(temporary, "wb") as plain:
        try:
            while content := packed.read1(_CHUNK):  # not read(): it loses what precedes an error
                plain.write(content)
        except EOFError:
            if not allow_truncated:
                raise InputError(
                    f"{path}: truncated: go on with --allow-truncated, or copy or download it again"
                ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged: {error}; copy or download it again") from None
