"""How a decoding is shared between processes, and written down batch by batch.

`<prefix>_partial.jsonl` (of process r > 0: `<prefix>_partial.r.jsonl`) has in its first line all
that the answers depend on, in each other line one utterance's:

    {"made_from": {"decode.num_beams": 4, "manifest": "9f86d0…"}}
    {"key": "fr-hello", "texts": ["Hello.", "Hi."], "scores": [-0.21, -0.87]}

So an interrupted decoding continues, in any number of processes.
"""

from __future__ import annotations

import atexit
import glob
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from slam_potsa.data.jsonl import read_log
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write
from slam_potsa.provenance import differences

logger = logging.getLogger(__name__)
PATIENCE = timedelta(days=1)  # a share may take longer than another, and the first one waits


@dataclass(frozen=True)
class Answer:
    """A model's raw texts for one utterance, best first, with their scores where n were asked."""

    key: str
    texts: Sequence[str]
    scores: Sequence[float] | None = None


class Journal:
    """Answers by key; with a `prefix`, each batch is on disk before the next one begins.

    Args:
        prefix: of the files; None keeps the answers in memory only.
        made_from: what the answers depend on; files with anything else are not continued.
        rank: of this process, which writes a file of its own and reads all.
    """

    def __init__(
        self, prefix: str | Path | None, made_from: Mapping[str, Any] | None = None, rank: int = 0
    ):
        self.answers: dict[str, Answer] = {}
        self._path = None
        if prefix is None:
            return
        found = {path: _read(path, made_from) for path in partial_files(prefix)}
        for answers in found.values():
            self.answers |= answers
        self._path = Path(f"{prefix}_partial{f'.{rank}' if rank else ''}.jsonl")
        own = found.get(self._path, {}).values()
        # Written anew, not only appended to: a line may have been cut off half-way.
        head = json.dumps({"made_from": made_from}, ensure_ascii=False) + "\n"
        atomic_write(self._path, head + "".join(map(_line, own)))

    def add(self, answers: Iterable[Answer]) -> None:
        """One batch; on disk when this returns."""
        answers = list(answers)
        self.answers |= {answer.key: answer for answer in answers}
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, answers)))
                file.flush()
                os.fsync(file.fileno())


def partial_files(prefix: str | Path) -> list[Path]:
    """Those of every process that decoded to `prefix`."""
    name = glob.escape(str(prefix))
    patterns = (f"{name}_partial.jsonl", f"{name}_partial.[0-9]*.jsonl")
    return sorted(Path(path) for pattern in patterns for path in glob.glob(pattern))


def _line(answer: Answer) -> str:
    return json.dumps(asdict(answer), ensure_ascii=False) + "\n"


def _read(path: Path, made_from: Mapping[str, Any] | None) -> dict[str, Answer]:
    """The answers of a file up to a line that was cut off; none where they are of other things."""
    rows = read_log(path)
    head = rows[0] if rows else {}
    changed = differences(head.get("made_from", {}), made_from or {})
    if changed:
        logger.info("%s is not continued: %s", path, "; ".join(changed))
        return {}
    return {row["key"]: Answer(**row) for row in rows[1:]}


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
    if torch.cuda.is_available() and count > useful_processes(count):
        useful = useful_processes(count)
        logger.warning("decoding in %d processes: one a GPU, not %d", useful, count)
        count = useful
    if count <= 1:
        job(*args)
        return
    from torch import multiprocessing

    wrong_input = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        own = (count, f"file://{folder}/meeting", wrong_input, job, args)
        team = multiprocessing.spawn(_process, own, nprocs=count, join=False)
        try:
            while not team.join():
                pass
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException):
            if wrong_input.empty():
                raise
            raise InputError(wrong_input.get()) from None
        finally:
            for process in team.processes:  # those that an interruption of this one left
                process.terminate()


def _process(rank: int, count: int, meeting: str, wrong_input: Any, job: Callable, args: tuple):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    _join(init_method=meeting, rank=rank, world_size=count)
    try:
        job(*args)
    except InputError as error:
        wrong_input.put(error.problems[:100])  # what a pipe holds: nobody reads it yet
        raise SystemExit(2) from None


def _join(**how: Any) -> None:
    # gloo on GPUs too: what is exchanged is text, once.
    dist.init_process_group("gloo", timeout=PATIENCE, **how)
    atexit.register(dist.destroy_process_group)
