"""The LLM and its tokenizer: precision, freezing, LoRA, 8-bit weights; where models are found.

`known.json` has, by hub name, the keys of a public model's config.json that decide its shapes: what
can be planned without asking a hub.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slam_potsa.config import ModelConfig, TrainConfig
from slam_potsa.errors import InputError


def llm_dtype(name: str) -> torch.dtype:
    """The precision of the frozen parts; "auto" is bfloat16 on CUDA and float32 elsewhere."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return getattr(torch, name)


def load_tokenizer(path: str) -> Any:
    """The LLM's tokenizer, padding with eos where it has no padding token (as SLAM-LLM)."""
    from transformers import AutoTokenizer

    tokenizer = from_pretrained(AutoTokenizer, path, "model_config.llm_path")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return tokenizer


def llm_layers(path: str) -> int:
    """How many blocks the LLM has. Raises InputError where there is none at `path`."""
    from transformers import AutoConfig

    config = from_pretrained(AutoConfig, path, "model_config.llm_path")
    return config.get_text_config().num_hidden_layers


def load_llm(train: TrainConfig, model: ModelConfig) -> nn.Module:
    """The causal LM with freezing, LoRA and 8-bit weights as configured.

    Raises InputError where there is no such model, or nothing that makes 8-bit weights.
    """
    from transformers import AutoModelForCausalLM

    # Always with a dtype: transformers 4 loads float32 by default, 5 whatever the files hold. Of
    # weights that train float32: in half precision AdamW's small updates would vanish.
    options = {"dtype": llm_dtype(model.llm_dtype) if train.freeze_llm else torch.float32}
    options |= _eight_bit() if train.quantization else {}
    llm = from_pretrained(AutoModelForCausalLM, model.llm_path, "model_config.llm_path", **options)
    return adapt_llm(llm, train)


def adapt_llm(llm: nn.Module, train: TrainConfig) -> nn.Module:
    """`llm` frozen where `train` says so, and with LoRA where it does."""
    head = llm.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)
    if train.freeze_llm:
        llm.requires_grad_(False)
    if not train.use_peft:
        return llm
    from peft import LoraConfig, get_peft_model

    return get_peft_model(llm, LoraConfig(task_type="CAUSAL_LM", **vars(train.peft_config)))


def _contiguous(_head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The last columns as one matrix: of a slice torch makes a product, with a W, per row."""
    return (inputs[0].contiguous(), *inputs[1:])


def unwrapped(llm: nn.Module) -> nn.Module:
    """The transformers model inside peft's wrapper, or `llm` itself."""
    return llm.get_base_model() if hasattr(llm, "get_base_model") else llm


def in_slots(text: Tensor, speech: Tensor, slots: Tensor) -> Tensor:
    """`text` [B, S, W] with token i of `speech` [B, N, W] in slot i of a row of `slots` [B, S]."""
    # A gather, since a loop over rows would wait for the device.
    slot = slots.long().cumsum(1) - 1
    filled = slots.bool() & (slot < speech.shape[1])
    index = slot.clamp(0, speech.shape[1] - 1)[..., None].expand(-1, -1, speech.shape[2])
    return torch.where(filled[..., None], speech.to(text.dtype).gather(1, index), text)


def _eight_bit() -> dict[str, Any]:
    """LLM.int8: the linear layers but the head in one byte a weight (Dettmers et al., 2022)."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("train_config.quantization needs bitsandbytes: install slam-potsa[quant]")
    from transformers import BitsAndBytesConfig

    # On the device of this process; transformers' own choice would be the first one.
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    config = BitsAndBytesConfig(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": device}}


def from_pretrained(kind: Any, path: str, option: str, **options: Any) -> Any:
    """`kind.from_pretrained(path)`. Raises InputError, naming `option`, where there is nothing.

    Args:
        path: a folder here, or a hub's name, or NAME@REVISION, a commit, tag or branch of it.
    """
    name, revision = split_revision(path)
    try:
        options |= {"revision": revision} if revision else {}
        return kind.from_pretrained(name, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        where = f"{option}={path!r}: neither a transformers folder here nor a model to be fetched"
        raise InputError(f"{where} ({str(error).splitlines()[0]})") from error


def split_revision(path: str) -> tuple[str, str]:
    """`"Qwen/Qwen2.5-7B@d149729"` -> (name, "d149729"); without one, and of a folder, ""."""
    name, _, revision = path.partition("@")
    return (path, "") if Path(path).exists() else (name, revision)


def model_config(name: str, option: str = "name", kind: str = "") -> Any:
    """The transformers configuration of a folder here, or of a hub name that is known.

    Args:
        option: the configuration key that `name` is the value of, for the message.
        kind: the model type that is wanted, such as "whisper"; "": any.

    Raises InputError for anything else, with what is known; no hub is ever asked.

    >>> model_config("openai/whisper-large-v3").d_model
    1280
    """
    from transformers import AutoConfig

    if Path(name).is_dir():
        return from_pretrained(AutoConfig, name, option, local_files_only=True)
    if name in known():
        return AutoConfig.for_model(**known()[name])
    names = [other for other, sizes in known().items() if sizes["model_type"].startswith(kind)]
    raise InputError(
        f"{option}={name!r}: no folder here, and not one of the models whose sizes are shipped: "
        f"{', '.join(names)}; for any other give a local folder with its config.json (no weights "
        "are needed)"
    )


@cache
def known() -> dict[str, dict[str, Any]]:
    """Sizes by hub name."""
    return json.loads(Path(__file__).with_name("known.json").read_text())
