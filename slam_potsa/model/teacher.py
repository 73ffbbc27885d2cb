"""A projector that a training is compared with: `alignment.teacher`.

On the speech of the same batch it gives the activations `teacher.compensated`,
`teacher.qformer.{layer}` and `teacher.projector`. It is not trained, and no part of `model.pt`. A
finished one stays as it is: a training that is continued reads it from its own checkpoint again. An
average follows the projector that trains, after every optimizer step by

    theta' <- d theta' + (1 - d) theta

Source of the average: Tarvainen and Valpola, "Mean teachers are better role models" (2017).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from slam_potsa.model.taps import TapRecorder
from slam_potsa.objective.terms import Tap


class Teacher(nn.Module):
    """Runs a projector in evaluation mode and without gradients, whatever the trainer says.

    Args:
        decay: d of the average; None: it stays as it is.

    `rows` [R], where it is set, are those that the next forwards compute; the activations of the
    others are zero. Up to rounding, a row's own do not depend on it.
    """

    def __init__(self, projector: nn.Module, decay: float | None = None):
        super().__init__()
        self.encoder_projector = projector.requires_grad_(False)
        self.recorder, self.decay = TapRecorder(self), decay
        self.rows: Tensor | None = None
        self.train()

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)

    @torch.no_grad()
    def follow(self, projector: nn.Module, decay: float | None) -> None:
        """Take (1 - decay) of the weights of `projector`, the same on every rank; None: nothing."""
        theirs = {} if decay is None else dict(projector.named_parameters())
        for name, own in self.encoder_projector.named_parameters():
            if name in theirs and not name.endswith(".as_parameter"):  # carried bytes, no weights
                own.lerp_(theirs[name], 1 - decay)

    @torch.no_grad()
    def taps(
        self, names: Iterable[str], language_ids: Tensor | None, *inputs: Tensor
    ) -> dict[str, Tap]:
        """The activations `names` of encoder output [B, T, E] and mask [B, T]."""
        count, rows = len(inputs[0]), self.rows
        if rows is not None:
            language_ids, *inputs = (_taken(each, rows) for each in (language_ids, *inputs))
        self.encoder_projector.set_languages(language_ids)
        self.recorder.open(names)
        self.encoder_projector(*inputs)
        taps = self.recorder.take()
        if rows is None:
            return taps
        return {name: Tap(*(_spread(each, rows, count) for each in taps[name])) for name in taps}


def _taken(each: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if each is None else each.index_select(0, rows.to(each.device))


def _spread(each: Tensor | None, rows: Tensor, count: int) -> Tensor | None:
    """[R, ...] at their places among `count` rows."""
    if each is None:
        return None
    return each.new_zeros(count, *each.shape[1:]).index_copy_(0, rows.to(each.device), each)
