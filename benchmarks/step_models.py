"""What `step.py` trains: the paper's configuration, with random weights, on noise."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from torch import nn

from slam_potsa import stand_ins
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config
from slam_potsa.data.audio import SAMPLE_RATE, encoder_frames
from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.data.feature_store import add_features
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.model.encoder import SpeechEncoder
from slam_potsa.model.factory import build_controller, build_projector
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.llm import adapt_llm, known, llm_dtype
from slam_potsa.model.speech_llm import SpeechLLM

LANGUAGES = ("en", "ja", "es", "ko", "ru")  # POTSA 4.1
LETTERS_PER_TOKEN = 4
PAPER = {"whisper": "openai/whisper-large-v3", "llm": "Qwen/Qwen2.5-7B"}
ANSWER = 31  # tokens of a translation, without its end
SECONDS = (7.0, 22.0)  # of a recording, evenly spread: FLEURS' mean, and 1.5 times as long
OURS, THEIRS = ("cross-entropy", "transport"), "SLAM-LLM"
TINY = {
    "whisper": {"d_model": 256, "encoder_layers": 2, "encoder_ffn_dim": 1024, "num_mel_bins": 80},
    "llm": {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4},
    "projector": {"qformer_dim": 256, "qformer_heads": 4},
}


class Size(NamedTuple):
    """Sizes beside the paper's, by transformers' and our names, and the pairs of a step."""

    whisper: dict[str, int]
    llm: dict[str, int]
    projector: dict[str, int]
    pairs: int
    micro: tuple[int, ...]
    seconds: tuple[float, float] = SECONDS
    options: tuple[str, ...] = ()  # others, by their dotted names


SIZES = {
    "tiny": Size(
        {**TINY["whisper"], "encoder_attention_heads": 4},
        {**TINY["llm"], "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 16384},
        TINY["projector"],
        pairs=2,
        micro=(1, 2),
    ),
    "paper": Size({}, {}, {}, pairs=8, micro=(1, 4, 8)),
}


class Variant(NamedTuple):
    """One side of the comparison."""

    loss: str  # one of OURS, or THEIRS
    source: str  # "mel" or "stored"
    autocast: bool = False  # native.bf16

    @property
    def name(self) -> str:
        return f"{self.loss}, {self.source}{', bf16 autocast' * self.autocast}"


class LetterTokenizer:
    """So many letters a token: no tokenizer has to be there."""

    eos_token_id = pad_token_id = bos_token_id = 0

    def __init__(self, vocabulary: int):
        self.vocabulary = vocabulary

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = [text[i : i + LETTERS_PER_TOKEN] for i in range(0, len(text), LETTERS_PER_TOKEN)]
        return [1 + zlib.crc32(piece.encode()) % (self.vocabulary - 1) for piece in pieces]

    def batch_decode(self, rows: Sequence[Sequence[int]], **_: Any) -> list[str]:
        return [" ".join(str(int(token)) for token in row if token) for row in rows]


def configuration(
    folder: Path, size: Size, loss: str, source: str, micro: int, args: argparse.Namespace
) -> PotsaConfig:
    """The paper's, at this size; its files are written where they are not there yet."""
    from transformers import AutoConfig

    for part, name in PAPER.items():
        if not (folder / part).is_dir():
            sizes = known()[name] | getattr(size, part)
            AutoConfig.for_model(**sizes).save_pretrained(folder / part)
    bands = size.whisper.get("num_mel_bins", 128)
    options = {f"model_config.{name}": value for name, value in size.projector.items()}
    options |= {
        "ckpt_path": "null",
        "dataset_config.mel_size": bands,
        "dataset_config.train_data_path": folder / "manifest.jsonl",
        "dataset_config.feature_store": folder / "store" if source == "stored" else "null",
        "model_config.encoder_path_hf": folder / "whisper",
        "model_config.llm_path": folder / "llm",
        "model_config.llm_dtype": "bfloat16" if args.device == "cuda" else "float32",
        "train_config.batch_size_training": micro,
        "train_config.gradient_accumulation_steps": size.pairs // micro,
        "train_config.train_parts": "[projector,llm.lora]" if args.lora else "[projector]",
        "alignment.diagnose_interval": 0,
    }
    overrides = ["experiment=table1_ours", *(f"{key}={value}" for key, value in options.items())]
    overrides += size.options if loss == "transport" else ["alignment=none"]
    return compose_config(overrides, checked=False)


