"""Bytes that travel inside every checkpoint SLAM-LLM writes.

Its DDP path saves trainable parameters and nothing else; its DeepSpeed path saves buffers and, of
the parameters, resets or partitions those that never had a gradient. So the same bytes live twice:
as a parameter of floats 0..255 (exact in float16 and bfloat16 too, whatever the trainer casts the
model to) that no optimizer moves because it is never in the graph, and as a buffer of uint8. Which
of the two a checkpoint really carries is told by a header with a checksum.
"""

from __future__ import annotations

import struct
import zlib

import torch
from torch import Tensor, nn

CARRIED = ".as_parameter"  # how the names of such parameters end
_MAGIC = b"POTSA1\0\0"
_HEADER = struct.Struct("<8sQI")  # magic, payload length in bytes, CRC-32 of the payload


class CarriedState(nn.Module):
    """A byte string that is saved and loaded with the module that holds this one.

    Args:
        capacity: bytes reserved for header and payload. The shape must not change once a trainer
            has wrapped the model, so a state that grows (the layer schedule's) reserves room.
    """

    def __init__(self, capacity: int = 0):
        super().__init__()
        capacity = max(capacity, _HEADER.size)
        self.as_parameter = nn.Parameter(torch.zeros(capacity))
        self.register_buffer("as_buffer", torch.zeros(capacity, dtype=torch.uint8))

    def write(self, payload: bytes) -> None:
        """Store `payload`; may enlarge the state, only safe before a trainer wraps the model."""
        packed = _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload
        if len(packed) > self.as_buffer.numel():
            self.as_buffer = self.as_buffer.new_zeros(len(packed))
            self.as_parameter.data = self.as_parameter.data.new_zeros(len(packed))
        capacity = self.as_buffer.numel()
        stored = torch.frombuffer(bytearray(packed.ljust(capacity, b"\0")), dtype=torch.uint8)
        with torch.no_grad():
            self.as_buffer.copy_(stored)
            if self.as_parameter.numel() == capacity:  # ZeRO-3 leaves an empty partition here
                self.as_parameter.copy_(stored)

    def read(self) -> bytes | None:
        """The payload, or None where nothing was ever written."""
        return _unpack(self.as_buffer)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, *rest):
        """Take whichever copy the checkpoint really carries, whatever its length."""
        copies = [state_dict.pop(prefix + name, None) for name in ("as_buffer", "as_parameter")]
        payload = next((p for p in map(_unpack, copies) if p is not None), None)
        if payload is not None:
            self.write(payload)
        elif all(copy is None for copy in copies):
            missing.append(prefix + "as_parameter")


def _unpack(stored: Tensor | None) -> bytes | None:
    if stored is None or stored.numel() < _HEADER.size:
        return None
    raw = bytes(stored.detach().float().round().clamp(0, 255).to(torch.uint8).cpu().numpy())
    magic, length, checksum = _HEADER.unpack_from(raw)
    payload = raw[_HEADER.size : _HEADER.size + length]
    valid = magic == _MAGIC and len(payload) == length and zlib.crc32(payload) == checksum
    return payload if valid else None


def carried_names(model: nn.Module) -> list[str]:
    """Names of all carried parameters and buffers, which DDP must neither reduce nor broadcast."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return [name for name, _ in named if name.endswith((CARRIED, ".as_buffer"))]
