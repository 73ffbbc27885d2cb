"""Files inside tar archives, in any order: `archive.tar:member` and `archive.tar.gz:member`.

A plain tar is walked once, by its headers. A compressed one has to be decompressed up to what is
wanted, so it is read through once, which finds every member and makes a table of points at which
decompression can start (library `indexed_gzip`). Both are kept in one file beside the archive, or,
where that folder is read-only, in the user's cache folder; an archive that changed gets a new one.

Safe in threads and in forked processes (DataLoader workers): every process has readers of its own,
and no file stays open between two reads.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path

if TYPE_CHECKING:
    from indexed_gzip import IndexedGzipFile

COMPRESSED = (".tar.gz", ".tgz")
INDEX_SUFFIX = ".index"  # added to the archive's name
# Bytes of content between two starting points. Ours: a read decompresses half of it on average,
# besides the member; each point costs 32 KiB of index and memory, 18 MiB for ten hours of speech.
SPACING = 2 * 1024**2
_CHUNK = 1024**2  # bytes that one step through an archive decompresses
_REFERENCE = re.compile(r"(?P<archive>.+\.(?:tar\.gz|tgz|tar)):(?P<member>.+)")
_TRAILER = 8  # bytes at the end of a gzip file: CRC-32 and size of the content
_BLOCK = 512  # bytes: a tar file is made of whole ones


@dataclass(frozen=True)
class ArchiveIndex:
    """What an archive holds, and whether all of it is there."""

    members: dict[str, tuple[int, int]]  # name -> (offset in the content, bytes); whole ones only
    trouble: str | None = None  # None; "truncated": the end is missing; "damaged": bytes are wrong
    detail: str = ""  # the trouble in words
    points: Path | bytes | None = None  # where decompression can start; None: not compressed


def split_reference(reference: str) -> tuple[str, str | None]:
    """`"a.tar.gz:x/b.wav"` -> `("a.tar.gz", "x/b.wav")`; a path of its own -> `(path, None)`."""
    match = _REFERENCE.fullmatch(reference)
    return (match["archive"], match["member"]) if match else (reference, None)


def read_member(path: str | Path, member: str) -> bytes:
    """The content of one file of an archive.

    Members that are whole are read from a truncated archive too.

    Raises:
        InputError: no archive, no such member, or a compressed archive without `indexed_gzip`.
        OSError: what the file system says.
    """
    path = Path(path)
    index = index_of(path)
    if member not in index.members:
        raise InputError(_no_such_member(path, member, index))
    offset, size = index.members[member]
    if index.points is None:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    else:
        content = _reader(str(path), index.points, *_state(path), os.getpid()).pread(size, offset)
    if len(content) < size:
        raise InputError(
            f"{path}:{member}: expected {size} bytes, found {len(content)}; the archive changed "
            f"while it was read: run it again"
        )
    return content


def index_of(path: str | Path) -> ArchiveIndex:
    """The members of an archive; a compressed one that has no index yet is read through for it.

    Raises InputError where the file is no such archive.
    """
    return _index(str(path), *_state(Path(path)))


def read_through(path: str | Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every whole file, in the order of the archive: the fast way to read all.

    Leaves the index of a compressed archive behind. Stops where the archive is truncated or
    damaged; `index_of(path).trouble` then says so.

    Raises InputError where the file is no such archive.
    """
    path = Path(path)
    if not _is_compressed(path):
        for name in index_of(path).members:
            yield name, read_member(path, name)
        return
    _indexed_gzip(path)  # before minutes of reading
    members: dict[str, tuple[int, int]] = {}
    trouble = yield from _walk_compressed(path, members)
    if _kept(path) is None:
        _keep(path, ArchiveIndex(members, *trouble))


def known_index(path: str | Path) -> ArchiveIndex | None:
    """`index_of(path)` where that takes no time: of a plain tar, or kept from an earlier reading.

    A compressed archive that was never read gives None where it looks whole: where its trailer
    names a content of whole tar blocks. One that breaks off almost never does (1 in 512), and is
    read through here.

    Raises InputError where the file is no such archive, or `indexed_gzip` is not installed.
    """
    path = Path(path)
    if _is_compressed(path):
        _indexed_gzip(path)
        if _kept(path) is None and _looks_whole(path):
            return None
    return index_of(path)


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
                problem = f"truncated: the file ends after {Path(path).stat().st_size} bytes"
        except (gzip.BadGzipFile, zlib.error) as error:
            problem = f"damaged: {error}"
        if problem:
            raise InputError(f"{path}: {problem}; copy or download it again")


def _is_compressed(path: Path) -> bool:
    return path.name.endswith(COMPRESSED)


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=256)
def _index(path: str, size: int, mtime_ns: int) -> ArchiveIndex:
    if not _is_compressed(Path(path)):
        return _walk_plain(Path(path), size)
    kept = _kept(Path(path))
    if kept is not None:
        return kept
    members: dict[str, tuple[int, int]] = {}
    walk = _walk_compressed(Path(path), members)
    while True:
        try:
            next(walk)
        except StopIteration as end:
            return _keep(Path(path), ArchiveIndex(members, *end.value))


