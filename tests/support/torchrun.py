"""Scripts in processes of their own, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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
