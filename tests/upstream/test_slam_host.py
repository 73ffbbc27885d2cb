"""Our factory and dataset inside the unmodified SLAM-LLM, on a CPU (gloo instead of NCCL)."""

from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.data.jsonl import read_log
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator
from tests.support import slam_llm, tiny
from tests.support.slam_llm import launch

pytestmark = slam_llm.NEEDED


@pytest.mark.parametrize("processes", [1, 2])
def test_ddp_trains_saves_and_decodes(tmp_path, processes):
    config = tiny.world(tmp_path)
    train = config.train_config
    train.validation_interval, train.num_epochs, train.val_batch_size = 1, 1, 2
    launch("examples/potsa/finetune.py", [*tiny.overrides(config), "engine=slam_llm"], processes)
    run = Path(train.output_dir)
    lines = read_log(run / "metrics.jsonl")
    assert len(lines) >= 3 and all(line["layers"] for line in lines)
    assert_decodes_alike(config, sorted(run.glob("potsa_epoch_*/model.pt"))[-1], tmp_path)
    assert_decodes_alike(config, run / "model.pt", tmp_path)  # the last, which upstream never saves


def test_gradient_accumulation_steps_the_schedule_once_a_step(tmp_path):
    config = tiny.world(tmp_path)
    config.train_config.gradient_accumulation_steps = 4
    config.train_config.validation_interval = 3
    launch("examples/potsa/finetune.py", [*tiny.overrides(config), "engine=slam_llm"])
    lines = read_log(Path(config.train_config.output_dir) / "metrics.jsonl")
    # 6 micro-steps an epoch: 4 and 2, twice
    assert [(line["step"], len(line["layers"])) for line in lines] == [(n, 1) for n in range(4)]


def test_a_native_checkpoint_decodes_to_the_same_text_inside(tmp_path):
    config = tiny.world(tmp_path)
    assert_decodes_alike(config, native.finetune(config), tmp_path)


def assert_decodes_alike(config, checkpoint: Path, folder: Path) -> None:
    """SLAM-LLM's decoder and ours write the same text for every utterance."""
    decoded = f"{folder}/decoded/{checkpoint.parent.name}"
    manifest = config.dataset_config.train_data_path
    asked = [f"ckpt_path={checkpoint}", f"decode_log={decoded}", "engine=slam_llm"]
    asked.append(f"dataset_config.test_data_path={manifest}")
    launch("examples/potsa/inference.py", [*tiny.overrides(config), *asked])
    theirs = Path(f"{decoded}_pred").read_text().splitlines()
    ours = Translator(replace(config, ckpt_path=str(checkpoint))).decode(manifest, progress=False)
    assert [line.split("\t") for line in theirs] == [[p.key, p.prediction] for p in ours]
