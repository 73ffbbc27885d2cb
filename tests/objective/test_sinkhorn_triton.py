"""The solver of one launch: the torch path's results in Triton's interpreter, code for a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slam_potsa.config import check as config_check
from slam_potsa.config.alignment import AlignmentConfig, TermConfig
from slam_potsa.errors import InputError

HERE = Path(__file__).parent


def run(*command: str, **environment: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    found = subprocess.run([sys.executable, *command], env=environment, capture_output=True)
    assert found.returncode == 0, found.stderr.decode()[-2000:]


def test_the_interpreter_gives_what_torch_gives():
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    pytest.importorskip("triton")
    run(str(HERE / "fused_against_torch.py"), TRITON_INTERPRET="1")


@pytest.mark.slow
def test_it_compiles_for_a_gpu_that_is_not_there(tmp_path):
    pytest.importorskip("triton")
    code = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from slam_potsa.objective import sinkhorn_triton

kernel = sinkhorn_triton._solve
sizes = {"ROWS": 128, "COLUMNS": 64}
scalars = {"rows": "i32", "columns": "i32", "max_iterations": "i32", "tolerance": "fp32"}
types = {n: "constexpr" if n in sizes else scalars.get(n, "*fp32") for n in kernel.arg_names}
source = ASTSource(fn=kernel, signature=types, constexprs=sizes)
assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""
    run("-c", code, TRITON_CACHE_DIR=str(tmp_path))


def test_without_triton_it_is_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(config_check, "find_spec", lambda name: None)
    terms = {"ot": TermConfig(distance="ot", solver="triton")}
    with pytest.raises(InputError, match="alignment.terms.ot.solver=triton: pip install triton"):
        config_check.check(AlignmentConfig(terms=terms))