def write_data(folder: Path, size: Size) -> None:
    """Recordings of noise, every sentence in two languages, and features of their lengths."""
    rng, width = np.random.default_rng(0), size.whisper.get("d_model", 1280)
    utterances, features = [], {}
    lengths = rng.permutation(np.linspace(*size.seconds, 2 * size.pairs))
    for number, seconds in enumerate(lengths):
        sentence, key = number // 2, f"r{number}"
        audio = rng.standard_normal(int(seconds * SAMPLE_RATE), dtype=np.float32)
        soundfile.write(folder / f"{key}.wav", 0.1 * audio, SAMPLE_RATE)
        features[key] = rng.standard_normal((encoder_frames(len(audio)), width), dtype=np.float32)
        text = "".join(rng.choice(list("etaoin"), ANSWER * LETTERS_PER_TOKEN))
        utterances.append(
            Utterance(
                key=key,
                audio=f"{key}.wav",
                language=LANGUAGES[number % len(LANGUAGES)],
                sentence_id=str(sentence),
                transcript=text,
                target=text,
                target_language="zh",
                duration=len(audio) / SAMPLE_RATE,
            )
        )
    write_manifest(folder / "manifest.jsonl", utterances)
    add_features(folder / "store", "random", width, features.items())


def load(config: PotsaConfig, device: str) -> list[dict[str, Any]]:
    """A step's batches on the device, one a micro-step."""
    sizes = json.loads((Path(config.model_config.llm_path) / "config.json").read_text())
    tokenizer = LetterTokenizer(sizes["vocab_size"])
    data = get_speech_dataset(config.dataset_config, tokenizer, "train")
    micro = config.train_config.batch_size_training
    batches = []
    for start in range(0, len(data), micro):
        batch = data.collator([data[i] for i in range(start, start + micro)])
        on_device = {k: v.to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        batches.append(on_device)
    return batches


def build_models(configs: dict[str, PotsaConfig], device: str) -> dict[str, nn.Module]:
    """One model a loss, ours over the same modules; random weights, made on the device."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    config = configs["transport"]
    model, dtype = config.model_config, llm_dtype(config.model_config.llm_dtype)
    whisper, decoder = map(AutoConfig.from_pretrained, (model.encoder_path_hf, model.llm_path))
    with torch.device(device):
        encoder = SpeechEncoder(WhisperEncoder(whisper)).requires_grad_(False).to(dtype)
        llm = AutoModelForCausalLM.from_config(decoder, dtype=dtype)
        llm = adapt_llm(llm, config.train_config)
    tokenizer = LetterTokenizer(decoder.vocab_size)
    bias = LanguageBias({code: torch.randn(encoder.width) for code in LANGUAGES})
    width = decoder.hidden_size
    projector = build_projector(model, encoder.width, width, language_bias=bias)
    models: dict[str, nn.Module] = {}
    if source := os.environ.get("SLAM_LLM_SRC"):
        models[THEIRS] = _slam_model(source, encoder, llm, projector, tokenizer)
    for loss, own in configs.items():
        models[loss] = SpeechLLM(encoder, projector, llm, tokenizer)
        models[loss].controller = build_controller(
            models[loss], own.alignment, accumulation=own.train_config.gradient_accumulation_steps
        )
    return {loss: built.to(device).train() for loss, built in models.items()}


def _slam_model(source: str, *parts: Any) -> nn.Module:
    """SLAM-LLM's own, unmodified, over parts that are there."""
    from omegaconf import OmegaConf

    stand_ins.install()
    sys.path.insert(0, source)
    from slam_llm.models.slam_model import slam_model

    encoder, llm, projector, tokenizer = parts
    train = OmegaConf.create({"freeze_encoder": True, "enable_deepspeed": False})
    model = OmegaConf.create({"encoder_name": "whisper", "encoder_projector": "q-former"})
    return slam_model(encoder, llm, projector, tokenizer, train, model)
