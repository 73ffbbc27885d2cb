"""The projector: a Q-Former over bias-compensated encoder output.

Shapes: B rows, T encoder frames, E encoder width, N query tokens, D Q-Former width, W LLM width.
The parameters are named as in SLAM-LLM's `q-former` projector (query, qformer, linear, norm), so
that checkpoints fit by name both ways.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slam_potsa.errors import InputError
from slam_potsa.model.language_bias import LanguageBias


class BiasCompensated(nn.Module):
    """What projectors share: the languages of a batch, and eq. 2."""

    layers: nn.ModuleList  # the blocks, to hook; `layers[0]` is the paper's layer 1

    def __init__(
        self, encoder_dim: int, language_bias: LanguageBias | None = None,
        language_optional: bool = False,
    ):  # fmt: skip
        super().__init__()
        if language_bias is not None and language_bias.width != encoder_dim:
            raise InputError(
                f"language biases have width {language_bias.width}, the encoder {encoder_dim}: "
                "they belong to another encoder; estimate them again with `slam-potsa bias`"
            )
        self.language_bias, self.language_optional = language_bias, language_optional
        self.language_ids: Tensor | None = None

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def set_languages(self, language_ids: Tensor | None) -> None:
        """Languages [B] of the next `forward` (`data.languages.language_id`)."""
        self.language_ids = language_ids

    def compensate(self, x: Tensor, atts: Tensor | None = None) -> Tensor:
        """H~ of eq. 2; frames outside `atts` are zero, so that no padding value can leak."""
        if self.language_bias is None or (self.language_ids is None and self.language_optional):
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
    """Encoder output [B, T, E] -> N tokens of the LLM's width [B, N, W].

        H~ = H - b_l          (eq. 1-2, where `language_bias` is given)
        Z  = QFormer(query, H~)      L blocks; cross-attention to H~ in every second one
        out = LayerNorm(Z W + c)

    Call `set_languages(ids)` before `forward`: SLAM-LLM calls a projector with features and mask
    only. Layer l's tokens Z^l [B, N, D] are the output of `layers[l - 1]`, to be hooked.

    Args:
        encoder_dim, llm_dim: E and W. query_len, qformer_layers: N and L, of POTSA 4.1.
        qformer_dim, qformer_heads, qformer_dropout: D and its heads, with BLIP-2's values, which
            SLAM-LLM uses too; the feed-forward width is 4 D.
        language_bias: the module that subtracts b_l, or None (Table 1 (a)).
        language_optional: without language ids in the batch, subtract nothing instead of raising.
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
        language_optional: bool = False,
    ):
        super().__init__(encoder_dim, language_bias, language_optional)
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
        """`x` [B, T, E] encoder output, `atts` [B, T] true (or 1) on valid frames -> [B, N, W]."""
        compensated = self.compensate(x, atts).to(self.query.dtype)
        tokens = self.qformer(
            query_embeds=self.query.expand(x.shape[0], -1, -1),
            encoder_hidden_states=compensated,
            encoder_attention_mask=None if atts is None else atts.long(),
        ).last_hidden_state
        return self.norm(self.linear(tokens))
