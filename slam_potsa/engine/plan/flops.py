"""Floating-point operations of one row, by formula: 2 m k n for a product [m, k] x [k, n].

    part        forward                                          backward
    encoder     convolutions, attention over T, feed-forward     none: frozen, and nothing before it
    projector   self-attention over N, cross-attention to T,     inputs and weights, but no gradient
                feed-forward of width 4 D                        to the encoder
    LLM         every position; the head at answers only         inputs only: its weights are frozen
    alignment   cost, Sinkhorn's sweeps                          one product a side

What is elementwise (norms, softmax, activations) is not counted, as in torch's FlopCounterMode,
which the tests hold these formulas to. Attention is counted over all S² pairs, masked or not; fused
kernels compute the scores once more on the way back, which makes 2.5 times the forward.
"""

from __future__ import annotations

from typing import NamedTuple

from slam_potsa.config import TermConfig
from slam_potsa.engine.plan.sizes import MELS_PER_FRAME, EncoderSize, LlmSize, ProjectorSize

KERNEL = 3  # width of Whisper's two convolutions
FUSED_BACKWARD = 2.5  # five products for two; 2.0 where the scores were kept


class Flops(NamedTuple):
    """Of one forward and one backward pass."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        return self.forward + self.backward

    def times(self, factor: float) -> Flops:
        return Flops(self.forward * factor, self.backward * factor)


def encoder_flops(
    size: EncoderSize, frames: int, *, trained: bool, attention_backward: float = FUSED_BACKWARD
) -> Flops:
    """One row of `frames` T encoder frames; no backward where the encoder is frozen."""
    width = size.width
    first = 2 * KERNEL * size.mels * width * MELS_PER_FRAME * frames
    second = 2 * KERNEL * width * width * frames
    linear = size.layers * 2 * (4 * width * width + 2 * width * size.inner) * frames
    attention = size.layers * _attention(frames, frames, width)
    forward = first + second + linear + attention
    if not trained:
        return Flops(forward)
    # The mel frames want no gradient: the first convolution has that of its weights only.
    return Flops(forward, first + 2 * (second + linear) + attention_backward * attention)


def projector_flops(
    size: ProjectorSize,
    frames: int,
    *,
    encoder_trained: bool = False,
    attention_backward: float = FUSED_BACKWARD,
) -> Flops:
    """One row of N queries that look at T frames."""
    queries, width, layers, crossed = size.queries, size.width, size.layers, size.crossed
    own = 2 * queries * width * (layers * 4 * width + crossed * 2 * width)
    own += 2 * queries * width * (layers * 2 * size.inner + size.llm_width)
    keys = crossed * 2 * frames * 2 * size.encoder_width * width
    attention = layers * _attention(queries, queries, width)
    attention += crossed * _attention(queries, frames, width)
    backward = 2 * own + (2 if encoder_trained else 1) * keys + attention_backward * attention
    return Flops(own + keys + attention, backward)


def llm_flops(
    size: LlmSize,
    positions: int,
    answer: int,
    *,
    trained: bool = False,
    lora: int = 0,
    attention_backward: float = FUSED_BACKWARD,
) -> Flops:
    """One row of S positions, with logits at A + 1 of them.

    Args:
        trained: whether the LLM's own weights have gradients. False: inputs only.
        lora: the number of LoRA's parameters, two operations a position each.
    """
    linear = 2 * positions * size.layers * size.layer_weights
    linear += 2 * (answer + 1) * size.head_weights
    added = 2 * positions * lora
    attention = size.layers * _attention(positions, positions, size.heads * size.head_width)
    backward = (2 if trained else 1) * linear + 2 * added + attention_backward * attention
    return Flops(linear + added + attention, backward)


def alignment_flops(
    alignment: TermConfig, pairs: int, tokens: int, widths: tuple[int, ...]
) -> Flops:
    """One term of a batch of `pairs` P with N `tokens` each; `widths`: of each compared place.

    Sinkhorn's sweeps are counted to the cap, as a GPU runs them. The rivals of Table 2 have no
    products. Contrastive compares every row with every other.
    """
    if alignment.distance != "ot" or not pairs or not alignment.weight:
        return Flops()
    compared = pairs * pairs if alignment.variant == "contrastive" and pairs > 1 else pairs
    solved = 3 if alignment.variant == "debiased" else 1
    sweeps = 4 * tokens * tokens * alignment.max_iterations
    forward = backward = 0.0
    for width in widths:
        product = 2 * tokens * tokens * width
        mean = 2 * tokens * width + 2 * tokens * (tokens + 1)  # centring, mean cost
        forward += compared * solved * (product + mean + sweeps)
        backward += compared * solved * 2 * product
    if alignment.variant == "normalised":  # the mismatched rows, without a gradient
        forward *= 2
    return Flops(forward, backward / 2 if alignment.detach == "second" else backward)


def _attention(queries: int, keys: int, width: int) -> int:
    """Scores and weighted sum."""
    return 4 * queries * keys * width
