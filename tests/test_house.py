"""The rules of the house: who may import whom, and what an import must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "slam_potsa"
# Each may import those before it, never those after.
ORDER = [
    "errors",
    "files",
    "provenance",
    "text",
    "stand_ins",
    "config",
    "registry",
    "data",
    "objective",
    "model",
]
ORDER += ["plugin", "engine", "evaluation", "commands", "cli"]
SLAM_LLM_ALLOWED = {"engine/slam_llm.py", "model/drop_in.py"}
HEAVY = ("transformers", "deepspeed", "slam_llm", "sacrebleu", "sklearn", "peft")
HEAVY += ("jiwer", "py3langid", "scipy", "comet", "lhotse", "matplotlib")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_order_of_the_house(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    parts = {part_of(m) for m in imported(path) if m.startswith("slam_potsa.")} & set(ORDER)
    later = {part for part in parts if ORDER.index(part) > ORDER.index(own)}
    assert not later, f"{own} imports {later}, which come after it"
    if own == "objective":
        assert parts <= {"objective"}


def test_slam_llm_is_imported_in_two_places_only():
    users = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(m == "slam_llm" or m.startswith("slam_llm.") for m in imported(path))
    }
    assert users <= SLAM_LLM_ALLOWED


def test_public_names_load_nothing_heavy():
    code = (
        "import sys, slam_potsa\n"
        "for name in slam_potsa.__all__: getattr(slam_potsa, name)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_files_that_slam_llm_loads_work_outside_a_package():
    """SLAM-LLM executes them as a module that is not in sys.modules, from any working directory."""
    import importlib.util

    for function in ("model_factory", "get_speech_dataset"):
        spec = importlib.util.spec_from_file_location("plugin.py", PACKAGE / "plugin.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert callable(getattr(module, function))
