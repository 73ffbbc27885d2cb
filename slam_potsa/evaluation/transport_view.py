"""The transport plan between two recordings of one sentence, and what its tokens listened to.

A Q-Former token has no place in time of its own. Its place is read from cross-attention: the mean
over heads of the last block with cross-attention at or below the aligned layer gives each token a
distribution over encoder frames; its span is the middle half of that mass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from slam_potsa.config import TermConfig
from slam_potsa.data.audio import ENCODER_STRIDE, HOP_LENGTH, SAMPLE_RATE
from slam_potsa.errors import InputError
from slam_potsa.objective.transport import transport

if TYPE_CHECKING:
    from slam_potsa.data.manifest import Utterance
    from slam_potsa.engine.decode import Translator

FRAME_SECONDS = ENCODER_STRIDE * HOP_LENGTH / SAMPLE_RATE


@dataclass(frozen=True)
class Side:
    """One recording: what was said, and the span in seconds [N, 2] that each token attends to."""

    utterance: Utterance
    spans: Tensor


@dataclass(frozen=True)
class TransportView:
    """The plan [N, M] between the tokens of two recordings at a Q-Former layer, and its cost."""

    first: Side
    second: Side
    layer: int
    plan: Tensor
    cost: float  # <Gamma, C> of the two
    diagonal: float  # mass on token i with token i; 1/N for a plan that tells nothing apart


def transport_view(
    translator: Translator,
    manifest: str | Path,
    first_key: str,
    second_key: str,
    *,
    layer: int | None = None,
) -> TransportView:
    """Eq. 3 between two recordings of `manifest`, with the options the model was trained with.

    Args:
        layer: numbered from 1; None: the second, as `single` aligns.

    Raises:
        InputError: a key that is not there, or a layer that the Q-Former does not have.
    """
    dataset = translator.dataset(manifest)
    places = {u.key: index for index, u in enumerate(dataset.items.utterances)}
    layers = translator.model.encoder_projector.num_layers
    layer = min(2, layers) if layer is None else layer
    problems = [f"{manifest}: no key {k!r}" for k in (first_key, second_key) if k not in places]
    if not 1 <= layer <= layers:
        problems.append(f"layer {layer}: expected 1 to {layers}")
    if problems:
        raise InputError(problems)
    indices = [places[first_key], places[second_key]]
    tokens, attention, frames = _forward(translator, dataset, indices, layer)
    solved = transport(tokens[:1], tokens[1:], **_options(translator))
    plan = solved.plan[0].float().cpu()
    sides = [
        Side(dataset.items.utterances[index], spans(attention[row, :, : frames[row]]))
        for row, index in enumerate(indices)
    ]
    diagonal = float(plan.diagonal().sum() / plan.sum())
    return TransportView(*sides, layer, plan, float(solved.cost), diagonal)


def spans(attention: Tensor) -> Tensor:
    """[N, T] attention over encoder frames -> [N, 2] seconds: the middle half of its mass."""
    mass = attention.double().cumsum(1) / attention.double().sum(1, keepdim=True)
    frames = attention.shape[1]
    begin = (mass < 0.25).sum(1).clamp(max=frames - 1)
    end = (mass < 0.75).sum(1).clamp(max=frames - 1) + 1
    return torch.stack([begin, end], 1).double() * FRAME_SECONDS


@torch.inference_mode()
def _forward(
    translator: Translator, dataset: Any, indices: list[int], layer: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Tokens [2, N, D] at `layer`, cross-attention [2, N, T], valid frames of each row."""
    batch = translator.to_device(dataset.collator([dataset[index] for index in indices]))
    model = translator.model
    tap, place = f"qformer.{layer}", _attending_block(model.encoder_projector, layer)
    inputs = ("audio_mel", "audio_mel_post_mask", "encoder_features", "language_ids")
    with model.controller.recorder.recording({tap}) as taps, _kept(model, place) as kept:
        model.project(**{name: batch[name] for name in inputs if name in batch})
        tokens = taps[tap].tensor.float()
    frames = batch["audio_mel_post_mask"].sum(1).long().tolist()
    return tokens, kept[0].float().mean(1).cpu(), frames


def _attending_block(projector: nn.Module, layer: int) -> nn.Module:
    """The attention of the last block up to `layer` that looks at the speech."""
    blocks = [block for block in projector.layers[:layer] if hasattr(block, "crossattention")]
    return blocks[-1].crossattention.attention


@contextmanager
def _kept(model: nn.Module, attention: nn.Module) -> Iterator[list[Tensor]]:
    """Within: the weights [B, heads, N, T] of that attention's last forward.

    SDPA has no weights to give, so the Q-Former attends eagerly meanwhile.
    """
    qformer, kept = model.encoder_projector.qformer, []
    before = qformer.config._attn_implementation
    qformer.set_attn_implementation("eager")
    hook = attention.register_forward_hook(lambda _m, _i, output: kept.append(output[1]))
    try:
        yield kept
    finally:
        hook.remove()
        qformer.set_attn_implementation(before)


def _options(translator: Translator) -> dict[str, Any]:
    names = ("epsilon", "epsilon_scale", "cost_scale", "marginal_penalty", "max_iterations")
    terms = [term for term in translator.config.alignment.terms.values() if term.distance == "ot"]
    term = terms[0] if terms else TermConfig()
    return {name: getattr(term, name) for name in (*names, "tolerance")}
