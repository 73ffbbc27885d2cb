"""A trained run as a small folder to give away, and such a folder, or its hub name, read again.

    model.safetensors  what was trained, by SLAM-LLM's names: projector, LoRA, the biases it carries
    config.json        all that decoding depends on, the frozen models by name and revision, the
                       languages that were spoken and written in training, the weights' SHA-256
    README.md          the model card (evaluation/card.py)

What is frozen is never in it. The tokenizer is the LLM's, and fixed by its revision.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from slam_potsa.config import AlignmentConfig, LogConfig, PotsaConfig, defaults
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine.run_directory import DONE, MODEL, STAGE, best_checkpoint, read_config
from slam_potsa.errors import InputError, placed
from slam_potsa.files import atomic_write, remove_temporaries, write_json
from slam_potsa.model.checkpoint import CTC_HEAD, SHARED, State, choose_bias, read_checkpoint
from slam_potsa.model.llm import from_pretrained, split_revision
from slam_potsa.provenance import content_hash, fingerprint

logger = logging.getLogger(__name__)
CONFIG, CARD = "config.json", "README.md"
FORMAT, MODEL_TYPE = "slam_potsa 1", "slam_potsa"  # the second is transformers': engine/auto.py
PLACES = ("train_data_path", "val_data_path", "test_data_path", "file")  # of dataset_config
BASES = {"encoder": "encoder_path_hf", "llm": "llm_path"}


def load_shared(name: str | Path) -> PotsaConfig | None:
    """The configuration of an exported folder, or of its hub name; None where it is a run."""
    folder, content = _shared(name)
    if not content:
        return None
    weights = folder / SHARED
    if not weights.is_file() or content_hash(weights) != content["sha256"]:
        raise InputError(f"{weights}: not the file of {CONFIG}: copy or download both again")
    with placed(folder / CONFIG):
        return replace(defaults(PotsaConfig, content["options"]), ckpt_path=str(weights))


def languages(run: str | Path) -> dict[str, list[str]]:
    """{"spoken": codes, "written": codes} of a training: its manifest's, or as its export says."""
    if content := _shared(run)[1]:
        return content["languages"]
    rows = read_manifest(read_config(run).dataset_config.train_data_path, needs=())
    written = sorted({row.target_language for row in rows if row.target_language})
    return {"spoken": sorted({row.language for row in rows if row.audio}), "written": written}


def export_run(run: str | Path, out: str | Path, named: Mapping[str, str] | None = None) -> Path:
    """Write `out` but for its card; frozen models (`BASES`) may be `named` by their hub names."""
    run, config = Path(run), read_config(run)
    if not (run / MODEL).is_file() or ((run / STAGE).is_file() and not (run / DONE).is_file()):
        raise InputError(f"{run}: its training has not ended: run its command again")
    state = read_checkpoint(best_checkpoint(run))
    state = {name: t for name, t in state.items() if not name.startswith(CTC_HEAD)}  # of training
    choose_bias(replace(config.language_bias, path=None), state)  # they are in it
    bases = {BASES[kind]: name for kind, name in (named or {}).items() if name}
    config = replace(config, model_config=replace(config.model_config, **bases))
    return write_shared(Path(out), config, state, languages(run))


def write_shared(out: Path, config: PotsaConfig, state: State, known: dict[str, list[str]]) -> Path:
    """Weights and configuration into the folder `out`, which holds nothing else."""
    for name in (SHARED, CONFIG, CARD):
        remove_temporaries(out, Path(name).stem)
    if out.exists() and any(file.name not in (SHARED, CONFIG, CARD) for file in out.iterdir()):
        raise InputError(f"{out}: holds other files; choose a folder of its own")
    content = {"model_type": MODEL_TYPE, "format": FORMAT, "languages": known}
    content["options"] = asdict(_to_decode(config))
    # Cloned: safetensors refuses shared storage. Its save_file has its own error for a full disk.
    atomic_write(out / SHARED, save({n: t.clone().contiguous() for n, t in state.items()}))
    content["sha256"] = content_hash(out / SHARED)
    content["checksum"] = fingerprint(**content)
    write_json(out / CONFIG, content)
    return out


def _to_decode(config: PotsaConfig) -> PotsaConfig:
    """Without places of the machine that trained, and without what rules a training alone."""
    bases = {key: _pinned(key, getattr(config.model_config, key)) for key in BASES.values()}
    data = replace(config.dataset_config, **dict.fromkeys(PLACES, ""), feature_store=None)
    train = replace(config.train_config, output_dir=PotsaConfig().train_config.output_dir)
    return replace(
        config,
        train_config=train,
        model_config=replace(config.model_config, file="", load_encoder=True, **bases),
        dataset_config=replace(data, pairing="none", joining=[], joining_share=0.0),
        language_bias=replace(config.language_bias, path=None),
        alignment=AlignmentConfig(terms={}),
        log_config=LogConfig(),
        **dict.fromkeys(("ckpt_path", "deepspeed_config", "decode_log")),
    )


def _pinned(key: str, path: str) -> str:
    """NAME@COMMIT of a frozen model, asking the hub for the commit; a folder as it is."""
    from transformers import AutoConfig

    if Path(path).exists() or split_revision(path)[1]:
        return str(Path(path).resolve()) if Path(path).exists() else path
    found = from_pretrained(AutoConfig, path, f"model_config.{key}")
    return f"{path}@{found._commit_hash}" if getattr(found, "_commit_hash", None) else path


def _shared(name: str | Path) -> tuple[Path, dict[str, Any]]:
    """An exported folder, or the hub's of that name, and its `config.json`; {} where it is none."""
    folder = Path(name)
    if not folder.exists() and str(name).count("/") == 1 and str(name)[0] not in "./~":
        from huggingface_hub import snapshot_download

        repository, revision = split_revision(str(name))
        options = {"revision": revision or None, "allow_patterns": [CONFIG, SHARED, CARD]}
        try:
            folder = Path(snapshot_download(repository, **options))
        except (OSError, ValueError) as error:  # all of the hub's are
            why = f"no run or exported folder here or on the hub ({str(error).splitlines()[0]})"
            raise InputError(f"{name}: {why}; check the name; private: `hf auth login`") from None
    return folder, _content(folder / CONFIG)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if content.get("format") != FORMAT:
            return {}
        if content.pop("checksum", None) not in (None, fingerprint(**content)):
            logger.warning("%s: not as it was written: edited, or damaged", file)
        content["sha256"], dict(content["options"])
        for kind in ("spoken", "written"):
            list(content["languages"][kind])
        return content
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{file}: not what `slam-potsa export` writes ({what})") from None
