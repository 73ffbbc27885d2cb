"""What decides shapes, operations and bytes: the sizes of the three parts and of a batch.

Shapes, here and in the whole package: B rows (a pair is two), F mel frames (10 ms), T encoder
frames (20 ms), M mel bands, E encoder width, N query tokens, D projector width, L its layers, of
which C look at the encoder, W LLM width, S positions of the LLM, A answer positions, V vocabulary,
P pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from slam_potsa.config import ModelConfig
from slam_potsa.errors import InputError

FRAMES_PER_SECOND = 50  # encoder frames of 20 ms
MELS_PER_FRAME = 2  # mel frames of 10 ms an encoder frame
MIB, GIB = 2**20, 2**30


class EncoderSize(NamedTuple):
    """Whisper's encoder."""

    layers: int
    width: int  # E
    heads: int
    inner: int  # width of the feed-forward layers
    mels: int  # M
    positions: int  # encoder frames at most: 30 s

    @classmethod
    def of(cls, config: Any) -> EncoderSize:
        """From a transformers `WhisperConfig`."""
        return cls(
            config.encoder_layers,
            config.d_model,
            config.encoder_attention_heads,
            config.encoder_ffn_dim,
            config.num_mel_bins,
            config.max_source_positions,
        )


class ProjectorSize(NamedTuple):
    """The Q-Former; its feed-forward layers are 4 D wide."""

    layers: int  # L
    width: int  # D
    heads: int
    queries: int  # N
    encoder_width: int  # E
    llm_width: int  # W
    dropout: float

    @property
    def crossed(self) -> int:
        """C: cross-attention stands in the first, third, ... layer (BLIP-2)."""
        return (self.layers + 1) // 2

    @property
    def inner(self) -> int:
        return 4 * self.width

    @property
    def norms(self) -> int:
        """LayerNorms inside the layers: two each, and one after each cross-attention."""
        return 2 * self.layers + self.crossed

    @classmethod
    def of(cls, model: ModelConfig, encoder_width: int, llm_width: int) -> ProjectorSize:
        return cls(
            model.qformer_layers,
            model.qformer_dim,
            model.qformer_heads,
            model.query_len,
            encoder_width,
            llm_width,
            model.qformer_dropout,
        )


class LlmSize(NamedTuple):
    """A decoder with RMSNorm, rotary positions, grouped keys and a gated feed-forward (Qwen2)."""

    layers: int
    width: int  # W
    heads: int
    key_heads: int
    head_width: int
    inner: int
    vocabulary: int  # V
    positions: int  # at most

    @property
    def layer_weights(self) -> int:
        """Weights of a layer's matrices: queries, keys, values, output; gate, up, down."""
        attention = 2 * self.width * (self.heads + self.key_heads) * self.head_width
        return attention + 3 * self.width * self.inner

    @property
    def head_weights(self) -> int:
        return self.width * self.vocabulary

    @classmethod
    def of(cls, config: Any, name: str) -> LlmSize:
        """From a transformers configuration. Raises InputError where it is of another kind."""
        needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
        missing = [key for key in needed if not isinstance(getattr(config, key, None), int)]
        if missing or not getattr(config, "vocab_size", None):
            raise InputError(
                f"model_config.llm_path={name!r}: a plan counts decoders as Qwen2 and Llama are; "
                f"this {config.model_type!r} has no {', '.join(missing or ['vocab_size'])}"
            )
        heads = config.num_attention_heads
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            heads,
            getattr(config, "num_key_value_heads", None) or heads,
            getattr(config, "head_dim", None) or config.hidden_size // heads,
            config.intermediate_size,
            config.vocab_size,
            getattr(config, "max_position_embeddings", 0) or 0,
        )


class Batch(NamedTuple):
    """A micro-step of one GPU, padded to its longest row."""

    rows: int  # B
    pairs: int  # P
    frames: int  # T
    positions: int  # S
    answer: int  # A
