"""Bytes on a GPU at the peak of a training step, by formula.

Weights, gradients and AdamW's two moments are what the tensors of the model say. Activations are
what autograd keeps for the backward pass, layer by layer as transformers writes them; the tests
hold the formulas to what torch really saves. A frozen matrix keeps none of its inputs, which is why
a frozen LLM keeps its norms, attention and gate, and nothing else.

The shapes' letters are in `sizes.py`.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from slam_potsa.engine.plan.sizes import Batch, EncoderSize, LlmSize, ProjectorSize

FLOAT = 4  # bytes: norms, softmax statistics and gradients are float32
HALF = 2


class Precision(NamedTuple):
    """Bytes of an element of each part's weights, and whether products are cast to 16 bits."""

    encoder: int
    projector: int
    llm: int
    autocast: bool

    def activation(self, weight: int) -> int:
        return HALF if self.autocast else weight


class LoraSize(NamedTuple):
    """All of LoRA's matrices together."""

    parameters: int
    inputs: int  # sum of the adapted matrices' input widths
    ranks: int  # sum of the ranks
    dropout: float

    @classmethod
    def of(cls, llm: nn.Module, dropout: float) -> LoraSize | None:
        """None where the LLM has no LoRA."""
        down = [m for n, m in llm.named_modules() if "lora_A" in n and isinstance(m, nn.Linear)]
        if not down:
            return None
        count = sum(p.numel() for n, p in llm.named_parameters() if "lora_" in n)
        inputs, ranks = sum(m.in_features for m in down), sum(m.out_features for m in down)
        return cls(count, inputs, ranks, dropout)

    def kept(self, item: int) -> int:
        """Bytes a position: inputs, their dropout's mask, and what the low rank leaves."""
        return (self.inputs + self.ranks) * item + (self.inputs if self.dropout > 0 else 0)


def weight_bytes(module: nn.Module | None) -> int:
    """Parameters and buffers, a shared one once."""
    if module is None:
        return 0
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def eight_bit_bytes(llm: nn.Module) -> int:
    """LLM.int8: one byte a weight of the layers' matrices, and a float32 scale an output row."""
    matrices = [
        module.weight
        for name, module in llm.named_modules()
        if isinstance(module, nn.Linear) and "lora_" not in name and "lm_head" not in name
    ]
    before = sum(weight.numel() * weight.element_size() for weight in matrices)
    return weight_bytes(llm) - before + sum(w.numel() + FLOAT * w.shape[0] for w in matrices)


def projector_activations(
    size: ProjectorSize, rows: int, frames: int, *, item: int, autocast: bool
) -> int:
    """What the Q-Former keeps for its backward pass.

    Args:
        item: bytes of an activation; under `autocast` 2, and what stays float32 has 4.
    """
    queries, layers, crossed, norms = size.queries, size.layers, size.crossed, size.norms
    tokens = queries * size.width
    attentions = layers + crossed
    kept = norms * tokens * (FLOAT if autocast else item)  # inputs of LayerNorm
    # Outputs of LayerNorm, which the next products read; autocast makes a copy for each product.
    kept += (3 * layers + crossed + layers + 1 if autocast else norms + 1) * tokens * item
    kept += (2 * attentions + 2 * layers) * tokens * item  # queries, outputs; keys, values
    kept += 2 * crossed * frames * size.width * item  # keys and values of cross-attention
    kept += 2 * layers * queries * size.inner * item  # around the feed-forward's activation
    kept += (2 * crossed if autocast else 1) * frames * size.encoder_width * item
    kept += crossed * queries * frames * item  # the mask as attention adds it
    kept += attentions * size.heads * queries * FLOAT  # normalisers of the softmax
    kept += 2 * (norms + 2) * queries * FLOAT  # means and deviations of LayerNorm
    kept += queries * size.llm_width * FLOAT  # input of the last LayerNorm
    if size.dropout > 0:
        kept += (norms + 1) * tokens  # masks, a byte each
    return rows * kept


