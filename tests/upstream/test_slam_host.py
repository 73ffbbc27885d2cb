"""Our factory and dataset inside the unmodified SLAM-LLM, on a CPU (gloo instead of NCCL)."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator
from slam_potsa.model.metrics import read_metrics
from tests.support import slam_llm, tiny

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.upstream,
    pytest.mark.skipif(slam_llm.source() is None, reason="SLAM_LLM_SRC is not set"),
]


def launch(entry: str, overrides: list[str], processes: int = 1) -> str:
    """torchrun of an entry script under the CPU shim; its output."""
    environment = {
        **os.environ,
        "SLAM_LLM_SRC": str(slam_llm.source()),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    shim = str(ROOT / "tests" / "support" / "cpu_shim.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), shim, str(ROOT / entry), *overrides]
    done = subprocess.run(
        command,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=slam_llm.PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_ddp_trains_saves_and_decodes(tmp_path, processes):
    config = tiny.world(tmp_path)
    config.train_config.validation_interval = 1
    config.train_config.num_epochs = 1
    config.train_config.val_batch_size = 2
    overrides = tiny.overrides(config) + ["engine=slam_llm"]
    launch("examples/potsa/finetune.py", overrides, processes)
    run = Path(config.train_config.output_dir)
    lines = read_metrics(run / "metrics.jsonl")
    assert len(lines) >= 3 and all(line["layers"] for line in lines)
    checkpoint = sorted(run.glob("potsa_epoch_*/model.pt"))[-1]

    assert_decodes_alike(config, checkpoint, tmp_path)
    assert_decodes_alike(config, run / "model.pt", tmp_path)  # the last, which upstream never saves


def test_gradient_accumulation_steps_the_schedule_once_a_step(tmp_path):
    config = tiny.world(tmp_path)
    config.train_config.gradient_accumulation_steps = 4
    config.train_config.validation_interval = 3
    overrides = [*tiny.overrides(config), "engine=slam_llm"]
    launch("examples/potsa/finetune.py", overrides)
    lines = read_metrics(Path(config.train_config.output_dir) / "metrics.jsonl")
    assert [line["step"] for line in lines] == [
        0,
        1,
        2,
        3,
    ]  # 6 micro-steps an epoch: 4 and 2, twice
    assert all(len(line["layers"]) == 1 for line in lines)


def test_a_native_checkpoint_decodes_to_the_same_text_inside(tmp_path):
    config = tiny.world(tmp_path)
    assert_decodes_alike(config, native.finetune(config), tmp_path)


def assert_decodes_alike(config, checkpoint: Path, folder: Path) -> None:
    """SLAM-LLM's decoder and ours write the same text for every utterance."""
    decoded = f"{folder}/decoded/{checkpoint.parent.name}"
    manifest = config.dataset_config.train_data_path
    launch(
        "examples/potsa/inference.py",
        [
            *tiny.overrides(config),
            "engine=slam_llm",
            f"ckpt_path={checkpoint}",
            f"decode_log={decoded}",
            f"dataset_config.test_data_path={manifest}",
        ],
    )
    theirs = Path(f"{decoded}_pred").read_text().splitlines()
    config = replace(config, ckpt_path=str(checkpoint))
    ours = Translator(config).decode(manifest, progress=False)
    assert [line.split("\t") for line in theirs] == [[p.key, p.prediction] for p in ours]
