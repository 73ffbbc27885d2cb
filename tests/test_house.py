"""The rules of the house: who may import whom, and what an import must not load."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "slam_potsa"
# Each may import those before it, never those after.
ORDER = ["errors", "files", "provenance", "text", "stand_ins", "config", "registry", "data"]
ORDER += ["objective", "model", "plugin", "engine", "evaluation", "commands", "cli"]
# Lines of each folder, with a little air. The aim is 17,000 in all; what stands above it: languages
# that join, announcements and the authors' settings 1,440, PART and peers 680, AI-STA 690, records
# and readers 725, sharing 540, SLAM-LLM's recipes and other people's data 840, transport in one
# launch 170, manifests in columns and batches of a length 340.
BUDGET = {
    "config": 1_302,
    "data": 4_542,
    "objective": 1_593,
    "model": 2_943,
    "engine": 4_342,
    "evaluation": 3_315,
    "commands": 590,
}
BUDGET_IN_ALL = 19_367
SLAM_LLM_ALLOWED = {"engine/slam_llm.py", "model/drop_in.py"}
HEAVY = ("transformers", "deepspeed", "slam_llm", "sacrebleu", "sklearn", "peft")
HEAVY += ("jiwer", "py3langid", "scipy", "matplotlib")


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


def test_no_circle_of_imports():
    """Lazy imports count too: a circle is two rooms that cannot be understood apart."""
    names = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {name: imported(path) & names.keys() - {name} for name, path in names.items()}
    # What a package exports is asked of the package; its own modules do not wait for it.
    graph = {
        name: {d for d in found if not name.startswith(f"{d}.")} for name, found in graph.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_report_reads_and_does_not_run():
    """Whatever it imports, directly or not: no model is loaded to show what lies in files."""
    code = (
        "import sys, pkgutil, importlib, slam_potsa.evaluation.report as report\n"
        "for m in pkgutil.iter_modules(report.__path__):\n"
        "    importlib.import_module(f'{report.__name__}.{m.name}')\n"
        "print([m for m in sys.modules if m in ('slam_potsa.engine.decode', 'transformers')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_files_and_folders_keep_to_their_size():
    """Small is a feature: what needs more room says why, here."""
    lines = {path: len(path.read_text().splitlines()) for path in modules()}
    assert [path.name for path, count in lines.items() if count > 400] == []
    for folder, budget in BUDGET.items():
        own = [count for path, count in lines.items() if PACKAGE / folder in path.parents]
        assert sum(own) <= budget, f"{folder}: {sum(own)} lines, at most {budget}"
    assert sum(lines.values()) <= BUDGET_IN_ALL


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
