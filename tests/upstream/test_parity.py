"""The two hosts train the same: same seed and data order, same losses, costs and layers."""

from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.config.compose import compose_config
from slam_potsa.model.metrics import read_metrics
from tests.support import golden, tiny
from tests.test_golden import compare
from tests.test_joining import joining, taught  # noqa: F401
from tests.upstream.test_slam_host import launch, pytestmark  # noqa: F401


def train(config, engine: str, processes: int) -> list[dict]:
    entry = "examples/potsa/finetune.py"
    launch(entry, [*tiny.overrides(config), f"engine={engine}"], processes)
    return read_metrics(Path(config.train_config.output_dir) / "metrics.jsonl")


@pytest.mark.parametrize("processes", [1, 2])
def test_losses_costs_and_layers_agree_for_twenty_steps(tmp_path, processes):
    # SLAM-LLM's loop drops the last batch and never shuffles anew; neither do we, and it validates
    # in the middle: after that it goes on in evaluation mode unless the model mends it.
    config = tiny.world(tmp_path, sentences=12)
    config.train_config.num_epochs = 2 * processes
    config.train_config.validation_interval = 5
    found = {}
    for engine in ("native", "slam_llm"):
        run = replace(config.train_config, output_dir=str(tmp_path / engine))
        found[engine] = train(replace(config, train_config=run), engine, processes)
    assert len(found["native"]) == len(found["slam_llm"]) >= 20
    for ours, theirs in zip(found["native"], found["slam_llm"], strict=True):
        assert ours["layers"] == theirs["layers"], ours["step"]
        assert ours["lr"] == pytest.approx(theirs["lr"], abs=1e-12), ours["step"]
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=1e-4), ours["step"]
        assert ours["ot"] == pytest.approx(theirs["ot"], abs=1e-4), ours["step"]


def test_a_language_joins_the_same_in_both_hosts(taught, tmp_path):  # noqa: F811
    found = {}
    for engine in ("native", "slam_llm"):
        config = joining(taught, tmp_path / engine, joining_share=0.5)
        found[engine] = train(config, engine, 1)
    assert len(found["native"]) == len(found["slam_llm"]) >= 20
    for ours, theirs in zip(found["native"], found["slam_llm"], strict=True):
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=1e-4), ours["step"]
        assert ours.get("join") == pytest.approx(theirs.get("join"), abs=1e-4), ours["step"]


def test_speech_is_aligned_with_text_the_same_in_both_hosts(tmp_path):
    config, found = tiny.world(tmp_path, sentences=14), {}
    config.alignment = compose_config(["alignment=[ai_sta,ot]"]).alignment
    config.train_config = replace(
        config.train_config, train_parts=["projector", "llm.lora"], validation_interval=7
    )
    config.train_config.peft_config.lora_dropout = 0.0  # the hosts draw it otherwise
    for engine in ("native", "slam_llm"):
        run = replace(config.train_config, output_dir=str(tmp_path / engine))
        found[engine] = train(replace(config, train_config=run), engine, 1)
    assert len(found["native"]) == len(found["slam_llm"]) >= 20
    for ours, theirs in zip(found["native"], found["slam_llm"], strict=True):
        for name in ("ce", "ai_sta", "ot"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-4), ours["step"]


def test_a_tiny_run_under_slam_llm_gives_the_kept_figures(tmp_path):
    config = golden.world(tmp_path)
    launch("examples/potsa/finetune.py", [*tiny.overrides(config), "engine=slam_llm"], 1)
    compare(golden.figures(config.train_config.output_dir), tolerance=1e-4)
