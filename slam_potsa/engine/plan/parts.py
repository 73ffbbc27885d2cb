"""A stage's model at its true size on torch's meta device: every shape, no memory, no weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from slam_potsa.config import ModelConfig, PotsaConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.plan.memory import (
    HALF,
    LoraSize,
    Precision,
    eight_bit_bytes,
    weight_bytes,
)
from slam_potsa.engine.plan.sizes import EncoderSize, LlmSize, ProjectorSize
from slam_potsa.errors import InputError
from slam_potsa.model.encoder import SpeechEncoder
from slam_potsa.model.factory import build_controller, build_projector
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import adapt_llm, loaded_llm_dtype
from slam_potsa.model.pretrained.known import model_config
from slam_potsa.model.speech_llm import SpeechLLM

PARTS = ("encoder", "projector", "llm")


class Parts(NamedTuple):
    """The model, the sizes of its parts, and what they weigh."""

    model: SpeechLLM
    encoder: EncoderSize  # of the encoder that makes the features, loaded or not
    projector: ProjectorSize
    llm: LlmSize
    lora: LoraSize | None
    precision: Precision
    weights: dict[str, int]  # bytes by part
    trainable: dict[str, int]  # parameters by part
    frozen: dict[str, int]


def build_on_meta(config: PotsaConfig, languages: Sequence[str] = ("en",)) -> Parts:
    """What `model_factory` would build on a GPU, without a weight.

    Args:
        languages: those that biases would be estimated of, where no file has them.

    Raises InputError with everything that does not fit: unknown models, widths, mel bands, layers.
    """
    model, train = config.model_config, config.train_config
    whisper, decoder, problems = _configurations(model)
    problems += _misfits(config, whisper, decoder)
    if problems:
        raise InputError(problems)
    encoder_size, llm_size = EncoderSize.of(whisper), LlmSize.of(decoder, model.llm_path)
    bias = _bias(config, encoder_size.width, languages)
    with torch.device("meta"):
        encoder = _encoder(whisper, config) if model.load_encoder else None
        llm = adapt_llm(_llm(decoder, config), train)
        projector = build_projector(model, encoder_size.width, llm_size.width, bias)
    built = SpeechLLM(encoder, projector, llm, None)
    built.controller = build_controller(built, config.alignment)
    built.controller.detach()
    return _weighed(built, config, encoder_size, llm_size)


def half_precision(config: PotsaConfig) -> torch.dtype:
    """What the frozen parts are held in on a GPU."""
    name = config.model_config.llm_dtype
    return torch.bfloat16 if name == "auto" else getattr(torch, name)


def _weighed(
    built: SpeechLLM, config: PotsaConfig, encoder_size: EncoderSize, llm_size: LlmSize
) -> Parts:
    modules = dict(zip(PARTS, (built.encoder, built.encoder_projector, built.llm), strict=True))
    weights = {name: weight_bytes(module) for name, module in modules.items()}
    if config.train_config.quantization:
        weights["llm"] = eight_bit_bytes(built.llm)
    counts = {True: {}, False: {}}
    for name, module in modules.items():
        parameters = list(module.parameters()) if module is not None else []
        for trainable, into in counts.items():
            into[name] = sum(p.numel() for p in parameters if p.requires_grad is trainable)
    train = config.train_config
    return Parts(
        model=built,
        encoder=encoder_size,
        projector=ProjectorSize.of(config.model_config, encoder_size.width, llm_size.width),
        llm=llm_size,
        lora=LoraSize.of(built.llm, train.peft_config.lora_dropout) if train.use_peft else None,
        precision=_precision(built, config),
        weights=weights,
        trainable=counts[True],
        frozen=counts[False],
    )


def _precision(built: SpeechLLM, config: PotsaConfig) -> Precision:
    """Under DeepSpeed its file names the precision, and everything is cast to it."""
    if deepspeed_halves(config):
        return Precision(HALF, HALF, HALF, autocast=False)
    return Precision(
        encoder=_encoder_dtype(config).itemsize,
        projector=built.encoder_projector.query.element_size(),
        llm=_llm_dtype(config).itemsize,
        autocast=config.native.bf16 or config.train_config.use_fp16,
    )


def deepspeed_halves(config: PotsaConfig) -> bool:
    """Whether DeepSpeed trains in 16 bits, with float32 weights in its optimizer."""
    if not config.train_config.enable_deepspeed:
        return False
    settings = deepspeed.read_settings(config.deepspeed_config)
    return any(deepspeed.enabled(settings, name) for name in ("fp16", "bf16"))


def _configurations(model: ModelConfig) -> tuple[Any, Any, list[str]]:
    found, problems = [], []
    for option, name, kind in (
        ("model_config.encoder_path_hf", model.encoder_path_hf, "whisper"),
        ("model_config.llm_path", model.llm_path, "qwen2"),
    ):
        try:
            found.append(model_config(name, option=option, model_type=kind))
        except InputError as error:
            found.append(None)
            problems += error.problems
    whisper, decoder = found
    if whisper is not None and whisper.model_type != "whisper":
        problems.append(
            f"model_config.encoder_path_hf={model.encoder_path_hf!r}: expected a Whisper, got "
            f"{whisper.model_type!r}"
        )
        whisper = None
    if decoder is not None and decoder.model_type == "whisper":
        problems.append(f"model_config.llm_path={model.llm_path!r}: expected an LLM, got a Whisper")
        decoder = None
    return whisper, decoder, problems


def _misfits(config: PotsaConfig, whisper: Any, decoder: Any) -> Iterator[str]:
    """Of the models that are known (the others are None)."""
    model, data = config.model_config, config.dataset_config
    widths = []
    if whisper is not None:
        widths.append(("encoder_dim", whisper.d_model))
        if data.mel_size != whisper.num_mel_bins:
            yield (
                f"dataset_config.mel_size={data.mel_size}, but {model.encoder_path_hf} reads "
                f"{whisper.num_mel_bins} mel bands; set it to {whisper.num_mel_bins}"
            )
    if decoder is not None:
        widths.append(("llm_dim", decoder.hidden_size))
    for option, width in widths:
        if getattr(model, option) not in (0, width):
            yield (
                f"model_config.{option}={getattr(model, option)}, but the model has {width}; set "
                f"it to {width} or 0"
            )


def _encoder(whisper: Any, config: PotsaConfig) -> SpeechEncoder:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    encoder = SpeechEncoder(WhisperEncoder(whisper), config.model_config.encoder_window)
    # All of it where it trains: loading forgets that Whisper's sinusoidal positions are fixed.
    encoder.requires_grad_(not config.train_config.freeze_encoder)
    return encoder.to(_encoder_dtype(config))


def _llm(decoder: Any, config: PotsaConfig) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(decoder, dtype=_llm_dtype(config))


def _encoder_dtype(config: PotsaConfig) -> torch.dtype:
    return half_precision(config) if config.train_config.freeze_encoder else torch.float32


def _llm_dtype(config: PotsaConfig) -> torch.dtype:
    """`loaded_llm_dtype` on a GPU, whether there is one here or not."""
    if config.model_config.llm_dtype != "auto":
        return loaded_llm_dtype(config.train_config, config.model_config)
    train = config.train_config
    trained = not (train.freeze_llm or train.use_peft)
    return torch.float32 if trained else torch.bfloat16


def _bias(config: PotsaConfig, width: int, languages: Sequence[str]) -> LanguageBias | None:
    """The biases of the file given, or a table of the size that would be estimated."""
    if not config.language_bias.enabled:
        return None
    path = config.language_bias.path
    if path and Path(path).is_file():
        return LanguageBias.load(path)
    return LanguageBias({language: torch.zeros(width) for language in languages})
