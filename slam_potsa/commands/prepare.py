"""`slam-potsa prepare | features | bias`: what a training reads, made and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slam_potsa.data.feature_store import FeatureStore
from slam_potsa.data.manifest import check_manifest
from slam_potsa.errors import InputError
from slam_potsa.files import alone
from slam_potsa.registry import DATA_SOURCES, resolve


def check(kind: str, **options: Any) -> None:
    print(check_manifest(**options).table())


def make(kind: str, output: Path, translate_with: str = "", into: str = "", **options: Any) -> None:
    """`options` are those that the kind's own function takes."""
    if bool(translate_with) != bool(into):
        raise InputError("--translate-with MODEL and --into LANGUAGE belong together")
    kinds = {**DATA_SOURCES, "convert": "slam_potsa.data.convert:convert"}
    build = resolve(kinds, kind, "data source")
    file = kind == "convert"  # its output is one; the others' a folder
    # Temporaries are named by the stem.
    with alone(output.parent if file else output, "is preparing", prefix=output.stem * file):
        made = build(output=output, **options)
        print(made)
        if translate_with:
            from slam_potsa.engine.translate_text import fill_targets

            for path in [output] if file else map(made.path, made.manifests):
                print(fill_targets(path, translate_with, into))


def features(manifests: Sequence[Path], output: Path, **encoder: Any) -> None:
    from slam_potsa.engine.encode import store_features

    store = store_features(_load(**encoder), manifests, output)
    print(f"{output}: {len(store.keys)} utterances")


def bias(
    manifests: Sequence[Path],
    output: Path,
    features: Path | None = None,
    languages: Sequence[str] | None = None,
    attend_padding: bool = False,
    **encoder: Any,
) -> None:
    from slam_potsa.engine.encode import estimate_bias

    heard = _load(**encoder)
    store = FeatureStore.open(features, heard.fingerprint()) if features else None
    options = {"features": store, "languages": languages, "attend_padding": attend_padding}
    found = estimate_bias(manifests, heard, **options)
    found.save(output)
    print(f"{output}: biases of {', '.join(found.languages)}")


def _load(encoder: str, ckpt_path: str | None = None, window: str = "30s") -> Any:
    """On the GPU where there is one."""
    import torch

    from slam_potsa.model.checkpoint import read_checkpoint
    from slam_potsa.model.encoder import load_encoder

    state = read_checkpoint(ckpt_path) if ckpt_path else None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_encoder(encoder, window, state).to(device)
