"""AI-STA's and SALMONN's projector: a Q-Former that reads window after window of the speech."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from slam_potsa.model.qformer import BiasCompensatedQFormer


class WindowQFormer(BiasCompensatedQFormer):
    """Encoder output [B, T, E] -> tokens of the LLM's width [B, N, W], N = ceil(T / s).

    Each window of s = `frames_per_token` frames is read by the same one query (AI-STA 5.2: s = 17,
    0.34 s), so that a recording of any length keeps its pace. The last window may be shorter.
    """

    def __init__(
        self, encoder_dim: int, llm_dim: int, *, frames_per_token: int = 17,
        qformer_layers: int = 2, qformer_dim: int = 768, qformer_heads: int = 12,
        qformer_dropout: float = 0.1, **bias: Any
    ):  # fmt: skip
        sizes = {"qformer_layers": qformer_layers, "qformer_dim": qformer_dim}
        sizes |= {"qformer_heads": qformer_heads, "qformer_dropout": qformer_dropout}
        super().__init__(encoder_dim, llm_dim, query_len=1, **sizes, **bias)
        self.frames_per_token = frames_per_token

    def forward(self, x: Tensor, atts: Tensor | None = None) -> Tensor:
        """`x` [B, T, E] encoder output, `atts` [B, T] true (or 1) on valid frames -> [B, N, W]."""
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if atts is None else atts.bool()
        short = -x.shape[1] % self.frames_per_token
        frames = F.pad(self.compensate(x, valid).to(self.query.dtype), (0, 0, 0, short))
        windows = frames.unflatten(1, (-1, self.frames_per_token)).flatten(0, 1)  # [B N, s, E]
        tokens = self.qformer(
            query_embeds=self.query.expand(len(windows), -1, -1),
            encoder_hidden_states=windows,
            encoder_attention_mask=F.pad(valid, (0, short)).view(windows.shape[:2]).long(),
        ).last_hidden_state
        return self.norm(self.linear(tokens.view(len(x), -1, tokens.shape[2])))
