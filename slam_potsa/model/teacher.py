"""A finished projector that a training is compared with: `alignment.teacher`.

On the speech of the same batch it gives the activations `teacher.compensated`,
`teacher.qformer.{layer}` and `teacher.projector`. It is not trained and not saved: a training that
is continued reads it from its own checkpoint again.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from slam_potsa.model.taps import TapRecorder
from slam_potsa.objective.terms import Tap


class Teacher(nn.Module):
    """Runs a projector in evaluation mode and without gradients, whatever the trainer says."""

    def __init__(self, projector: nn.Module):
        super().__init__()
        self.encoder_projector = projector.requires_grad_(False)
        self.recorder = TapRecorder(self)
        self.train()

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)

    @torch.no_grad()
    def taps(
        self, names: Iterable[str], language_ids: Tensor | None, *inputs: Tensor
    ) -> dict[str, Tap]:
        """The activations `names` of encoder output [B, T, E] and mask [B, T]."""
        self.encoder_projector.set_languages(language_ids)
        self.recorder.open(names)
        self.encoder_projector(*inputs)
        return self.recorder.take()