def llm_activations(
    size: LlmSize,
    batch: Batch,
    *,
    item: int,
    trained: bool = False,
    autocast: bool = False,
    eight_bit: bool = False,
    lora: LoraSize | None = None,
) -> int:
    """What the LLM keeps for the gradient of its inputs; more where it has gradients of its own.

    Args:
        item: bytes of an activation.
        trained: the LLM's own float32 weights train, and keep their inputs.
        autocast: of a trained LLM or LoRA: their inputs are cast to 16 bits, for each product anew.
        eight_bit: bitsandbytes keeps the inputs of its matrices, although they are frozen.
    """
    width, inner = size.width, size.inner
    layer = 2 * FLOAT * (width + 1)  # input and scale of two RMSNorms
    layer += 4 * size.heads * size.head_width * item  # queries, keys, values, output
    layer += size.heads * FLOAT  # normalisers of the softmax
    layer += batch.positions * item  # the mask as attention adds it
    layer += 3 * inner * item  # gate, activated gate, up
    ends = FLOAT * (width + 1)  # the last norm
    ends += 2 * size.head_width * (FLOAT if trained else item)  # rotary cos and sin
    ends += 8 + 1  # where speech goes: an index and a mask
    if trained:
        layer += 2 * width * FLOAT + inner * item  # normalised; the product before `down`
        layer += (5 if autocast else 2) * width * item  # inputs of queries, keys, values, gate, up
        ends += width * FLOAT
    elif eight_bit:
        layer += (2 * width + inner) * item
    kept = batch.positions * (size.layers * layer + ends)
    if trained:
        kept += (batch.answer + 1) * width * item  # input of the head
    if lora is not None:
        kept += batch.positions * lora.kept(HALF if autocast else FLOAT)
    return batch.rows * kept


def encoder_activations(
    size: EncoderSize, rows: int, frames: int, *, item: int, autocast: bool
) -> int:
    """What a trained encoder keeps; a frozen one keeps nothing."""
    width, inner = size.width, size.inner
    layer = 2 * width * (FLOAT if autocast else item)  # inputs of LayerNorm
    layer += (4 if autocast else 2) * width * item  # its outputs, as the products read them
    layer += 4 * width * item + 2 * inner * item + size.heads * FLOAT + 4 * FLOAT
    layer += frames * item  # the mask as attention adds it
    # Two convolutions with their activations: F = 2 T mel frames, then T.
    ends = 2 * size.mels * item + 2 * (2 * width * item) + width * item
    ends += 2 * width + 2 * size.mels + width * (FLOAT if autocast else item) + 2 * FLOAT
    return rows * frames * (size.layers * layer + ends)


def encoder_workspace(size: EncoderSize, rows: int, frames: int, item: int) -> int:
    """Peak of a forward pass without gradients: a convolution's three tensors, or a layer's."""
    convolution = 3 * 2 * size.width
    layer = 2 * size.inner + 2 * size.width
    return rows * frames * item * max(convolution, layer)


def logit_bytes(size: LlmSize, rows: int, answer: int, item: int) -> int:
    """Logits and their gradient, in the LLM's precision and in float32 for the cross-entropy.

    Kept to the end: logits, and log-probabilities in float32. At the start of the backward pass
    come the gradient in float32, its cast, and the cast at the A + 1 positions of the head.
    """
    return rows * (answer + 1) * size.vocabulary * (3 * item + 2 * FLOAT)


def llm_workspace(size: LlmSize, batch: Batch, item: int, *, eight_bit: bool) -> int:
    """Gradients alive within one layer of the backward pass; a matrix that 8 bits unpack."""
    tokens = batch.rows * batch.positions
    unpacked = size.width * size.inner * item if eight_bit else 0
    return tokens * (3 * size.inner * item + 3 * FLOAT * size.width) + unpacked


def alignment_activations(pairs: int, tokens: int, widths: tuple[int, ...], *, solved: int) -> int:
    """Both sides in float32 and the plan, kept; six matrices of the plan's size come and go.

    Args:
        solved: transport problems a place: pairs, or all combinations (contrastive).
    """
    kept = sum(2 * solved * tokens * width + solved * tokens * tokens for width in widths)
    passing = 6 * solved * tokens * tokens if widths else 0
    return FLOAT * (kept + passing)
