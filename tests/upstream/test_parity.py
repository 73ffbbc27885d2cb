"""The two hosts train the same: same seed and data order, same losses, costs and layers."""

from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.config.compose import compose_config
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import read_manifest, write_manifest
from tests.support import golden, tiny
from tests.test_golden import compare
from tests.test_joining import answered, by_kl, joining, taught  # noqa: F401
from tests.upstream.test_slam_host import launch, pytestmark  # noqa: F401


def agree(config, folder: Path, *names: str, processes: int = 1) -> None:
    """Twenty steps or more by both hosts: layers exactly, losses up to the rounding of sums."""
    found = []
    for engine in ("native", "slam_llm"):
        run = replace(config.train_config, output_dir=str(folder / engine))
        given = tiny.overrides(replace(config, train_config=run))
        launch("examples/potsa/finetune.py", [*given, f"engine={engine}"], processes)
        found.append(read_log(folder / engine / "metrics.jsonl"))
    assert len(found[0]) >= 20
    for name in names:
        apart = [abs(a[name] - b[name]) for a, b in zip(*found, strict=True) if name in a]
        print(f"{name}: {len(apart)} steps, {max(apart):.1e} apart at most")
    for ours, theirs in zip(*found, strict=True):
        assert ours["layers"] == theirs["layers"], ours["step"]
        assert ours["lr"] == pytest.approx(theirs["lr"], abs=1e-12), ours["step"]
        for name in names:
            assert (name in ours) == (name in theirs), (ours["step"], name)
            expected = pytest.approx(theirs.get(name, 0.0), rel=1e-4, abs=1e-4)
            assert ours.get(name, 0.0) == expected, (ours["step"], name)


@pytest.mark.parametrize("processes", [1, 2])
def test_losses_costs_and_layers_agree_for_twenty_steps(tmp_path, processes):
    # SLAM-LLM's loop drops the last batch and never shuffles anew; neither do we, and it validates
    # in the middle: after that it goes on in evaluation mode unless the model mends it.
    config = tiny.world(tmp_path, sentences=12)
    config.train_config.num_epochs = 2 * processes
    config.train_config.validation_interval = 5
    agree(config, tmp_path, "ce", "ot", processes=processes)


@pytest.mark.parametrize("teacher", ["ckpt_path", "ema"])
def test_a_language_joins_the_same_in_both_hosts(taught, tmp_path, teacher):  # noqa: F811
    config = joining(taught, tmp_path, joining_share=0.5)
    config.alignment.teacher, config.language_bias.trained = teacher, teacher == "ema"
    agree(config, tmp_path, "ce", "join")


def test_the_teachers_answers_are_compared_alike(taught, answered, tmp_path):  # noqa: F811
    config = by_kl(taught, tmp_path, answered)
    config.dataset_config.joining_share = 0.5
    agree(config, tmp_path, "ce", "kl")


def test_speech_is_aligned_with_text_the_same_in_both_hosts(tmp_path):
    config = tiny.world(tmp_path, sentences=14)
    terms = {"ai_sta": "ai_sta", "ai_sta_ctc": "ctc", "ai_sta_cl": "cl", "ot": "ot"}
    config.alignment = compose_config([f"alignment=[{','.join(terms)}]"]).alignment
    config.train_config.train_parts = ["projector", "llm.lora"]
    config.train_config.validation_interval = 7
    config.train_config.peft_config.lora_dropout = 0.0  # the hosts draw it otherwise
    agree(config, tmp_path, "ce", *terms.values())


def test_a_tiny_run_under_slam_llm_gives_the_kept_figures(tmp_path):
    config = golden.world(tmp_path)
    launch("examples/potsa/finetune.py", [*tiny.overrides(config), "engine=slam_llm"], 1)
    compare(golden.figures(config.train_config.output_dir), tolerance=1e-4)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_trained_encoder_and_rows_of_text_alone_agree_in_both_hosts(tmp_path, processes):
    config = tiny.world(tmp_path, sentences=12)
    data, train = config.dataset_config, config.train_config
    spoken = read_manifest(data.train_data_path)
    text = [replace(u, key=f"text-{u.key}", audio=None) for u in spoken[:12]]
    write_manifest(data.train_data_path, [*spoken, *text])
    data.tasks, data.task_shares, data.pairing = ["asr", "mt"], [2, 1], "none"
    config.language_bias.enabled, config.alignment.terms = False, {}
    train.train_parts, train.validation_interval = ["projector", "encoder"], 7
    train.num_epochs = 2 * processes
    agree(config, tmp_path, "ce", processes=processes)
