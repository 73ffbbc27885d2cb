"""The projectors, over bias-compensated encoder output: POTSA's, AI-STA's and PART's.

Shapes: B rows, T encoder frames, E encoder width, N tokens, D projector width, W LLM width.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slam_potsa.errors import InputError
from slam_potsa.model.language_bias import LanguageBias


class BiasCompensated(nn.Module):
    """What projectors share: the languages of a batch, and eq. 2.

    Call `set_languages(ids)` before `forward`: SLAM-LLM calls a projector with features and mask
    only, `x` [B, T, E] and `atts` [B, T] true (or 1) on valid frames -> [B, N, W].

    Args:
        language_bias: the module that subtracts b_l, or None (Table 1 (a)).
    """

    layers: nn.ModuleList  # the blocks, to hook; `layers[0]` is the paper's layer 1

    def __init__(self, encoder_dim: int, language_bias: LanguageBias | None = None):
        super().__init__()
        if language_bias is not None and language_bias.width != encoder_dim:
            raise InputError(
                f"language biases have width {language_bias.width}, the encoder {encoder_dim}: "
                "they belong to another encoder; estimate them again with `slam-potsa bias`"
            )
        self.language_bias = language_bias
        self.language_ids: Tensor | None = None

    def set_languages(self, language_ids: Tensor | None) -> None:
        """Languages [B] of the next `forward` (`data.languages.language_id`)."""
        self.language_ids = language_ids

    def compensate(self, x: Tensor, atts: Tensor | None = None) -> Tensor:
        """H~ of eq. 2; frames outside `atts` are zero, so that no padding value can leak."""
        if self.language_bias is None:
            return x if atts is None else torch.where(atts.bool()[..., None], x, 0.0)
        if self.language_ids is None:
            raise InputError(
                "bias compensation needs every row's language, but the batch had no language_ids: "
                "use slam_potsa's dataset (in SLAM-LLM's own recipes drop_in.dataset_factory), add "
                "them in your collator (data.languages.language_id), or set "
                "language_bias.enabled=false"
            )
        return self.language_bias(x, atts, self.language_ids)


class BiasCompensatedQFormer(BiasCompensated):
    """POTSA's: encoder output [B, T, E] -> N tokens of the LLM's width [B, N, W].

        H~ = H - b_l          (eq. 1-2, where `language_bias` is given)
        Z  = QFormer(query, H~)      L blocks; cross-attention to H~ in every second one
        out = LayerNorm(Z W + c)

    Layer l's tokens Z^l [B, N, D] are the output of `layers[l - 1]`, to be hooked. The parameters
    are named as in SLAM-LLM's `q-former` projector (query, qformer, linear, norm), so that
    checkpoints fit by name both ways.

    Args:
        encoder_dim, llm_dim: E and W. query_len, qformer_layers: N and L, of POTSA 4.1.
        qformer_dim, qformer_heads, qformer_dropout: D and its heads, with BLIP-2's values, which
            SLAM-LLM uses too; the feed-forward width is 4 D.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        *,
        query_len: int = 80,
        qformer_layers: int = 8,
        qformer_dim: int = 768,
        qformer_heads: int = 12,
        qformer_dropout: float = 0.1,
        language_bias: LanguageBias | None = None,
    ):
        super().__init__(encoder_dim, language_bias)
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        self.query = nn.Parameter(torch.randn(1, query_len, qformer_dim))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                encoder_hidden_size=encoder_dim,
                num_hidden_layers=qformer_layers,
                hidden_size=qformer_dim,
                num_attention_heads=qformer_heads,
                intermediate_size=4 * qformer_dim,
                hidden_dropout_prob=qformer_dropout,
                attention_probs_dropout_prob=qformer_dropout,
            )
        )
        self.linear = nn.Linear(qformer_dim, llm_dim)
        self.norm = nn.LayerNorm(llm_dim, eps=1e-5)

    @property
    def layers(self) -> nn.ModuleList:
        return self.qformer.encoder.layer

    def forward(self, x: Tensor, atts: Tensor | None = None) -> Tensor:
        tokens = self._read(self.compensate(x, atts), atts)
        return self.norm(self.linear(tokens))

    def _read(self, frames: Tensor, atts: Tensor | None) -> Tensor:
        """What the queries read of each row of frames: [B, N, D]."""
        return self.qformer(
            query_embeds=self.query.expand(len(frames), -1, -1),
            encoder_hidden_states=frames.to(self.query.dtype),
            encoder_attention_mask=None if atts is None else atts.long(),
        ).last_hidden_state


class WindowQFormer(BiasCompensatedQFormer):
    """AI-STA's and SALMONN's: a Q-Former that reads window after window of the speech.

    Each window of s = `frames_per_token` frames is read by the same one query (AI-STA 5.2: s = 17,
    0.34 s), so that a recording of any length keeps its pace: N = ceil(T / s). The last window may
    be shorter.
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
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if atts is None else atts.bool()
        short = -x.shape[1] % self.frames_per_token
        frames = F.pad(self.compensate(x, valid), (0, 0, 0, short))
        windows = frames.unflatten(1, (-1, self.frames_per_token)).flatten(0, 1)  # [B N, s, E]
        tokens = self._read(windows, F.pad(valid, (0, short)).view(windows.shape[:2]))
        return self.norm(self.linear(tokens.view(len(x), -1, tokens.shape[2])))


class TransformerCnn(BiasCompensated):
    """PART's adapter: transformer layers over the encoder's output, then a CNN that shortens it.

    "The Adapter consists of two transformer layers and one CNN layer" (PART 3.2), in this order.
    Widths and stride it does not give: pre-norm layers of width D = `qformer_dim`, after a linear
    map where D is not E; a convolution with kernel and stride s = `frames_per_token` from D to W,
    so N = ceil(T / s).
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
        valid = x.new_ones(x.shape[:2], dtype=torch.bool) if atts is None else atts.bool()
        hidden = self.widen(self.compensate(x, valid).to(self.cnn.weight.dtype))
        # A row without speech sees its zeros: a softmax over nothing would be NaN.
        padding = ~valid & valid.any(1, keepdim=True)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        hidden = torch.where(valid[..., None], hidden, 0.0)
        short = -hidden.shape[1] % self.cnn.stride[0]
        return self.cnn(F.pad(hidden, (0, 0, 0, short)).transpose(1, 2)).transpose(1, 2)
