"""Encoder outputs on disk: computed once per utterance, read back by key.

A folder with `features.bin`, float16 [total_frames, E] in row-major order, and `index.json`:
{"fingerprint": of encoder, preprocessing and window; "width": E;
"keys": {key: [offset, frames, CRC-32 of the frames]}, offsets in frames; "recordings": {key: CRC-32
of the recording's file}, of those that were there}. Only valid frames are stored (those that hold
speech). The index is sealed (`provenance`) and replaced after the frames it names are on disk: a
store that was cut off is a smaller store, and writing goes on where it stopped. One process writes
at a time. Frames are compared with their checksum when they are read.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slam_potsa.data.manifest import read_manifest
from slam_potsa.data.rows import column
from slam_potsa.errors import InputError
from slam_potsa.files import alone
from slam_potsa.provenance import refuse_damaged, sealed

DTYPE = np.dtype("<f2")
FEATURES, INDEX = "features.bin", "index.json"


@dataclass
class FeatureStore:
    """Encoder outputs by utterance key: `store[key]` is a float16 array [T, E]."""

    folder: Path
    fingerprint: str  # names everything that the features depend on
    width: int  # E
    keys: dict[str, list[int]] = field(default_factory=dict)  # key -> offset, frames, checksum
    recordings: dict[str, int] = field(default_factory=dict)  # key -> checksum of its file

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> FeatureStore:
        """Open the store in `folder`.

        Raises InputError where there is none, where it belongs to another fingerprint (None takes
        any), where the index is damaged, or `features.bin` shorter than it says.
        """
        folder, remedy = Path(folder), "make it with `slam-potsa features`"
        if not (folder / INDEX).exists():
            raise InputError(f"{folder / INDEX}: no such feature store; {remedy}")
        remedy = f"delete the folder and {remedy}"
        refuse_damaged(folder / INDEX)
        try:
            store = cls(folder, **json.loads((folder / INDEX).read_text(encoding="utf-8")))
            places = np.array([*store.keys.values(), [0, 0, 0]])
            kinds = places.dtype.kind + np.array([*store.recordings.values(), 0]).dtype.kind
            if (type(store.width), kinds) != (int, "ii") or places.min() < 0:
                raise ValueError("expected whole numbers")
            needed = store.frames * store.width * DTYPE.itemsize
            found = os.path.getsize(folder / FEATURES)
        except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
            what = "not the index of a feature store"
            raise InputError(f"{folder / INDEX}: {what} ({error!r}); {remedy}") from None
        if found < needed:
            what = f"{found} bytes, the index needs {needed}"
            raise InputError(f"{folder / FEATURES}: {what}; {remedy}")
        if fingerprint not in (None, store.fingerprint):
            raise InputError(
                f"{folder}: features of {store.fingerprint!r}, but this run has {fingerprint!r} "
                f"(another encoder, preprocessing or window); use another folder, or {remedy}"
            )
        return store

    @property
    def frames(self) -> int:
        """How many frames the index names."""
        return max((offset + frames for offset, frames, _ in self.keys.values()), default=0)

    def __getitem__(self, key: str) -> np.ndarray:
        """Raises InputError for a key that is not here, and for frames that are damaged."""
        self.require([key])
        start, frames, checksum = self.keys[key]
        row = self.width * DTYPE.itemsize  # bytes
        path, count = self.folder / FEATURES, frames * self.width
        found = np.fromfile(path, DTYPE, count, offset=start * row)
        if len(found) < count or zlib.crc32(found) != checksum:
            raise InputError(
                f"{path}: the features of {key!r} are not those that were written: the file is "
                "damaged; delete the folder and make it with `slam-potsa features`"
            )
        if not np.isfinite(found).all():
            raise InputError(f"{path}: the features of {key!r} were stored with NaN or infinity")
        return found.reshape(frames, self.width)

    def require(self, keys: Iterable[str]) -> None:
        """Raise InputError, with the number and an example, unless every key is here."""
        missing = [key for key in keys if key not in self.keys]
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} utterances have no features (such as "
                f"{missing[0]!r}); add them with `slam-potsa features`"
            )


def has_features(store: str | Path, manifest: str | Path, encoder: str | None = None) -> bool:
    """Whether `store` has all that a manifest needs. Raises InputError for a bad manifest.

    Args:
        encoder: its fingerprint; InputError where the store is another's. None: any.
    """
    if not Path(store).is_dir():
        return False
    held = FeatureStore.open(store, encoder)
    return all(key in held.keys for key in column(read_manifest(manifest), "key"))


def add_features(
    folder: str | Path,
    fingerprint: str,
    width: int,
    found: Iterable[tuple[str, np.ndarray]],
    recordings: Mapping[str, int] | None = None,
) -> FeatureStore:
    """Add encoder outputs to the store in `folder`, new or begun before.

    Args:
        fingerprint: names everything that the features depend on.
        width: E.
        found: (key, valid frames [T, E]); a key that is there already is left as it is.
        recordings: CRC-32 of their files by key, as far as they are known.

    Raises InputError for a store of another fingerprint or width, for another shape, and for values
    that float16 cannot hold. What was added before an error or an interruption stays.
    """
    folder = Path(folder)
    with alone(folder, "is storing features"):
        store = FeatureStore(folder, fingerprint, width)
        if (folder / INDEX).exists():
            store = FeatureStore.open(folder, fingerprint)
        if store.width != width:
            what = f"features are {store.width} wide, this encoder's are {width}"
            raise InputError(f"{folder}: {what}; use another folder")
        with open(folder / FEATURES, "ab") as file:
            file.truncate(store.frames * width * DTYPE.itemsize)  # frames that no index names
            try:
                _append(store, file, found, recordings or {})
            finally:
                _save(store, file)
    return store


def _append(
    store: FeatureStore,
    file: BinaryIO,
    found: Iterable[tuple[str, np.ndarray]],
    recordings: Mapping[str, int],
) -> None:
    end, unsaved = store.frames, 0
    for key, features in found:
        if key in store.keys:
            continue
        rows = _rows(key, features, store.width)
        file.write(rows.tobytes())
        store.keys[key] = [end, len(rows), zlib.crc32(rows)]
        if key in recordings:
            store.recordings[key] = recordings[key]
        end, unsaved = end + len(rows), unsaved + 1
        if unsaved >= max(256, len(store.keys) // 8):  # seldom: the index is rewritten
            _save(store, file)
            unsaved = 0


def _rows(key: str, features: np.ndarray, width: int) -> np.ndarray:
    shape = list(np.shape(features))
    if len(shape) != 2 or shape[1] != width or not shape[0]:
        raise InputError(f"features of {key!r}: expected shape [frames, {width}], got {shape}")
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(features, dtype=DTYPE)
    if not np.isfinite(rows).all():
        raise InputError(
            f"features of {key!r}: NaN, infinite, or beyond float16's 65504; check the encoder's "
            f"weights and its dtype"
        )
    return rows


def _save(store: FeatureStore, file: BinaryIO) -> None:
    """Put everything added so far on disk, the frames before the index."""
    file.flush()
    os.fsync(file.fileno())
    index = {name: value for name, value in vars(store).items() if name != "folder"}
    with sealed(store.folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
