"""Finds SLAM-LLM for the tests marked `upstream`; run as a module, its exit code tells."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tests.support.torchrun import ROOT, torchrun


def source() -> Path | None:
    """The folder that holds `slam_llm/`: SLAM_LLM_SRC, else where it is importable from."""
    named = os.environ.get("SLAM_LLM_SRC")
    if named:
        return Path(named) if (Path(named) / "slam_llm").is_dir() else None
    found = importlib.util.find_spec("slam_llm")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))).parent


SHIM = ROOT / "tests/support/cpu_shim.py"
NEEDED = [
    pytest.mark.upstream,
    pytest.mark.skipif(source() is None, reason="SLAM_LLM_SRC is not set"),
]


def launch(entry: str | Path, overrides: list[str], processes: int = 1, cwd=ROOT) -> None:
    """torchrun of an entry script under the CPU shim."""
    run = {"processes": processes, "cwd": cwd, "SLAM_LLM_SRC": str(source())}
    torchrun(SHIM, ROOT / entry, *overrides, **run)


if __name__ == "__main__":
    sys.exit(0 if source() else 3)
