"""A trained run as a small folder to give away, and such a folder, or its hub name, read again.

    model.safetensors  what was trained, by SLAM-LLM's names: projector, LoRA, the biases it carries
    config.json        all that decoding depends on, the frozen models by name and revision, and the
                       languages that were spoken and written in training
    README.md          the model card (evaluation/card.py)

What is frozen is never in it. The tokenizer is the LLM's, and fixed by its revision.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from slam_potsa.config import AlignmentConfig, LogConfig, PotsaConfig, defaults
from slam_potsa.data.manifest import read_manifest
from slam_potsa.engine.run_directory import DONE, MODEL, STAGE, best_checkpoint, read_config
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.files import atomic_path, atomic_write
from slam_potsa.model.checkpoint import SHARED, State, choose_bias, read_checkpoint
from slam_potsa.model.llm import from_pretrained, split_revision

logger = logging.getLogger(__name__)
CONFIG, CARD = "config.json", "README.md"
FORMAT = "slam_potsa 1"
# Where things lay on the machine that trained, and what only a training reads.
PLACES = ("train_data_path", "val_data_path", "test_data_path", "file")
BASES = {"encoder": "encoder_path_hf", "llm": "llm_path"}


@dataclass(frozen=True)
class Languages:
    """Of a training, by code."""

    spoken: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)  # the answers' of translation


def load_shared(name: str | Path) -> PotsaConfig | None:
    """The configuration of an exported folder, or of its hub name; None where it is a run.

    Raises InputError where it is neither, and where the hub has nothing of that name.
    """
    folder = _fetched(name)
    if folder is None or (content := _content(folder)) is None:
        return None
    config = defaults(PotsaConfig, content["options"])
    return replace(config, ckpt_path=str(folder / SHARED))


def languages(run: str | Path) -> Languages:
    """Of a run's training manifest, or as its export has them. Raises InputError without either."""
    folder = _fetched(run)
    if folder and (content := _content(folder)):
        return Languages(**content["languages"])
    rows = read_manifest(read_config(run).dataset_config.train_data_path)
    written = sorted({row.target_language for row in rows if row.target_language})
    return Languages(sorted({row.language for row in rows}), written)


def export_run(run: str | Path, out: str | Path, named: Mapping[str, str] | None = None) -> Path:
    """Write `out` but for its card. Raises InputError before anything is written.

    Args:
        named: hub names of the frozen models (`BASES`), where the run had them from folders.
    """
    run, problems, content = Path(run), [], Languages()
    config = read_config(run)
    if not (run / MODEL).is_file() or ((run / STAGE).is_file() and not (run / DONE).is_file()):
        raise InputError(
            f"{run}: its training has not ended ({MODEL} is written last): the command that "
            "started it continues it"
        )
    with collecting(problems, "what the model has heard goes with it"):
        content = languages(run)
    state = read_checkpoint(best_checkpoint(run))
    with collecting(problems):
        choose_bias(replace(config.language_bias, path=None), state)
    refuse(problems)
    return write_shared(out, config, state, content, named)


def write_shared(
    out: str | Path,
    config: PotsaConfig,
    state: State,
    known: Languages,
    named: Mapping[str, str] | None = None,
) -> Path:
    """Write weights and configuration to the folder `out`, which holds nothing else yet."""
    out = Path(out)
    if out.exists() and any(file.name not in (SHARED, CONFIG, CARD) for file in out.iterdir()):
        raise InputError(f"{out}: holds other files; choose a folder of its own")
    bases = {key: _pinned(key, getattr(config.model_config, key), (named or {}).get(kind))
             for kind, key in BASES.items()}  # fmt: skip
    model = replace(config.model_config, file="", load_encoder=True, **bases)
    options = asdict(replace(_to_decode(config), model_config=model))
    content = {"format": FORMAT, "languages": asdict(known), "options": options}
    with atomic_path(out / SHARED) as temporary:  # cloned: safetensors refuses shared storage
        save_file({n: t.clone().contiguous() for n, t in state.items()}, temporary)
    atomic_write(out / CONFIG, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return out


def _to_decode(config: PotsaConfig) -> PotsaConfig:
    """Without places, and without what rules a training alone."""
    empty = PotsaConfig()
    data = replace(config.dataset_config, **dict.fromkeys(PLACES, ""), feature_store=None)
    data = replace(data, pairing="none", joining=[], joining_share=0.0)
    train = replace(config.train_config, output_dir=empty.train_config.output_dir)
    return replace(
        config,
        dataset_config=data,
        train_config=train,
        language_bias=replace(config.language_bias, path=None),
        alignment=AlignmentConfig(terms={}),
        log_config=LogConfig(),
        **dict.fromkeys(("ckpt_path", "deepspeed_config", "decode_log")),
    )


def is_local(config: PotsaConfig) -> list[str]:
    """The frozen models that only this machine has: kinds of `BASES`."""
    return [kind for kind, key in BASES.items() if Path(getattr(config.model_config, key)).exists()]


def _pinned(key: str, path: str, named: str | None) -> str:
    """NAME@COMMIT of a frozen model, asking the hub for the commit; a folder as it is."""
    from transformers import AutoConfig

    if not named and Path(path).exists():
        return str(Path(path).resolve())
    name, revision = split_revision(named or path)
    if not revision:
        found = from_pretrained(AutoConfig, name, f"model_config.{key}")
        revision = getattr(found, "_commit_hash", None) or ""
    return f"{name}@{revision}" if revision else name


def _content(folder: Path) -> dict[str, Any] | None:
    """What `config.json` says; None where there is none, or another program's."""
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None


def _fetched(name: str | Path) -> Path | None:
    """The folder of that name, or what the hub has under it; None where it can be no hub's name."""
    if Path(name).exists() or str(name).count("/") != 1 or str(name)[0] in "./~":
        return Path(name) if Path(name).is_dir() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, revision = split_revision(str(name))
    wanted = {"revision": revision or None, "allow_patterns": [CONFIG, SHARED, CARD]}
    try:
        return Path(snapshot_download(repository, **wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{name}: no run directory or exported folder here, and nothing under that name on the "
            f"hub ({str(error).strip().splitlines()[0]})"
        ) from None


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to the hub, into a repository that is private if it is new."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--push {name}: not uploaded ({reason}); log in with `hf auth login`"
        ) from None
