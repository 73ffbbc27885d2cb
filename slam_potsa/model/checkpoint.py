"""Checkpoints in SLAM-LLM's format: read, checked against a model, applied, written.

A checkpoint holds the trainable parameters by name, and inside the projector the language biases
and the state of the layer schedule (see `carried_state`).
"""

from __future__ import annotations

import errno
import logging
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from slam_potsa.config import LanguageBiasConfig, TrainConfig
from slam_potsa.errors import InputError, refuse
from slam_potsa.model.carried_state import CARRIED, CarriedState
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.provenance import refuse_damaged, sealed
from slam_potsa.text import some

logger = logging.getLogger(__name__)
State = Mapping[str, Tensor]  # by parameter name
MODEL, SHARED = "model.pt", "model.safetensors"  # SLAM-LLM's, and that of an exported folder
PROJECTOR, LORA = "encoder_projector.", "lora_"
BIAS = f"{PROJECTOR}language_bias."  # what is carried, and a trained table
BIAS_STATE, TRAINED_TABLE = f"{BIAS}carried", f"{BIAS}trained"
CTC_HEAD = f"{PROJECTOR}ctc_head."  # of a term of alignment


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """What `model.pt` holds, by SLAM-LLM's names: what trains, carried state included.

    And, to the bit, what stages before have trained and this one keeps (`continue_from`).
    """
    for module in model.modules():  # the same hooks that SLAM-LLM's state_dict() fires
        if isinstance(module, (CarriedState, LanguageBias)):
            module.state_dict()
    named = model.named_parameters()
    trained = {name: p.detach().cpu().clone() for name, p in named if p.requires_grad}
    return {**getattr(model, "inherited", {}), **trained}


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write `model.pt` with its seal, whole or not at all; the same weights give the same bytes."""
    write_tensors(path, trainable_state(model))


@contextmanager
def saving(path: str | Path) -> Iterator[None]:
    """torch.save says RuntimeError of a full disk; this, OSError."""
    try:
        yield
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        raise OSError(errno.EIO, "cannot be written: is the disk full?", str(path)) from None


def write_tensors(path: str | Path, state: State) -> None:
    """What `read_checkpoint` reads."""
    with saving(path), sealed(path) as temporary, open(temporary, "wb") as file:
        torch.save(dict(state), file)  # given a path, it would write the path's name too


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of SLAM-LLM's `model.pt`, DeepSpeed's `pytorch_model.bin`, or safetensors.

    Of DeepSpeed's own `mp_rank_00_model_states.pt`, those that its engine trained. Nothing is
    unpickled but tensors and plain values.
    """
    path = weights_file(path)
    where = f"ckpt_path={str(path)!r}"
    if not path.is_file():
        raise InputError(f"{where}: no such file; expected SLAM-LLM's model.pt")
    refuse_damaged(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Mapped where it can be: what a stage only passes on takes no memory.
        mapped = {"mmap": zipfile.is_zipfile(path)}
        content = torch.load(path, map_location="cpu", weights_only=True, **mapped)
    except Exception as error:
        raise InputError(f"{where}: not a file of tensors ({error})") from error
    state = content.get("module", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(f"{where}: expected a dict of tensors by parameter name")
    if groups := content.get("param_shapes") if state is not content else None:
        if not isinstance(groups, list) or not all(isinstance(g, Mapping) for g in groups):
            raise InputError(f"{where}: param_shapes: expected DeepSpeed's list of shapes by name")
        trained = {name for group in groups for name in group}
        state = {name: t for name, t in state.items() if name in trained or ".as_" in name}
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def weights_file(path: str | Path) -> Path:
    """`path`, or of a folder its `model.pt`, or else its `model.safetensors`."""
    found = [Path(path) / name for name in (MODEL, SHARED)] if Path(path).is_dir() else [Path(path)]
    return next(filter(Path.is_file, found), found[0])


def apply_checkpoint(model: nn.Module, state: State, source: Any = "") -> None:
    """Load `state` by name; logs what is absent. Raises InputError as `require_fit` does."""
    absent = require_fit(model, state, source)
    if absent:
        logger.warning("checkpoint %s has no %s; they keep their start", source, some(absent, 4))
    model.load_state_dict(state, strict=False)
    logger.info("checkpoint %s: %d tensors loaded", source, len(state))


def require_fit(model: nn.Module, state: State, source: Any = "") -> list[str]:
    """The trained parameters that are absent. Raises InputError with all keys that do not fit.

    Absent may be: the frozen parts, what begins to train (encoder, LLM, LoRA weights) and the
    carried state (a checkpoint of plain SLAM-LLM has none).
    """
    refuse(f"checkpoint {source}: {problem}" for problem in _misfits(model, state))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    absent = sorted(name for name in trainable - state.keys() if not name.startswith(BIAS))
    needed = [n for n in absent if n.startswith(PROJECTOR) and not n.startswith(CTC_HEAD)]
    if fatal := [name for name in needed if ".as_" not in name]:
        raise InputError(f"checkpoint {source}: lacks trained parameters: {some(fatal, 8)}")
    return absent


def _misfits(model: nn.Module, state: State) -> Iterator[str]:
    own = model.state_dict()
    encodes = getattr(model, "encoder", None) is not None
    for name, tensor in state.items():
        if name.startswith("encoder.") and not encodes:  # whose features are stored
            continue
        carried = CARRIED in name or ".as_buffer" in name
        carried |= name.startswith(CTC_HEAD) and name not in own  # decoding has no use for it
        if carried or name.endswith("position_ids"):  # a constant in transformers 4's Q-Former
            continue
        if name not in own:
            hint = ": LoRA weights need llm.lora in train_parts" if LORA in name else ""
            yield f"unexpected {name} {list(tensor.shape)}{hint}"
        elif own[name].shape != tensor.shape:
            yield (
                f"{name} has shape {list(tensor.shape)}, this model {list(own[name].shape)}: "
                "compare model_config's query_len, qformer_layers, qformer_dim, encoder and LLM"
            )


def require_parts(state: State, train: TrainConfig, source: Any) -> None:
    """Raise InputError, before a model is loaded, where `train` cannot take up what `state` has."""
    has_lora = any(LORA in name for name in state)
    whole = any(re.match(r"llm\.(?!base_model\.).*\.(weight|bias)$", name) for name in state)
    if has_lora > train.use_peft or (whole and train.use_peft):
        has, wanted = ("LoRA weights", "llm.lora") if has_lora else ("an LLM trained whole", "llm")
        parts = f"train_config.train_parts={train.train_parts}"
        raise InputError(f"checkpoint {source} has {has}: put {wanted} into {parts}")


def carried_bias(state: State | None) -> bytes | None:
    """The language biases inside a checkpoint, as the bytes of their safetensors file."""
    names = [name for name in state or () if name.startswith(BIAS_STATE)]
    carried = CarriedState()
    carried.load_state_dict({n.rsplit(".", 1)[1]: state[n] for n in names}, strict=False)
    return carried.read()


def choose_bias(config: LanguageBiasConfig, state: State | None) -> LanguageBias | None:
    """From the file given, else from the checkpoint, else an error with the remedy."""
    if not config.enabled:
        return None
    settings = {name: getattr(config, name) for name in ("center", "unseen_language", "trained")}
    if config.path:
        return LanguageBias.load(config.path, **settings)
    payload = carried_bias(state)
    if payload is not None:
        return LanguageBias.from_bytes(payload, **settings)
    raise InputError(
        "language_bias.enabled=true, but language_bias.path is not set and no checkpoint carries "
        "biases: estimate them with `slam-potsa bias`, or set language_bias.enabled=false"
    )


def continue_from(model: nn.Module, state: State, source: Any, schedule: bool = True) -> None:
    """Weights and schedule of a checkpoint; biases stay as `choose_bias` settled them.

    Args:
        model: with its `controller`.
        schedule: take up the layer schedule too. A checkpoint is SLAM-LLM's only way to resume;
            the native host has another, and starts a new training with a new schedule.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith(BIAS)}
    apply_checkpoint(model, state, source)
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    kept = {n for n in state if not trains.get(n, not n.startswith("encoder.")) and ".as_" not in n}
    model.inherited = {name: state[name] for name in sorted(kept)}
    found, own = model.controller.state_from_carried().get("schedule"), model.controller.schedule
    if schedule and found and own is not None:
        try:
            own.load_state_dict(found)
        except ValueError as error:
            logger.warning("the layer schedule starts anew: %s", error)
        for choice, _layers in own.state_dict()["pending"]:
            own.observe(choice, math.nan)  # their losses belong to the run before
