"""PART's adapter: transformer layers over the encoder's output, then a CNN that shortens it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slam_potsa.model.qformer import BiasCompensated


class TransformerCnn(BiasCompensated):
    """Encoder output [B, T, E] -> tokens of the LLM's width [B, N, W], N = ceil(T / s).

    "The Adapter consists of two transformer layers and one CNN layer" (PART 3.2), in this order.
    Widths and stride it does not give: pre-norm layers of width D = `qformer_dim`, after a linear
    map where D is not E; a convolution with kernel and stride s = `frames_per_token` from D to W.
    """

    def __init__(
        self, encoder_dim: int, llm_dim: int, *, frames_per_token: int = 8, qformer_layers: int = 2,
        qformer_dim: int = 1280, qformer_heads: int = 20, qformer_dropout: float = 0.1, **bias: Any
    ):  # fmt: skip
        super().__init__(encoder_dim, **bias)
        width, same = qformer_dim, encoder_dim == qformer_dim
        self.widen = nn.Identity() if same else nn.Linear(encoder_dim, width)
        sizes = width, qformer_heads, 4 * width, qformer_dropout, "gelu"
        kind = partial(nn.TransformerEncoderLayer, *sizes, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList(kind() for _ in range(qformer_layers))
        self.cnn = nn.Conv1d(width, llm_dim, frames_per_token, frames_per_token)
        self.frames_per_token = frames_per_token

    def forward(self, x: Tensor, atts: Tensor | None = None) -> Tensor:
        """`x` [B, T, E] encoder output, `atts` [B, T] true (or 1) on valid frames -> [B, N, W]."""
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if atts is None else atts.bool()
        hidden = self.widen(self.compensate(x, valid).to(self.cnn.weight.dtype))
        # A row without speech sees its zeros: a softmax over nothing would be NaN.
        padding = ~valid & valid.any(1, keepdim=True)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        hidden = torch.where(valid[..., None], hidden, 0.0)
        short = -hidden.shape[1] % self.cnn.stride[0]
        return self.cnn(F.pad(hidden, (0, 0, 0, short)).transpose(1, 2)).transpose(1, 2)
