"""Encoder outputs on disk: computed once per utterance, read back by key.

A folder with `features.bin`, float16 [total_frames, E] in row-major order, and `index.json`:
{"fingerprint": of encoder, preprocessing and window; "width": E; "keys": {key: [offset, frames]}},
offsets in frames. Only valid frames are stored (those that hold speech). The index is replaced
atomically and after the frames it names are on disk: a store that was cut off is a smaller store,
and writing goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

DTYPE = np.dtype("<f2")
FEATURES, INDEX = "features.bin", "index.json"


class FeatureStore:
    """Read encoder outputs by utterance key: `store[key]` is a float16 array [T, E]."""

    def __init__(self, folder: str | Path, fingerprint: str, width: int, keys: dict | None = None):
        self.folder, self.fingerprint, self.width = Path(folder), fingerprint, width
        self._keys: dict[str, list[int]] = keys or {}  # key -> offset, frames

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> FeatureStore:
        """Open the store in `folder`.

        Raises InputError where there is none, where it belongs to another fingerprint (None takes
        any), or where `features.bin` is shorter than the index says.
        """
        path, remedy = Path(folder, INDEX), "make it with `slam-potsa features`"
        if not path.exists():
            raise InputError(f"{path}: no such feature store; {remedy}")
        remedy = f"delete the folder and {remedy}"
        try:
            store = cls(folder, **json.loads(path.read_text(encoding="utf-8")))
            needed = store.frames * store.width * DTYPE.itemsize
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path}: not the index of a feature store ({error!r}); {remedy}"
            ) from None
        features = path.with_name(FEATURES)
        found = features.stat().st_size if features.exists() else 0
        if found < needed:
            raise InputError(f"{features}: {found} bytes, the index needs {needed}; {remedy}")
        if fingerprint not in (None, store.fingerprint):
            raise InputError(
                f"{folder}: features of {store.fingerprint!r}, but this run has {fingerprint!r} "
                f"(another encoder, preprocessing or window); use another folder, or {remedy}"
            )
        return store

    @property
    def frames(self) -> int:
        """How many frames the index names."""
        return max((offset + frames for offset, frames in self._keys.values()), default=0)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __getitem__(self, key: str) -> np.ndarray:
        self.require([key])
        start, frames = self._keys[key]
        row = self.width * DTYPE.itemsize  # bytes
        path, count = self.folder / FEATURES, frames * self.width
        return np.fromfile(path, DTYPE, count, offset=start * row).reshape(frames, self.width)

    def require(self, keys: Iterable[str]) -> None:
        """Raise InputError, with the number and an example, unless every key is here."""
        missing = [key for key in keys if key not in self._keys]
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} utterances have no features (such as "
                f"{missing[0]!r}); add them with `slam-potsa features`"
            )


class FeatureStoreWriter(FeatureStore):
    """Add encoder outputs to a store, new or begun before; use as a context manager.

        with FeatureStoreWriter(folder, fingerprint, width) as writer:
            for key in keys:
                if key not in writer:
                    writer.add(key, encode(key))

    Args:
        fingerprint: names everything that the features depend on; a store of another is refused.
        width: E.
    """

    def __init__(self, folder: str | Path, fingerprint: str, width: int):
        super().__init__(folder, fingerprint, width)
        if (self.folder / INDEX).exists():
            begun = FeatureStore.open(folder, fingerprint)
            self._keys = begun._keys
            if begun.width != width:
                raise InputError(
                    f"{folder}: features are {begun.width} wide, this encoder's are {width}; use "
                    f"another folder"
                )
        self._end, self._unsaved = self.frames, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / FEATURES, "ab")  # noqa: SIM115 - closed by close()
        self._file.truncate(self._end * width * DTYPE.itemsize)  # frames that no index names

    def add(self, key: str, features: np.ndarray) -> None:
        """Append the valid frames [T, E] of `key`; nothing happens where it is there already.

        Raises InputError for another shape, and for values that float16 cannot hold.
        """
        if key in self:
            return
        shape = list(np.shape(features))
        if len(shape) != 2 or shape[1] != self.width or not shape[0]:
            raise InputError(
                f"features of {key!r}: expected shape [frames, {self.width}], got {shape}"
            )
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(features, dtype=DTYPE)
        if not np.isfinite(rows).all():
            raise InputError(
                f"features of {key!r}: NaN, infinite, or beyond float16's 65504; check the "
                f"encoder's weights and its dtype"
            )
        self._file.write(rows.tobytes())
        self._keys[key] = [self._end, len(rows)]
        self._end += len(rows)
        self._unsaved += 1
        if self._unsaved >= max(256, len(self) // 8):  # seldom: the whole index is rewritten
            self.flush()

    def flush(self) -> None:
        """Put everything added so far on disk, the frames before the index."""
        self._file.flush()
        os.fsync(self._file.fileno())
        index = {"fingerprint": self.fingerprint, "width": self.width, "keys": self._keys}
        atomic_write(self.folder / INDEX, json.dumps(index, ensure_ascii=False))
        self._unsaved = 0

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> FeatureStoreWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