def _walk_plain(path: Path, size: int) -> ArchiveIndex:
    members, detail = {}, ""
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.offset_data + info.size > size:
                    detail = f"{info.name} should end at byte {info.offset_data + info.size}"
                elif info.isfile():
                    members[info.name] = (info.offset_data, info.size)
            if not detail and archive.offset + _BLOCK > size:  # where its end should be marked
                detail = f"an end should be marked at byte {archive.offset}"
    except tarfile.TarError as error:
        if not members and not detail:
            raise InputError(
                f"{path}: not an uncompressed tar archive ({error}); a compressed one has a name "
                f"that ends in {' or '.join(COMPRESSED)}"
            ) from None
        detail = detail or str(error)
    if detail:
        return ArchiveIndex(members, "truncated", f"{detail}, the file has {size} bytes")
    return ArchiveIndex(members)


def _walk_compressed(
    path: Path, members: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content), fill `members`; return (trouble, detail)."""
    tar_error: Exception | None = None
    with gzip.open(path) as opened:
        stream = _Whole(opened)
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
                for info in archive:
                    content = archive.extractfile(info).read() if info.isfile() else b""
                    if info.isfile() and len(content) == info.size:
                        members[info.name] = (info.offset_data, info.size)
                        yield info.name, content
        except tarfile.TarError as error:
            tar_error = error
        while stream.read(_CHUNK):  # to the end: the checksum stands there
            pass
    error = stream.error or tar_error
    if error is None:
        return None, ""
    if not members and not isinstance(error, EOFError):
        raise InputError(f"{path}: not a gzip-compressed tar archive ({error})")
    if isinstance(error, EOFError):
        return "truncated", (
            f"expected the end of the gzip stream, found the end of the file, after "
            f"{path.stat().st_size} bytes and {len(members)} whole files"
        )
    return "damaged", f"{error}, after {len(members)} files"


class _Whole:
    """A gzip stream that ends where it cannot be read on, and keeps the reason."""

    def __init__(self, stream: gzip.GzipFile):
        self._stream = stream
        self.error: Exception | None = None

    def read(self, size: int) -> bytes:
        if self.error is not None:
            return b""
        try:
            return self._stream.read1(size)  # not read(): it loses what stands before an error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.error = error
            return b""


def _keep(path: Path, index: ArchiveIndex) -> ArchiveIndex:
    """Store a compressed archive's index, and return it with the place of its starting points."""
    library = _indexed_gzip(path)
    points = io.BytesIO()
    with library.IndexedGzipFile(str(path), spacing=SPACING) as file:
        try:
            file.build_full_index()
        except OSError:
            if index.trouble is None:
                raise
        file.export_index(fileobj=points)
    description = {
        "archive": _fingerprint(path),
        "trouble": index.trouble,
        "detail": index.detail,
        "members": index.members,
    }
    for place in _places(path):
        try:
            with atomic_path(place) as temporary, zipfile.ZipFile(temporary, "w") as kept:
                kept.writestr("index.json", json.dumps(description, ensure_ascii=False))
                kept.writestr("points", points.getvalue())
        except OSError:  # a read-only folder, a full disk: the next place, or memory
            continue
        return replace(index, points=place)
    return replace(index, points=points.getvalue())


def _kept(path: Path) -> ArchiveIndex | None:
    """The stored index, unless there is none of this very archive that can be read."""
    for place in _places(path):
        try:
            with zipfile.ZipFile(place) as kept:
                found = json.loads(kept.read("index.json"))
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
        if found["archive"] == _fingerprint(path):
            members = {name: (offset, size) for name, (offset, size) in found["members"].items()}
            return ArchiveIndex(members, found["trouble"], found["detail"], place)
    return None


def _places(path: Path) -> tuple[Path, Path]:
    """Where an index may be: beside the archive, or in the user's cache folder."""
    path = Path(os.path.abspath(path))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{hashlib.sha256(str(path).encode()).hexdigest()[:16]}-{path.name}{INDEX_SUFFIX}"
    return path.with_name(path.name + INDEX_SUFFIX), cache / "slam_potsa" / "archives" / name


def _fingerprint(path: Path) -> str:
    """Size and checksum of a gzip file, so that a copied archive may come with its index."""
    return f"{path.stat().st_size}-{_trailer(path).hex()}"


def _trailer(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(_TRAILER, path.stat().st_size), os.SEEK_END)
        return file.read()


def _looks_whole(path: Path) -> bool:
    return int.from_bytes(_trailer(path)[4:], "little") % _BLOCK == 0


@lru_cache(maxsize=64)
def _reader(
    path: str, points: Path | bytes, size: int, mtime_ns: int, process: int
) -> IndexedGzipFile:
    """A reader of this process: a lock that another thread held at a fork is left behind."""
    if isinstance(points, Path):
        with zipfile.ZipFile(points) as kept:
            points = kept.read("points")
    # A buffer of one byte: a larger one would be filled, decompressing far beyond the member.
    reader = _indexed_gzip(Path(path)).IndexedGzipFile(path, spacing=SPACING, buffer_size=1)
    reader.import_index(fileobj=io.BytesIO(points))
    return reader


def _indexed_gzip(path: Path):
    try:
        import indexed_gzip
    except ImportError:
        raise InputError(
            f"{path}: reading inside compressed archives needs the library indexed_gzip: "
            f"pip install 'slam-potsa[fleurs]', or unpack the archive"
        ) from None
    return indexed_gzip


def _no_such_member(path: Path, member: str, index: ArchiveIndex) -> str:
    example = f", such as {next(iter(index.members))}" if index.members else ""
    text = f"{path}:{member}: no such member; the archive has {len(index.members)} files{example}"
    if index.trouble:
        text += f"; it is {index.trouble} ({index.detail}): copy or download it again"
    return text
