"""Scripts in processes of their own, as torchrun starts them."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from torch.multiprocessing import start_processes

ROOT = Path(__file__).resolve().parents[2]
IMPORTED_ONCE = ["slam_potsa.engine.native"]
IMPORTED_ONCE += [
    f"transformers.models.{name}"
    for name in ("whisper.modeling_whisper", "llama.modeling_llama", "blip_2.modeling_blip_2")
]
PATIENCE = 1800  # seconds for one launch: a guard against hanging, not against a busy machine


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def torchrun(*script, processes: int = 1, cwd=ROOT, succeed: bool = True, **variables: str):
    """The finished run of a script with its arguments; `variables` of its environment."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), *map(str, script)]
    place = {"env": environment(**variables), "cwd": cwd, "timeout": PATIENCE}
    run = subprocess.run(command, capture_output=True, text=True, **place)
    assert (run.returncode == 0) == succeed, run.stdout[-3000:] + run.stderr[-6000:]
    return run


def _as_rank(rank, port, job, arguments):
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "localhost"}
    torch.set_num_threads(1)
    job(rank, *arguments)


def in_a_process(job, *arguments) -> None:
    """`job(*arguments)` in a process that may fork: this one has threads, whose forks may hang."""
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    process = multiprocessing.get_context("forkserver").Process(target=job, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def in_two_processes(job, *arguments, method: str = "forkserver") -> None:
    """`job(rank, *arguments)` as torchrun starts it, but forked from one process that has imported
    everything; with "fork", from this one."""
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    start_processes(_as_rank, (port, job, arguments), nprocs=2, start_method=method)
