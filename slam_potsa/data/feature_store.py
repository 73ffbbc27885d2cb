"""Encoder outputs on disk: computed once per utterance, read back memory-mapped.

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

    def __init__(self, folder: Path, index: dict):
        self.folder, self.fingerprint, self.width = folder, index["fingerprint"], index["width"]
        self._keys: dict[str, list[int]] = index["keys"]
        self._frames: np.memmap | None = None

    @classmethod
    def open(cls, folder: str | Path, fingerprint: str | None = None) -> FeatureStore:
        """Open the store in `folder`.

        Raises InputError where there is none, where it belongs to another fingerprint (None takes
        any), or where `features.bin` is shorter than the index says.
        """
        folder = Path(folder)
        index = _read_index(folder, fingerprint)
        if index is None:
            raise InputError(
                f"{folder / INDEX}: no such feature store; make it with `slam-potsa features`"
            )
        return cls(folder, index)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __getitem__(self, key: str) -> np.ndarray:
        self.require([key])
        offset, frames = self._keys[key]
        if self._frames is None:
            path = self.folder / FEATURES
            self._frames = np.memmap(path, DTYPE, mode="r").reshape(-1, self.width)
        return np.array(self._frames[offset : offset + frames])

    def require(self, keys: Iterable[str]) -> None:
        """Raise InputError, with the number and an example, unless every key is here."""
        missing = [key for key in keys if key not in self._keys]
        if missing:
            raise InputError(
                f"{self.folder}: {len(missing)} utterances have no features (such as "
                f"{missing[0]!r}); add them with `slam-potsa features`"
            )

    def __getstate__(self) -> dict:  # a worker maps the file itself; pickling would copy it
        return {**self.__dict__, "_frames": None}


class FeatureStoreWriter:
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
        self.folder, self.fingerprint, self.width = Path(folder), fingerprint, width
        index = _read_index(self.folder, fingerprint) or {"width": width, "keys": {}}
        if index["width"] != width:
            raise InputError(
                f"{self.folder}: features are {index['width']} wide, this encoder's are {width}; "
                f"use another folder"
            )
        self._keys: dict[str, list[int]] = index["keys"]
        self._end = _end(self._keys)
        self._unsaved = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = open(self.folder / FEATURES, "ab")  # noqa: SIM115 - closed by close()
        self._file.truncate(self._end * width * DTYPE.itemsize)  # frames that no index names

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, features: np.ndarray) -> None:
        """Append the valid frames [T, E] of `key`; nothing happens where it is there already.

        Raises InputError for another shape, and for values that float16 cannot hold.
        """
        if key in self._keys:
            return
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.width or not len(features):
            raise InputError(
                f"features of {key!r}: expected shape [frames, {self.width}], got "
                f"{list(features.shape)}"
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
        if self._unsaved >= max(256, len(self._keys) // 8):  # seldom: the whole index is rewritten
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


def _end(keys: dict[str, list[int]]) -> int:
    return max((offset + frames for offset, frames in keys.values()), default=0)


def _read_index(folder: Path, fingerprint: str | None) -> dict | None:
    """The index, checked against what is expected; None where there is no store."""
    path = folder / INDEX
    if not path.exists():
        return None
    remedy = "delete the folder and make it again with `slam-potsa features`"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        needed = _end(index["keys"]) * index["width"] * DTYPE.itemsize
        known = index["fingerprint"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not the index of a feature store ({error!r}); {remedy}"
        ) from None
    features = folder / FEATURES
    found = features.stat().st_size if features.exists() else 0
    if found < needed:
        raise InputError(f"{features}: {found} bytes, the index needs {needed}; {remedy}")
    if fingerprint not in (None, known):
        raise InputError(
            f"{folder}: features of {known!r}, but this run has {fingerprint!r} (another encoder, "
            f"preprocessing or window); use another folder, or delete this one"
        )
    return index
