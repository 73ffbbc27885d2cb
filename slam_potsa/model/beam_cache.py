"""What an LLM keeps of prompts that were read once for all beams of a row."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer

ROOM = 64  # columns of answers that are made at once


class BeamLayer(DynamicLayer):
    """Keys and values of a block [B rows * K beams, heads, columns, width], as transformers' own.

    That copies all of them twice a step: to add a column, and to sort the beams. Here they are
    copied once in ROOM steps, and only answers are sorted: beams change places within a row, where
    all have one prompt.
    """

    def __init__(self, read: DynamicLayer, beams: int):
        super().__init__()
        self.dtype, self.device, self.is_initialized = read.dtype, read.device, True
        self.room = self.keys, self.values = tuple(
            prompts.repeat_interleave(beams, 0) for prompts in (read.keys, read.values)
        )
        self.prompt = read.keys.shape[-2]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        start, new = self.keys.shape[-2], key_states.shape[-2]
        if start + new > self.room[0].shape[-2]:
            more = (0, 0, 0, new + ROOM)
            self.room = F.pad(self.keys, more), F.pad(self.values, more)
        self.keys, self.values = (room[..., : start + new, :] for room in self.room)
        self.keys[..., start:, :], self.values[..., start:, :] = key_states, value_states
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        for columns in (self.keys, self.values):
            answers = columns[..., self.prompt :, :]
            answers.copy_(answers.index_select(0, beam_idx.to(answers.device)))


def of_beams(cache: Cache, beams: int) -> Cache:
    """The cache of prompts, made into that of a search over `beams` answers to each."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = BeamLayer(layer, beams)
        else:  # such as a sliding window
            layer.batch_repeat_interleave(beams)
    return cache
