r"""Do cross-entropy and alignment pull a layer's tokens in opposite directions?

For layer k with tokens Z^k, g = ∂L_CE/∂Z^k and h = λ ∂(alignment term at k)/∂Z^k:

    ‖g‖,  ‖h‖,  cos(g, h) = ⟨g, h⟩ / (‖g‖ ‖h‖)

A negative cosine is conflict: a step that aligns raises the cross-entropy to first order. POTSA
suspects it in the upper layers (4.2, on Table 3) and does not measure it. h is the direct effect of
aligning layer k alone, whichever layers the schedule aligns now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from slam_potsa.objective.terms import AlignmentObjective, Tap

SCALE = 1024.0  # keeps fp16 gradients of single tokens from underflowing; divided out again


def scheduled_terms(objective: AlignmentObjective) -> AlignmentObjective:
    """The terms whose layers the schedule chooses; conflict is asked for each layer of these."""
    return AlignmentObjective([t for t in objective.terms if t.is_layered and t.layers is None])


def gradient_conflict(
    objective: AlignmentObjective,
    cross_entropy: Tensor,
    taps: Mapping[str, Tap],
    pairs: Tensor,
    layers: Sequence[int],
    sentence_ids: Tensor | None = None,
) -> dict[str, Tensor]:
    """Norms and cosine for every layer, as tensors that wait for nothing.

    Args:
        cross_entropy: [] with its graph, which is kept.
        taps: at least `scheduled_terms(objective).tap_names(layers)`, with their graphs.
        pairs, layers, sentence_ids: as for the objective; layers are those to look at.

    Returns:
        "conflict/{k}/ce", "conflict/{k}/alignment", "conflict/{k}/cosine" for each k, each [];
        nothing without pairs. The cosine is 0 where one of the gradients is.
    """
    scheduled = scheduled_terms(objective)
    if not scheduled.terms or not pairs.shape[0]:
        return {}
    names = {k: sorted(scheduled.tap_names([k])) for k in layers}
    # A teacher's have no gradient.
    tokens = {
        k: [taps[n].tensor for n in of if taps[n].tensor.requires_grad] for k, of in names.items()
    }
    flat = [tensor for k in layers for tensor in tokens[k]]
    task = iter(_gradients(SCALE * cross_entropy, flat))
    report: dict[str, Tensor] = {}
    for k in layers:
        zero = torch.zeros_like(cross_entropy)
        aligned = scheduled(zero, taps, pairs, [k], sentence_ids).total
        g = torch.cat([next(task).flatten() for _ in tokens[k]]) / SCALE
        h = torch.cat([part.flatten() for part in _gradients(SCALE * aligned, tokens[k])]) / SCALE
        norms = g.norm(), h.norm()
        cosine = g @ h / (norms[0] * norms[1]).clamp_min(torch.finfo(g.dtype).tiny)
        values = {"ce": norms[0], "alignment": norms[1], "cosine": cosine}
        report |= {f"conflict/{k}/{name}": value for name, value in values.items()}
    return report


def _gradients(loss: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Gradients in float32, zero where the loss does not depend on a tensor."""
    if not loss.requires_grad:
        return [torch.zeros_like(tensor, dtype=torch.float32) for tensor in tensors]
    found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(tensor, dtype=torch.float32) if grad is None else grad.float()
        for tensor, grad in zip(tensors, found, strict=True)
    ]
