"""Finds SLAM-LLM for the tests marked `upstream`; run as a module, its exit code tells."""

import importlib.util
import os
import sys
from pathlib import Path

PATIENCE = 1800  # seconds for one launch: a guard against hanging, not against a busy machine


def source() -> Path | None:
    """The folder that holds `slam_llm/`: SLAM_LLM_SRC, else where it is importable from."""
    named = os.environ.get("SLAM_LLM_SRC")
    if named:
        return Path(named) if (Path(named) / "slam_llm").is_dir() else None
    found = importlib.util.find_spec("slam_llm")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))).parent


if __name__ == "__main__":
    sys.exit(0 if source() else 3)
