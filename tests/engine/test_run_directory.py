import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slam_potsa import InputError
from slam_potsa.data.manifest import is_checked, mark_checked
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.run_directory import best_checkpoint, changes_since, complete, trained_from
from slam_potsa.files import alone
from slam_potsa.model.encoder import load_encoder
from slam_potsa.provenance import sealed
from tests.support import refused, tiny
from tests.support.torchrun import ROOT


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_best_by_validation_comes_first_then_slam_llms_newest(tmp_path):
    refused("no trained model there; expected best/model.pt", best_checkpoint, tmp_path)
    put(tmp_path / "potsa_epoch_x_step_99/model.pt", tmp_path / "notes_epoch_99_step_1.txt")
    put(tmp_path / "my_epoch_1_epoch_2_step_5/global_step9/zero_pp_rank_0_optim_states.pt")
    for better in (
        "model.pt",
        "my_epoch_1_epoch_1_step_5/pytorch_model.bin",  # DeepSpeed's, put together
        "potsa_epoch_2_step_900/model.pt",
        "potsa_epoch_10_step_1/model.pt",
        "potsa_epoch_10_step_2/model.pt",
        "best/model.pt",
    ):
        put(tmp_path / better)
        assert best_checkpoint(tmp_path).parent == (tmp_path / better).parent


def test_a_checkpoint_is_whole_with_what_every_process_writes_alone(tmp_path):
    names = ["model.pt", "controller.json", "optimizer.pt", "scheduler.pt", "trainer_state.json"]
    put(*(tmp_path / name for name in (*names, "rng_state_0.pth")))
    refused(r"rng_state_1\.pth was not written", complete, tmp_path, 2)
    put(tmp_path / "rng_state_1.pth")
    complete(tmp_path, 2)
    assert (tmp_path / "complete").is_file()


def changed(before, config, *affects):
    """The names of what differs now."""
    lines = changes_since(before, trained_from(config, *affects))
    return [line.partition(":")[0] for line in lines]


def test_a_continuation_may_be_longer_but_not_another_training(tmp_path):
    config, weights, everything = tiny.world(tmp_path), ("weights",), ("weights", "outcome")
    before = {affects: trained_from(config, affects) for affects in (weights, everything)}
    config.train_config.num_epochs += 1
    config.decode.num_beams = config.native.save_interval = 7
    assert changed(before[weights], config, weights) == []
    config.dataset_config.val_data_path = str(tmp_path / "dev.jsonl")
    (tmp_path / "dev.jsonl").write_text("others")
    validated = "content of dataset_config.val_data_path"
    found = changed(before[everything], config, everything)
    assert {*found} == {validated, "train_config.num_epochs"}
    config.alignment.terms = {}
    assert "alignment.terms.ot.weight" in changed(before[weights], config, weights)


def test_data_and_start_are_compared_by_content(tmp_path):
    config = tiny.world(tmp_path)
    data, model, start = config.dataset_config, config.model_config, tmp_path / "start.pt"
    start.write_bytes(b"weights")
    config.ckpt_path = str(start)
    encoder = load_encoder(model.encoder_path_hf, model.encoder_window)
    data.feature_store = str(tmp_path / "features")
    store_features(encoder, [data.train_data_path], data.feature_store, progress=False)
    before = trained_from(config)
    copy = Path(data.train_data_path).with_name("copy.jsonl")
    copy.write_bytes(Path(data.train_data_path).read_bytes())
    data.train_data_path = str(copy)
    assert changed(before, config) == []  # the same, elsewhere
    copy.write_text(copy.read_text() + "\n")
    start.write_bytes(b"others!")
    os.utime(start, ns=(1, 1))
    index = Path(data.feature_store, "index.json")
    with sealed(index) as other:
        other.write_text(index.read_text().replace(encoder.fingerprint(), "another"))
    sections = ("ckpt_path", "dataset_config.feature_store", "dataset_config.train_data_path")
    assert changed(before, config) == [f"content of {name}" for name in sections]
    for path in (copy, start):
        path.unlink()
    Path(data.feature_store).rename(tmp_path / "elsewhere")
    assert changed(before, config) == []  # what is gone has not changed


def test_other_models_and_recordings_at_the_same_paths_are_another_training(tmp_path):
    config = tiny.world(tmp_path)
    config.language_bias.enabled = False
    manifest = Path(config.dataset_config.train_data_path)
    mark_checked(manifest)
    before = trained_from(config)
    for path in (manifest.parent / "audio").glob("*.wav"):
        os.utime(path)  # copied, not exchanged
    assert changed(before, config) == [] and is_checked(manifest)
    tiny.llm(tmp_path / "llm", seed=1)
    tiny.whisper(tmp_path / "whisper", seed=1)
    one, other = (manifest.parent / "audio" / f"{name}-0.wav" for name in ("en", "es"))
    other.write_bytes(one.read_bytes())
    names = ["content of the recordings", "model_config.encoder_path_hf", "model_config.llm_path"]
    assert changed(before, config) == names and not is_checked(manifest)
    config.dataset_config.check_audio = False  # they are not read, and nothing is known of them
    assert changed(before, config) == names[1:]
    assert changed(trained_from(config), config) == []


def test_a_second_process_is_kept_out_until_the_first_has_gone(tmp_path, monkeypatch):
    code = (
        "import sys; from slam_potsa.files import alone\n"
        f"with alone({str(tmp_path)!r}): print('in', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert holder.stdout.readline() == "in\n"
    said = pytest.raises(InputError, match=f"process {holder.pid} on .* is training there")
    with said, alone(tmp_path, patience=0):
        pass
    holder.kill()  # however it ends
    holder.communicate()
    with alone(tmp_path):
        pass

    def flock(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)  # a file system without locks is no obstacle
    with alone(tmp_path, patience=0):
        pass
