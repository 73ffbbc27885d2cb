"""How a decoding is shared between processes, and written down batch by batch.

`<prefix>_partial.R.jsonl`, of process R, has in its first line all that the answers depend on, in
each other line one utterance's, and in every line its checksum:

    {"made_from": {"decode.num_beams": 4, "manifest": "9f86d0…"}, "crc32": 3608231774}
    {"key": "fr-hello", "texts": ["Hello.", "Hi."], "scores": [-0.21, -0.87], "crc32": 118}

So an interrupted decoding continues, in any number of processes.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from slam_potsa.data.jsonl import Log, read_log
from slam_potsa.errors import InputError
from slam_potsa.provenance import differences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A model's raw texts for one utterance, best first, with their scores where n were asked."""

    key: str
    texts: Sequence[str]
    scores: Sequence[float] | None = None
    cross_entropy: float | None = None  # of the reference, see `Prediction`; so is `cut`
    cut: bool | None = None


class Journal:
    """What the processes that decode to `prefix` have answered, each in a file of its own.

    Args:
        made_from: what the answers depend on; files with anything else are removed.
    """

    def __init__(self, prefix: str | Path, made_from: Mapping[str, Any]):
        self.prefix, self.made_from = str(prefix), dict(made_from)
        for path in self._files():
            rows = read_log(path, checked=True)
            if lost := path.read_bytes().count(b"\n") - len(rows):
                logger.warning("%s: damaged, %d answers are given again", path, lost)
            changed = differences(rows[0].get("made_from", {}) if rows else {}, made_from)
            if changed:
                logger.info("%s is not continued: %s", path, "; ".join(changed))
                path.unlink()

    def answers(self) -> dict[str, Answer]:
        """By key, of all processes; a line that was cut off is left out."""
        rows = [row for path in self._files() for row in read_log(path, checked=True)[1:]]
        return {row["key"]: Answer(**row) for row in rows}

    def add(self, rank: int, batches: Iterable[Iterable[Answer]]) -> None:
        """Write down what process `rank` answers: a batch is on disk before the next is begun."""
        with Log(f"{self.prefix}_partial.{rank}.jsonl") as log:
            if not log.rows:
                log.add([{"made_from": self.made_from}])
            for batch in batches:
                log.add(map(asdict, batch))

    def remove(self) -> None:
        for path in self._files():
            path.unlink()

    def _files(self) -> list[Path]:
        return sorted(map(Path, glob.glob(f"{glob.escape(self.prefix)}_partial.[0-9]*.jsonl")))


def device(rank: int = 0) -> torch.device:
    """CUDA where it is there, the processes of one machine on a GPU each; otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def in_processes(count: int, job: Callable[..., Any], *arguments: Any) -> None:
    """Run `job(rank, count, *arguments)` in `count` new processes; in this one where that is one.

    Never more than there are GPUs, where there are any: two on one would hold the model twice.
    """
    if torch.cuda.is_available():
        count = min(count, torch.cuda.device_count())
    if count <= 1:
        job(0, 1, *arguments)
        return
    from torch import multiprocessing

    team = multiprocessing.spawn(_process, (count, job, arguments), nprocs=count, join=False)
    try:
        while not team.join():
            pass
    except multiprocessing.ProcessExitedException as ended:
        raise InputError(f"decoding: {ended}; the same command continues") from None
    finally:
        for process in team.processes:  # those that an interruption of this one left
            process.terminate()


def _process(rank: int, count: int, job: Callable, arguments: tuple) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        job(rank, count, *arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
