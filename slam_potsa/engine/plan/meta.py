"""A stage's model at its true size on torch's meta device: every shape, no memory, no weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slam_potsa.config import PotsaConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.plan.count import PARTS
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.encoder import SpeechEncoder, adapt_encoder
from slam_potsa.model.factory import (
    adapt_projector,
    build_controller,
    build_projector,
    check_widths,
)
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import adapt_llm, model_config
from slam_potsa.model.speech_llm import SpeechLLM
from slam_potsa.model.taps import Teacher


class MetaModel(NamedTuple):
    """What would train, and the encoder of its features, loaded or not."""

    model: SpeechLLM
    encoder: SpeechEncoder
    autocast: bool  # whether products are in 16 bits whatever the weights are

    def total(self, of: Callable[[Tensor], int]) -> dict[str, int]:
        """By part, the sum over parameters and buffers, a shared one once."""
        parts = {name: getattr(self.model, attribute) for attribute, name in PARTS.items()}
        return {
            name: sum(map(of, [*part.parameters(), *part.buffers()])) if part is not None else 0
            for name, part in parts.items()
        }


def build_on_meta(config: PotsaConfig, languages: Iterable[str] = ("en",)) -> MetaModel:
    """What `model_factory` would build on a GPU, without a weight.

    Args:
        languages: those that biases would be estimated of.

    Raises InputError with everything that does not fit: unknown models, widths, mel bands, layers.
    """
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    model, train = config.model_config, config.train_config
    whisper, decoder = _sizes(config)
    table = {language: torch.zeros(whisper.d_model) for language in languages}
    trained = config.language_bias.trained
    bias = LanguageBias(table, trained=trained) if config.language_bias.enabled else None
    half = torch.bfloat16 if model.llm_dtype == "auto" else getattr(torch, model.llm_dtype)
    with torch.device("meta"):
        encoder = SpeechEncoder(WhisperEncoder(whisper), model.encoder_window)
        encoder = adapt_encoder(encoder, train.encoder_layers, half)
        llm = _llm(decoder, config, half if train.freeze_llm else torch.float32)
        widths = whisper.d_model, decoder.hidden_size
        projector = build_projector(model, *widths, language_bias=bias)
        adapt_projector(projector, train)
        teacher = Teacher(build_projector(model, *widths)) if config.alignment.teacher else None
    built = SpeechLLM(encoder if model.load_encoder else None, projector, llm, None)
    built.teacher = teacher
    # A diagnosis asks what the values are, and is no part of most steps.
    built.controller = build_controller(built, replace(config.alignment, diagnose_interval=0))
    built.controller.detach()
    autocast = config.native.bf16 or train.use_fp16
    if train.enable_deepspeed:
        settings = deepspeed.read_settings(config.deepspeed_config)
        if any(deepspeed.enabled(settings, name) for name in ("fp16", "bf16")):
            built, autocast = built.to(torch.bfloat16), False
    return MetaModel(built.train(), encoder, autocast)


def _sizes(config: PotsaConfig) -> tuple[Any, Any]:
    """transformers' configurations of encoder and LLM."""
    model, bands, problems = config.model_config, config.dataset_config.mel_size, []
    with collecting(problems):
        whisper = model_config(model.encoder_path_hf, "model_config.encoder_path_hf", "whisper")
        if whisper.model_type != "whisper":
            raise InputError(f"model_config.encoder_path_hf={model.encoder_path_hf!r}: no Whisper")
        check_widths(model, encoder_dim=whisper.d_model)
        if bands != whisper.num_mel_bins:
            problems.append(
                f"dataset_config.mel_size={bands}, but {model.encoder_path_hf} reads "
                f"{whisper.num_mel_bins} mel bands: set it to {whisper.num_mel_bins}"
            )
    with collecting(problems):
        decoder = model_config(model.llm_path, "model_config.llm_path", "qwen2")
        check_widths(model, llm_dim=decoder.hidden_size)
    refuse(problems)
    return whisper, decoder


def _llm(decoder: Any, config: PotsaConfig, dtype: torch.dtype) -> nn.Module:
    from transformers import AutoModelForCausalLM

    llm = AutoModelForCausalLM.from_config(decoder, dtype=dtype)
    if config.train_config.quantization:
        head = llm.get_output_embeddings()
        for owner in list(llm.modules()):
            for name, linear in owner.named_children():
                if isinstance(linear, nn.Linear) and linear is not head:
                    setattr(owner, name, _EightBit(linear))
    return adapt_llm(llm, config.train_config)


class _EightBit(nn.Linear):
    """LLM.int8 as bitsandbytes has it: a byte a weight, a float32 scale an output row."""

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False)
        weight = torch.empty_like(linear.weight, dtype=torch.int8)
        self.weight, self.bias = nn.Parameter(weight, requires_grad=False), linear.bias
        self.register_buffer("scale", torch.empty(linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        product = _EightBitProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias


class _EightBitProduct(torch.autograd.Function):
    """Keeps its input although no weight trains."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        _x, weight = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None
