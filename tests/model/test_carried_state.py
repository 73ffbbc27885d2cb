import pytest
import torch
from torch import nn

from slam_potsa.model.carried_state import CarriedState, carried_names


def test_reads_what_was_written_and_nothing_before():
    state = CarriedState(64)
    assert state.read() is None
    state.write(b"layer schedule")
    assert state.read() == b"layer schedule"
    assert state.as_buffer.shape == state.as_parameter.shape == (64,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_parameter_alone_survives_half_precision(dtype):
    source, target = CarriedState(), CarriedState()
    source.write(bytes(range(256)))
    saved = {"as_parameter": source.as_parameter.detach().to(dtype)}  # what the DDP path saves
    target.load_state_dict(saved, strict=False)
    assert target.read() == bytes(range(256))


def test_buffer_is_used_where_zero_reset_the_parameter():
    source, target = CarriedState(), CarriedState()
    source.write(b"kept")
    saved = dict(source.state_dict())
    saved["as_parameter"] = torch.zeros_like(saved["as_parameter"])  # what DeepSpeed leaves of it
    target.load_state_dict(saved)
    assert target.read() == b"kept"


def test_a_damaged_state_is_not_read():
    state = CarriedState()
    state.write(b"some bytes")
    pointers = {t.untyped_storage().data_ptr() for t in (state.as_parameter, state.as_buffer)}
    assert len(pointers) == 2  # safetensors refuses copies that share storage
    state.as_buffer[-1] ^= 1
    assert state.read() is None


def test_names_for_ddp():
    model = nn.Sequential(nn.Linear(1, 1), CarriedState())
    assert carried_names(model) == ["1.as_parameter", "1.as_buffer"]
