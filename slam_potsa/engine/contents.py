"""What lies in files, to be told apart by it: weights, manifests, stored features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from slam_potsa.config import PotsaConfig
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import manifest_hash
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

WORTH_A_NOTE = 1 << 28  # bytes: what takes about a second to hash
_HASHED: dict[tuple[str, int, int], str] = {}


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file, read once as long as its size and its time of change stay.

    Remembered in this process, and for large files in `<path>.sha256` where that can be written.
    """
    path = Path(path).resolve()
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _HASHED:
        _HASHED[key] = _noted(path, key) or _hash(path, key)
    return _HASHED[key]


def _hash(path: Path, key: tuple[str, int, int]) -> str:
    hashing = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 24):
            hashing.update(block)
    digest = hashing.hexdigest()
    if key[1] >= WORTH_A_NOTE:
        note = {"size": key[1], "mtime_ns": key[2], "sha256": digest}
        with suppress(OSError):
            atomic_write(_note(path), json.dumps(note) + "\n")
    return digest


def _noted(path: Path, key: tuple[str, int, int]) -> str | None:
    try:
        note = json.loads(_note(path).read_text())
        return note["sha256"] if (note["size"], note["mtime_ns"]) == key[1:] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def data_contents(config: PotsaConfig) -> dict[str, str]:
    """By path: hashes of the manifests that are trained and validated on, the features' encoder.

    What is not there is left out: who needs it says so.
    """
    data = config.dataset_config
    manifests = [data.train_data_path]
    if config.train_config.run_validation:
        manifests.append(data.val_data_path)
    found = {
        str(path): manifest_hash([path]) for path in filter(None, manifests) if Path(path).is_file()
    }
    if data.feature_store:
        with suppress(InputError):
            found[str(data.feature_store)] = FeatureStore.open(data.feature_store).fingerprint
    return found


def content_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What lies at the same path with other content; another path is the configuration's matter."""
    return [
        f"{path}: its content has changed (hash {before[path][:12]} then, {now[path][:12]} now)"
        for path in before
        if path in now and before[path] != now[path]
    ]
