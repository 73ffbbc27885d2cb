"""The embedded host: trains, resumes to the same numbers, agrees between processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.engine.run_directory import last_checkpoint
from slam_potsa.model.loading import read_checkpoint
from slam_potsa.model.metrics_log import read_metrics
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]


def metrics(config):
    return read_metrics(Path(config.train_config.output_dir) / "metrics.jsonl")


def numbers(lines):
    """What must not change between two runs of the same configuration."""
    names = ("step", "ce", "ot", "layers", "lr")
    return [{name: line[name] for name in names} for line in lines]


def launch(config, processes, *extra):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", str(processes), str(ROOT / "examples/potsa/finetune.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [*command, *tiny.overrides(config), *extra],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("native"))
    native.finetune(config)
    return config


def test_run_directory_holds_what_it_promises(trained):
    run = Path(trained.train_config.output_dir)
    names = {path.name for path in run.iterdir()}
    assert {"config.yaml", "language_bias.safetensors", "metrics.jsonl", "model.pt"} <= names
    assert (run / "best" / "model.pt").is_file()
    lines = metrics(trained)
    assert [line["step"] for line in lines] == list(range(12))  # 12 items, 2 a batch, 2 epochs
    assert all(line["ot/matched"] is not None for line in lines[::2])
    assert all(len(line["layers"]) == 1 and line["layers"][0] in (1, 2) for line in lines)
    assert lines[0]["lr"] == 0 and lines[2]["lr"] == pytest.approx(1e-3)


def test_only_trained_parameters_are_saved(trained):
    state = read_checkpoint(trained.train_config.output_dir)
    assert state and all(name.startswith("encoder_projector.") for name in state)


def test_training_reduces_the_loss(tmp_path):
    config = tiny.world(tmp_path)
    config.train_config.num_epochs, config.train_config.lr = 30, 3e-3
    config.train_config.total_steps = 400
    config.train_config.run_validation = False
    native.finetune(config)
    lines = metrics(config)
    first = sum(line["ce"] for line in lines[:5]) / 5
    last = sum(line["ce"] for line in lines[-5:]) / 5
    assert last < 0.8 * first


def test_resumed_run_continues_with_the_same_numbers(trained, tmp_path):
    """Killed after five of twelve steps, in the middle of an epoch, and started again."""
    config = tiny.world(tmp_path)
    config.native.save_interval = 3
    config.native.max_steps = 5
    native.finetune(config)
    assert last_checkpoint(config.train_config.output_dir).name == "checkpoint-5"
    config = tiny.world(tmp_path)
    config.native.save_interval = 3
    final = native.finetune(config)
    assert [line["step"] for line in metrics(config)] == list(range(12))
    assert numbers(metrics(config)) == numbers(metrics(trained))
    expected = read_checkpoint(Path(trained.train_config.output_dir) / "model.pt")
    for name, tensor in read_checkpoint(final).items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_an_incomplete_checkpoint_is_not_resumed_from(tmp_path):
    config = tiny.world(tmp_path)
    config.native.max_steps = 2
    native.finetune(config)
    run = Path(config.train_config.output_dir)
    (run / "checkpoint-9").mkdir()
    assert last_checkpoint(run).name == "checkpoint-2"


def test_another_configurations_run_is_not_overwritten(trained, tmp_path):
    config = tiny.world(tmp_path)
    config.train_config.output_dir = trained.train_config.output_dir
    config.train_config.lr = 0.5
    with pytest.raises(InputError, match="train_config.lr: 0.001 then, 0.5 now"):
        native.finetune(config)


def test_decoding_a_run(trained):
    translator = Translator(load_run(trained.train_config.output_dir))
    predictions = translator.decode(trained.dataset_config.val_data_path, progress=False)
    assert [p.key for p in predictions][:4] == ["en-0", "es-0", "ru-0", "en-1"]
    assert all(p.reference and p.beam == 2 and p.target_language == "en" for p in predictions)
    audio = Path(trained.dataset_config.val_data_path).parent / "audio" / "ru-0.wav"
    assert translator.translate([audio], "ru", "en") == [predictions[2].prediction]


def test_stored_features_give_the_same_training(trained, tmp_path):
    from slam_potsa.engine.encode import store_features
    from slam_potsa.model.encoder import load_encoder

    config = tiny.world(tmp_path)
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    manifest = config.dataset_config.train_data_path
    store_features(encoder, [manifest], tmp_path / "features", progress=False)
    config.dataset_config.feature_store = str(tmp_path / "features")
    native.finetune(config)
    for ours, theirs in zip(metrics(config), metrics(trained), strict=True):
        assert ours["ce"] == pytest.approx(theirs["ce"], rel=2e-3)  # stored in float16


def test_features_of_another_encoder_are_refused(tmp_path):
    from slam_potsa.engine.encode import store_features
    from slam_potsa.model.encoder import load_encoder

    config = tiny.world(tmp_path)
    other = load_encoder(str(tiny.whisper(tmp_path / "other", seed=5)), "trimmed")
    store_features(other, [config.dataset_config.train_data_path], tmp_path / "f", progress=False)
    config.dataset_config.feature_store = str(tmp_path / "f")
    with pytest.raises(InputError, match="encoder"):
        native.finetune(config)


def test_too_few_items_for_a_batch(tmp_path):
    config = tiny.world(tmp_path)
    config.train_config.batch_size_training = 64
    with pytest.raises(InputError, match="12 items, fewer than one batch of 64"):
        native.finetune(config)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_gradient_accumulation_counts_optimizer_steps(tmp_path, accumulation):
    config = tiny.world(tmp_path)
    config.train_config.gradient_accumulation_steps = accumulation
    config.train_config.batch_size_training = 2 // accumulation
    config.train_config.run_validation = False
    config.train_config.num_epochs = 1
    native.finetune(config)
    assert len(metrics(config)) == 6  # 12 items: six batches of 2, or twelve of 1, two a step


@pytest.mark.distributed
def test_two_processes_agree_and_resume(tmp_path):
    config = tiny.world(tmp_path, sentences=8)
    config.native.save_interval = 2
    config.train_config.num_epochs = 3
    launch(config, 2)
    whole = numbers(metrics(config))
    assert len(whole) == 12  # 16 items, 2 a batch, 2 processes, 3 epochs
    config = tiny.world(tmp_path / "again", sentences=8)
    config.native.save_interval = 2
    config.train_config.num_epochs = 3
    launch(config, 2, "native.max_steps=4")
    launch(config, 2)
    assert numbers(metrics(config)) == whole


def test_bad_recordings_are_listed_before_training(tmp_path):
    config = tiny.world(tmp_path)
    audio = Path(config.dataset_config.train_data_path).parent / "audio"
    (audio / "en-0.wav").unlink()
    (audio / "ru-1.wav").write_bytes(b"")
    with pytest.raises(InputError) as error:
        native.finetune(config)
    text = str(error.value)
    assert len(error.value.problems) == 2 and "en-0.wav: no such file" in text and "empty" in text
    assert not (Path(config.train_config.output_dir) / "metrics.jsonl").exists()


def test_a_nan_loss_stops_the_run_with_its_step(tmp_path, monkeypatch):
    from slam_potsa.model import speech_llm
    from slam_potsa.model.controller import NonFiniteLoss

    config = tiny.world(tmp_path)
    config.native.save_interval = 2
    plain, calls = speech_llm._cross_entropy, []

    def poisoned(logits, labels):
        loss, targets = plain(logits, labels)
        calls.append(None)
        return (loss * float("nan") if len(calls) == 4 else loss), targets

    monkeypatch.setattr(speech_llm, "_cross_entropy", poisoned)
    config.train_config.run_validation = False
    with pytest.raises(NonFiniteLoss, match="step 3: ce=nan"):
        native.finetune(config)
    assert last_checkpoint(config.train_config.output_dir) is not None
