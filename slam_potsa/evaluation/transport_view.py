"""The transport plan between two recordings of one sentence, and what its tokens listened to.

A Q-Former token has no place in time of its own. Its place is read from cross-attention: the mean
over heads of the last block with cross-attention at or below the aligned layer gives each token a
distribution over encoder frames; its span is the middle half of that mass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from slam_potsa.config import TermConfig
from slam_potsa.data.audio import ENCODER_STRIDE, HOP_LENGTH, SAMPLE_RATE
from slam_potsa.data.manifest import Utterance
from slam_potsa.evaluation.activations import project, speech_dataset
from slam_potsa.model.metrics import METRICS, read_metrics
from slam_potsa.objective.transport import TransportOptions, transport

if TYPE_CHECKING:
    from slam_potsa.engine.decode import Translator

FRAME_SECONDS = ENCODER_STRIDE * HOP_LENGTH / SAMPLE_RATE
OPTIONS = [option.name for option in fields(TransportOptions) if option.name != "debias"]


@dataclass(frozen=True)
class TransportView:
    """The plan [N, M] between the tokens of two recordings at a Q-Former layer; plain numbers."""

    languages: Sequence[str]
    said: Sequence[str]  # the transcripts, or the keys
    layer: int
    plan: Sequence[Sequence[float]]
    spans: Sequence[Sequence[Sequence[float]]]  # of both, the seconds that each token attends to
    cost: float  # ⟨Γ, C⟩
    diagonal: float  # mass on token i with token i; 1/N for a plan that tells nothing apart


def transport_view(
    translator: Translator, first: Utterance, second: Utterance, layer: int
) -> TransportView:
    """Eq. 3 between two recordings, with the options the model was trained with.

    `layer` is numbered from 1.
    """
    rows = (first, second)
    tokens, attention, frames = _forward(translator, rows, layer)
    terms = translator.config.alignment.terms.values()
    term = next((term for term in terms if term.distance == "ot"), TermConfig())
    solved = transport(tokens[:1], tokens[1:], **{name: getattr(term, name) for name in OPTIONS})
    plan = solved.plan[0].float().cpu()
    return TransportView(
        languages=[row.language for row in rows],
        said=[row.transcript or row.key for row in rows],
        layer=layer,
        plan=[[float(f"{value:.4g}") for value in row] for row in plan.tolist()],
        spans=[spans(attention[n, :, : frames[n]]).round(decimals=2).tolist() for n in (0, 1)],
        cost=float(solved.cost),
        diagonal=float(plan.diagonal().sum() / plan.sum()),
    )


def choose_pairs(
    rows: Sequence[Utterance], heard: Iterable[str]
) -> list[tuple[Utterance, Utterance]]:
    """Up to three sentences in two languages: the most heard pair, the middle one, the least.

    Of each pair of languages the first sentence that no other pair has: chosen by their order in
    the manifests, never by how a plan looks.
    """
    heard, first = set(heard), {}
    for row in rows:
        first.setdefault((row.language, row.sentence_id), row)
    pairs = list(combinations(dict.fromkeys(row.language for row in rows), 2))
    pairs.sort(key=lambda pair: len({*pair} - heard))
    found: dict[str, tuple[Utterance, Utterance]] = {}
    for a, b in dict.fromkeys((pairs[0], pairs[len(pairs) // 2], pairs[-1])):
        shared = (name for language, name in first if language == a and (b, name) in first)
        sentence = next((name for name in shared if name not in found), None)
        if sentence is not None:
            found[sentence] = first[a, sentence], first[b, sentence]
    return list(found.values())


def aligned_layer(runs: Iterable[Path], layers: int) -> int:
    """The layer that was aligned most often in these trainings; 2 where none was, as `single`."""
    logs = [run / METRICS for run in runs if (run / METRICS).is_file()]
    lines = (line.get("layers") or () for log in logs for line in read_metrics(log))
    chosen = Counter(layer for line in lines for layer in line if layer <= layers)
    return chosen.most_common(1)[0][0] if chosen else min(2, layers)


def spans(attention: Tensor) -> Tensor:
    """[N, T] attention over encoder frames -> [N, 2] seconds: the middle half of its mass."""
    mass = attention.double().cumsum(1) / attention.double().sum(1, keepdim=True)
    ends = [(mass < share).sum(1).clamp(max=mass.shape[1] - 1) for share in (0.25, 0.75)]
    return torch.stack([ends[0], ends[1] + 1], 1).double() * FRAME_SECONDS


@torch.inference_mode()
def _forward(
    translator: Translator, rows: Sequence[Utterance], layer: int
) -> tuple[Tensor, Tensor, list[int]]:
    """Tokens [2, N, D] at `layer`, cross-attention [2, N, T], valid frames of each row."""
    dataset, model, tap = speech_dataset(translator, rows), translator.model, f"qformer.{layer}"
    blocks = model.encoder_projector.layers[:layer]
    attending = [block.crossattention for block in blocks if hasattr(block, "crossattention")][-1]
    with (
        model.controller.recorder.recording({tap}) as taps,
        _weights(model, attending.attention) as weights,
    ):
        batch = project(translator, dataset.collator([dataset[row] for row in range(len(rows))]))
        tokens = taps[tap].tensor.float()
    frames = batch["audio_mel_post_mask"].sum(1).long().tolist()
    return tokens, weights[0].float().mean(1).cpu(), frames


@contextmanager
def _weights(model: nn.Module, attention: nn.Module) -> Iterator[list[Tensor]]:
    """Within: the weights [B, heads, N, T] of that attention's last forward.

    SDPA has no weights to give, so the Q-Former attends eagerly meanwhile.
    """
    qformer, weights = model.encoder_projector.qformer, []
    before = qformer.config._attn_implementation
    qformer.set_attn_implementation("eager")
    hook = attention.register_forward_hook(lambda _m, _i, output: weights.append(output[1]))
    try:
        yield weights
    finally:
        hook.remove()
        qformer.set_attn_implementation(before)
