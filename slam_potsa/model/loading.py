"""The pre-trained parts, and checkpoints in SLAM-LLM's format."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slam_potsa.config import ModelConfig, TrainConfig
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_path
from slam_potsa.model.carried_state import CarriedState

logger = logging.getLogger(__name__)
BIAS_STATE = "encoder_projector.language_bias.carried"


def llm_dtype(name: str) -> torch.dtype:
    """The precision of the frozen parts; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return getattr(torch, name)


def load_tokenizer(path: str) -> Any:
    """The LLM's tokenizer, padding with eos where it has no padding token (as SLAM-LLM)."""
    from transformers import AutoTokenizer

    tokenizer = _from_pretrained(AutoTokenizer, path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def load_llm(train: TrainConfig, model: ModelConfig) -> nn.Module:
    """The causal LM with freezing, LoRA and 8-bit weights as configured.

    Raises InputError where there is no such model, or nothing that makes 8-bit weights.
    """
    from transformers import AutoModelForCausalLM

    quieten_bitsandbytes()
    # The dtype is given always: transformers 4 loads float32 by default, transformers 5 whatever
    # the files hold.
    options: dict[str, Any] = {"dtype": loaded_llm_dtype(train, model)}
    if train.quantization:
        options |= _eight_bit()
    return adapt_llm(_from_pretrained(AutoModelForCausalLM, model.llm_path, **options), train)


def loaded_llm_dtype(train: TrainConfig, model: ModelConfig) -> torch.dtype:
    """float32 for an LLM whose own weights train, else `model_config.llm_dtype`.

    In half precision AdamW's small updates would vanish.
    """
    trained = not (train.freeze_llm or train.use_peft)
    return torch.float32 if trained else llm_dtype(model.llm_dtype)


def adapt_llm(llm: nn.Module, train: TrainConfig) -> nn.Module:
    """`llm` frozen where `train` says so, and with LoRA where it does."""
    if train.freeze_llm or train.use_peft:
        llm.requires_grad_(False)
    if train.use_peft:
        quieten_bitsandbytes()
        from peft import LoraConfig, get_peft_model

        settings = {k: v for k, v in vars(train.peft_config).items() if k != "peft_method"}
        llm = get_peft_model(llm, LoraConfig(**settings))
    return llm


def quieten_bitsandbytes() -> None:
    """No word of the 4-bit products that it has none of on this CPU: none are used here.

    Call it before what imports bitsandbytes where that is installed, such as PEFT: it is said at
    the import. Errors are still logged.
    """
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def _eight_bit() -> dict[str, Any]:
    """LLM.int8: the linear layers but the head in one byte a weight (Dettmers et al., 2022)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            "train_config.quantization=true needs bitsandbytes: pip install slam-potsa[quant]"
        )
    from transformers import BitsAndBytesConfig

    # It would say at every product that bfloat16 is quantised by way of float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    # On the device of this process; transformers' own choice would be the first one.
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": device}}


def _from_pretrained(kind: Any, path: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(path, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model_config.llm_path={path!r}: neither a transformers folder here nor a model that "
            f"can be fetched ({str(error).splitlines()[0]})"
        ) from error


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """What `model.pt` holds: trainable parameters by SLAM-LLM's names, carried state included."""
    for module in model.modules():  # the same hooks that SLAM-LLM's state_dict() fires
        if isinstance(module, CarriedState):
            module.state_dict()
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_checkpoint(model: nn.Module, path: str | Path) -> None:
    """Write `model.pt`, whole or not at all."""
    with atomic_path(path) as temporary:
        torch.save(trainable_state(model), temporary)


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The tensors of SLAM-LLM's `model.pt` or DeepSpeed's `pytorch_model.bin`."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.pt"
    if not path.is_file():
        raise InputError(f"ckpt_path={str(path)!r}: no such file; expected SLAM-LLM's model.pt")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"ckpt_path={str(path)!r}: not a file of tensors ({error})") from error
    state = state.get("module", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"ckpt_path={str(path)!r}: expected a dict of tensors by parameter name")
    return dict(state)


def apply_checkpoint(model: nn.Module, state: Mapping[str, Tensor], source: str = "") -> None:
    """Load `state` by name. Raises InputError with all keys that do not fit; logs what is absent.

    Absent may be: the frozen parts, LoRA weights (a projector trained before them), and the carried
    biases and schedule (a checkpoint of plain SLAM-LLM has none).
    """
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    problems = _misfits(model, state)
    if problems:
        raise InputError([f"checkpoint {source}: {problem}" for problem in problems])
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    absent = sorted(trainable - state.keys())
    fatal = [name for name in absent if not name.startswith("llm.") and ".as_" not in name]
    if fatal:
        raise InputError(f"checkpoint {source}: lacks trained parameters: {', '.join(fatal[:8])}")
    if absent:
        logger.warning("checkpoint %s has no %s; they keep their start", source, ", ".join(absent))
    model.load_state_dict(state, strict=False)
    logger.info("checkpoint %s: %d tensors loaded", source, len(state))


def _misfits(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    own = model.state_dict()
    problems = []
    for name, tensor in state.items():
        carried = ".as_parameter" in name or ".as_buffer" in name
        if carried or name.endswith("position_ids"):  # a constant in transformers 4's Q-Former
            continue
        if name not in own:
            hint = ": LoRA weights need train_config.use_peft=true" if "lora_" in name else ""
            problems.append(f"unexpected {name} {list(tensor.shape)}{hint}")
        elif own[name].shape != tensor.shape:
            problems.append(
                f"{name} has shape {list(tensor.shape)}, this model {list(own[name].shape)}: "
                "compare model_config's query_len, qformer_layers, qformer_dim, encoder and LLM"
            )
    return problems


def carried_bias(state: Mapping[str, Tensor] | None) -> bytes | None:
    """The language biases inside a checkpoint, as the bytes of their safetensors file."""
    if state is None:
        return None
    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    found = {k: v for k, v in state.items() if k.startswith(BIAS_STATE)}
    if not found:
        return None
    carried = CarriedState()
    carried.load_state_dict({k.rsplit(".", 1)[1]: v for k, v in found.items()}, strict=False)
    return carried.read()
