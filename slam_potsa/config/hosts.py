"""Decoding and the embedded host: `decode` and `native`."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import SLAM, option


@dataclass
class DecodeConfig:
    """Beam search."""

    num_beams: int = option(4, "beam width", low=1, source=SLAM)
    max_new_tokens: int = option(200, "tokens an answer at most", low=1, source=SLAM)
    length_penalty: float = option(1.0, "exponent on the length in beam scores", source=SLAM)
    repetition_penalty: float = option(1.0, "1: none", low=0.01, source=SLAM)
    no_repeat_ngram_size: int = option(0, "forbid repeated n-grams of this size; 0: off", low=0)
    num_return_sequences: int = option(1, "the n best answers, with scores; <= num_beams", low=1)


@dataclass
class NativeConfig:
    """The embedded host (Hugging Face Trainer); SLAM-LLM never reads these."""

    resume: str = option("auto", "'auto': from the last complete checkpoint; 'never'; or a folder")
    max_steps: int = option(0, "stop after this many optimizer steps; 0: num_epochs decides", low=0)
    save_interval: int = option(
        500, "optimizer steps between resumable checkpoints; 0: at the end only", low=0
    )
    keep_checkpoints: int = option(2, "resumable checkpoints kept", low=1)
    max_grad_norm: float = option(0.0, "gradient clipping; 0: none, as SLAM-LLM", low=0)
    bf16: bool = option(False, "bfloat16 autocast")
