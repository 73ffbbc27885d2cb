"""Named activations of one forward pass: {name: Tap(tensor [B, N, D], mask [B, N] or None)}.

    encoder             encoder output                         [B, T, E]
    compensated         after bias compensation                [B, T, E]
    qformer.{l}         output of Q-Former layer l = 1..L      [B, N, D]
    projector           what the LLM receives                  [B, N, W]

Only what is wanted is kept; `AlignmentObjective.tap_names` says what training wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from slam_potsa.objective.terms import Tap


class TapRecorder:
    """Forward hooks on a projector that keep the activations asked for.

    The projector needs `layers` (its blocks); `compensate(x, atts)` is called for "compensated".
    Hooks are the way in, not a changed forward: SLAM-LLM's model calls the projector itself.
    """

    def __init__(self, projector: nn.Module):
        self.taps: dict[str, Tap] = {}
        self._projector = projector
        self._wanted: frozenset[str] = frozenset()
        projector.register_forward_hook(self._on_projector)
        for number, layer in enumerate(projector.layers, start=1):
            layer.register_forward_hook(self._on_layer(f"qformer.{number}"))

    @contextmanager
    def recording(self, wanted: Iterable[str]) -> Iterator[dict[str, Tap]]:
        """Within: the taps of the last forward. After: nothing is kept alive."""
        self.open(wanted)
        try:
            yield self.taps
        finally:
            self.close()

    def open(self, wanted: Iterable[str]) -> None:
        self.taps.clear()
        self._wanted = frozenset(wanted)

    def close(self) -> None:
        self.open(())

    def _on_layer(self, name: str):
        def hook(_module, _inputs, output) -> None:
            if name in self._wanted:
                self.taps[name] = Tap(_first(output), None)

        return hook

    def _on_projector(self, projector, inputs, output) -> None:
        if not self._wanted:
            return
        features, mask = inputs[0], inputs[1] if len(inputs) > 1 else None
        mask = None if mask is None else mask.bool()
        if "encoder" in self._wanted:
            self.taps["encoder"] = Tap(features, mask)
        if "compensated" in self._wanted:
            self.taps["compensated"] = Tap(projector.compensate(features, mask), mask)
        if "projector" in self._wanted:
            self.taps["projector"] = Tap(output, None)


def _first(output: Tensor | tuple) -> Tensor:
    """transformers 4 returns tuples from a block, transformers 5 the tensor."""
    return output if isinstance(output, Tensor) else output[0]
