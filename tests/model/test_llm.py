"""What is printed while an LLM is loaded."""

import subprocess
import sys

import pytest

LOAD = """
import logging, sys
from slam_potsa.config import ModelConfig, TrainConfig
from slam_potsa.model.llm import load_llm
train, model = TrainConfig(use_peft=True), ModelConfig(llm_path=sys.argv[1])
load_llm(train, model)
print("bitsandbytes" in sys.modules)
logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
logger.warning("of 4 bits")
logger.error("of an error")
"""


@pytest.mark.slow
def test_bitsandbytes_does_not_ask_for_packages_that_nobody_needs(tmp_path):
    pytest.importorskip("peft")
    from tests.support import tiny

    config = tiny.world(tmp_path)
    path = config.model_config.llm_path
    run = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "gemm_4bit" not in run.stderr and "pip install" not in run.stderr
    assert "of 4 bits" not in run.stderr and "of an error" in run.stderr
