"""How many processes decode."""

from __future__ import annotations

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.engine.decode_processes import in_processes


@pytest.mark.parametrize("gpus, asked", [(0, 1), (1, 4)])
def test_one_a_gpu_and_one_needs_no_process_of_its_own(monkeypatch, gpus, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("torch.multiprocessing.spawn", lambda *_, **__: 1 / 0)
    done = []
    in_processes(asked, lambda *given: done.append(given), "here")
    assert done == [(0, 1, "here")]


@pytest.mark.distributed
def test_wrong_input_in_another_process_is_reported_as_here(capfd):
    with pytest.raises(InputError, match="the same command continues"):
        in_processes(2, refusing, "lost.wav")
    assert "error: lost.wav: no such file" in capfd.readouterr().err


def refusing(_rank, _count, path):
    raise InputError(f"{path}: no such file")
