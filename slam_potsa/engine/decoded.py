"""Whether a test's predictions are those of this model, these options and this manifest.

<prefix>_predictions.jsonl   what was decoded
<prefix>.done.json           all that the answers depend on, and the hash of that file
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import manifest_hash
from slam_potsa.data.tasks import task_to_decode
from slam_potsa.engine.contents import content_hash
from slam_potsa.files import atomic_write

# Compared by what they are, not by their place or how they came about.
_BY_CONTENT = ("ckpt_path", "dataset_config.train_data_path", "dataset_config.feature_store")


def predictions_file(prefix: str | Path) -> Path:
    return Path(f"{prefix}_predictions.jsonl")


def depends_on(config: PotsaConfig, manifest: str | Path) -> dict[str, Any]:
    """All that the answers to `manifest` depend on, by name; no model is loaded for it.

    Args:
        config: what would be decoded with; its `ckpt_path` is there.
    """
    data, options = config.dataset_config, flat(config, affects=["weights", "answers"])
    own = {name: value for name, value in options.items() if name not in _BY_CONTENT}
    return own | {
        "task": task_to_decode(data.tasks, data.test_task),
        "the model's weights": content_hash(config.ckpt_path),
        "the manifest's content": manifest_hash([manifest]),
        "the stored features": _features(data.feature_store),
    }


def _features(store: str | None) -> str | None:
    """What encoder they are of; None where there are none, and recordings are read."""
    return FeatureStore.open(store).fingerprint if store and Path(store).is_dir() else None


def mark_decoded(prefix: str | Path, parts: Mapping[str, Any]) -> None:
    """To be called when the predictions are written; `parts` are those of `depends_on`, before."""
    record = {"depends_on": dict(parts), "predictions": content_hash(predictions_file(prefix))}
    atomic_write(_mark(prefix), json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def why_decode(prefix: str | Path, parts: Mapping[str, Any]) -> list[str]:
    """Why it is to be decoded, again or for the first time; nothing where that is done."""
    return list(_reasons(prefix, parts))


def _reasons(prefix: str | Path, parts: Mapping[str, Any]) -> Iterator[str]:
    predictions = predictions_file(prefix)
    if not predictions.is_file():
        yield "not decoded yet"
        return
    try:
        record = json.loads(_mark(prefix).read_text())
        before, written = record["depends_on"], record["predictions"]
    except (OSError, ValueError, KeyError, TypeError):
        yield f"nothing says with what {predictions.name} was decoded"
        return
    if written != content_hash(predictions):
        yield f"{predictions.name} is another than this recipe wrote"
    for name in sorted(before.keys() | parts.keys()):
        if before.get(name) != parts.get(name):
            yield f"{name}: {_short(before.get(name))} then, {_short(parts.get(name))} now"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _mark(prefix: str | Path) -> Path:
    return Path(f"{prefix}.done.json")
