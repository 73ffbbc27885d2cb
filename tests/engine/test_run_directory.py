"""Which checkpoint of a run is its best, whoever trained it; one run a folder."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from slam_potsa import InputError
from slam_potsa.engine import run_directory
from slam_potsa.engine.lock import alone
from slam_potsa.engine.run_directory import best_checkpoint, newest_saved
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[2]


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_the_best_by_validation_comes_first(tmp_path):
    put(tmp_path / "model.pt")
    assert best_checkpoint(tmp_path) == tmp_path / "model.pt"
    put(tmp_path / "potsa_epoch_1_step_9/model.pt")
    assert best_checkpoint(tmp_path).parent.name == "potsa_epoch_1_step_9"
    put(tmp_path / "best/model.pt")
    assert best_checkpoint(tmp_path) == tmp_path / "best/model.pt"


def test_slam_llms_newest_is_by_epoch_and_step_not_by_name_or_age(tmp_path):
    for name in ("potsa_epoch_10_step_2", "potsa_epoch_2_step_900", "potsa_epoch_10_step_1"):
        put(tmp_path / name / "model.pt")
    put(tmp_path / "potsa_epoch_x_step_99/model.pt", tmp_path / "notes_epoch_99_step_1.txt")
    assert newest_saved(tmp_path).parent.name == "potsa_epoch_10_step_2"


def test_deepspeeds_folder_counts_once_its_weights_are_put_together(tmp_path):
    put(tmp_path / "my_epoch_1_epoch_1_step_5/pytorch_model.bin")
    put(tmp_path / "my_epoch_1_epoch_2_step_5/global_step9/zero_pp_rank_0_optim_states.pt")
    assert best_checkpoint(tmp_path) == tmp_path / "my_epoch_1_epoch_1_step_5/pytorch_model.bin"


def test_nothing_trained_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="no trained model there; expected best/model.pt"):
        best_checkpoint(tmp_path)


def test_a_second_process_is_kept_out_until_the_first_has_gone(tmp_path):
    code = (
        "import sys; from slam_potsa.engine.lock import alone\n"
        f"with alone({str(tmp_path)!r}): print('in', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)
    assert holder.stdout.readline() == "in\n"
    with (
        pytest.raises(InputError, match=f"process {holder.pid} is training there"),
        alone(tmp_path, 0),
    ):
        pass
    holder.kill()  # however it ends
    holder.communicate()
    with alone(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_said_once_and_no_obstacle(
    tmp_path, monkeypatch, caplog, number
):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    for _ in range(2):
        with alone(tmp_path, 0):
            pass
    assert len(caplog.records) == 1 and "start only one there" in caplog.text


def test_another_error_of_a_lock_is_not_swallowed(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "broken disk")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="broken disk"), alone(tmp_path, 0):
        pass


def test_shards_that_are_the_best_are_not_passed_over_in_silence(tmp_path, caplog):
    put(tmp_path / "model.pt", tmp_path / "my_epoch_1_step_5/global_step9/optim_states.pt")
    for _ in range(2):
        assert best_checkpoint(tmp_path) == tmp_path / "model.pt"
    assert len(caplog.records) == 1 and "my_epoch_1_step_5" in caplog.text
    assert "shards" in caplog.text and caplog.records[0].levelno == logging.WARNING
    caplog.clear()
    put(tmp_path / "my_epoch_1_step_6/pytorch_model.bin")
    assert best_checkpoint(tmp_path).parent.name == "my_epoch_1_step_6" and not caplog.records


def test_recordings_that_were_checked_are_not_heard_again(tmp_path, monkeypatch, caplog):
    config = tiny.world(tmp_path)
    run_directory.check_recordings(config)
    monkeypatch.setattr("slam_potsa.data.audio.measure_audio", lambda *_: 1 / 0)
    run_directory.check_recordings(config)
    manifest = Path(config.dataset_config.train_data_path)
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ZeroDivisionError):
        run_directory.check_recordings(config)
