import pytest
import torch
from torch import nn

from slam_potsa.model.carried_state import CarriedState, carried_names


def test_reads_what_was_written_unless_it_is_damaged():
    state = CarriedState()
    assert state.read() is None
    state.write(b"layer schedule")
    assert state.read() == b"layer schedule"
    pointers = {t.untyped_storage().data_ptr() for t in (state.as_parameter, state.as_buffer)}
    assert len(pointers) == 2  # safetensors refuses copies that share storage
    state.as_buffer[-1] ^= 1
    assert state.read() is None
    model = nn.Sequential(nn.Linear(1, 1), CarriedState())
    assert carried_names(model) == ["1.as_parameter", "1.as_buffer"]


def saved_by_ddp(state, dtype):
    """The parameter alone, in half precision."""
    return {"as_parameter": state["as_parameter"].to(dtype)}


def saved_by_deepspeed(state, dtype):
    """ZeRO leaves nothing of the parameter."""
    return state | {"as_parameter": torch.zeros_like(state["as_parameter"])}


@pytest.mark.parametrize("saved", [saved_by_ddp, saved_by_deepspeed])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_it_survives_what_each_host_saves(saved, dtype):
    source, target = CarriedState(), CarriedState()
    source.write(bytes(range(256)))
    target.load_state_dict(saved(dict(source.state_dict()), dtype), strict=False)
    assert target.read() == bytes(range(256))
