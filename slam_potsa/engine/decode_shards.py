"""Several processes that decode one manifest: each its share, the first one merges."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from slam_potsa.errors import InputError

logger = logging.getLogger(__name__)
PATIENCE = timedelta(days=1)  # a share may take longer than another, and the first one waits


@dataclass(frozen=True)
class Team:
    """This process among those that decode together."""

    rank: int = 0
    size: int = 1

    def share(self, order: Sequence[Any]) -> list[Any]:
        """Every `size`-th: of a list that is sorted by length, all shares are about equal."""
        return list(order[self.rank :: self.size])

    def merge(self, answers: dict[str, Any]) -> dict[str, Any] | None:
        """All processes' answers by key; None in all processes but the first."""
        if self.size == 1:
            return answers
        gathered: list[Any] | None = [None] * self.size if self.rank == 0 else None
        dist.gather_object(answers, gathered, dst=0)
        if gathered is None:
            return None
        return {key: answer for part in gathered for key, answer in part.items()}


def team() -> Team:
    """That of `in_processes` or torchrun; a process that was started alone is a team of one."""
    if not dist.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return Team()
        _join(init_method="env://")
    return Team(dist.get_rank(), dist.get_world_size())


def device() -> torch.device:
    """CUDA where it is there, the processes of one machine on a GPU each; otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    return torch.device("cuda", local % torch.cuda.device_count())


def useful_processes(at_most: int) -> int:
    """As many as there are GPUs; on a CPU one, which has all cores."""
    return min(at_most, torch.cuda.device_count()) if torch.cuda.is_available() else 1


def in_processes(count: int, job: Callable[..., Any], *args: Any) -> None:
    """Run `job(*args)` in `count` new processes that are a team, in this one where that is one.

    Never more than there are GPUs, where there are any: two on one would hold the model twice.
    Raises InputError with the problems of the process that failed for wrong input.
    """
    from torch import multiprocessing

    if torch.cuda.is_available() and count > useful_processes(count):
        logger.warning(
            "decoding in %d processes: one a GPU, not %d", useful_processes(count), count
        )
        count = useful_processes(count)
    if count == 1:
        job(*args)
        return
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    wrong_input = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        multiprocessing.spawn(_process, (count, store.port, wrong_input, job, args), nprocs=count)
    except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException):
        if wrong_input.empty():
            raise
        raise InputError(wrong_input.get()) from None


def _process(rank: int, count: int, port: int, wrong_input: Any, job: Callable, args: tuple):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    _join(store=store, rank=rank, world_size=count)
    try:
        job(*args)
    except InputError as error:
        wrong_input.put(error.problems[:100])  # what a pipe holds: nobody reads it yet
        raise SystemExit(2) from None


def _join(**how: Any) -> None:
    # gloo on GPUs too: what is exchanged is text, once.
    dist.init_process_group("gloo", timeout=PATIENCE, **how)
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
