"""How many processes decode."""

from __future__ import annotations

import pytest
import torch

from slam_potsa.engine.decode_processes import in_processes, useful_processes


@pytest.mark.parametrize("gpus, asked, expected", [(2, 4, 2), (4, 2, 2), (1, 1, 1), (0, 4, 1)])
def test_as_many_as_there_are_gpus_and_one_on_a_cpu(monkeypatch, gpus, asked, expected):
    pretend(monkeypatch, gpus)
    assert useful_processes(asked) == expected


def test_more_than_gpus_are_brought_down_and_it_is_said(monkeypatch, caplog):
    pretend(monkeypatch, 1)
    done = []
    in_processes(4, lambda *given: done.append(given), "here")
    assert done == [(0, 1, "here")] and "in 1 processes: one a GPU, not 4" in caplog.text


def test_one_needs_no_process_of_its_own(monkeypatch, caplog):
    monkeypatch.setattr("torch.multiprocessing.spawn", lambda *_, **__: 1 / 0)
    done = []
    in_processes(1, lambda *given: done.append(given), "here")
    assert done == [(0, 1, "here")] and not caplog.records


def pretend(monkeypatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
