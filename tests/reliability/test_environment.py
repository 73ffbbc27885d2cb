"""What is wrong with the machine: one message, nothing lost, and the same command goes on."""

import io
import os
import resource
import shutil
import subprocess
import sys
import zlib
from contextlib import redirect_stderr
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from slam_potsa.cli import main
from slam_potsa.data.feature_store import FeatureStore, _save, add_features
from slam_potsa.engine import launch, native
from slam_potsa.engine.encode import estimate_bias
from slam_potsa.errors import EXIT_INPUT, InputError, as_messages
from slam_potsa.model import metrics
from tests.support import tiny
from tests.support.torchrun import environment, in_a_process

pytestmark = pytest.mark.reliability


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("environment"), sentences=2)
    config.native.save_interval, config.native.max_steps = 2, 6
    return config


def train(config) -> None:
    with as_messages(), launch._alone(config):
        native.finetune(config)


def in_little_space(room: int, call, given) -> None:
    """Files end at `room` bytes, as on a full disk; Python ignores the signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    said = io.StringIO()
    with pytest.raises(SystemExit, match="1"), redirect_stderr(said):
        sys.exit(call(given))
    assert "mend it and run the same command again" in said.getvalue()


def test_a_full_disk_is_one_message_and_all_goes_on_once_there_is_room(world, tmp_path):
    config = deepcopy(world)
    config.train_config.output_dir = str(tmp_path / "run")
    for room in (100, 20_000):
        in_a_process(in_little_space, room, train, config)
    train(config)
    assert (tmp_path / "run/model.pt").is_file()
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 6
    manifest, encoder = config.dataset_config.train_data_path, config.model_config.encoder_path_hf
    features = ["features", manifest, "--encoder", encoder, "--window", "trimmed"]
    features += ["--output", str(tmp_path / "features")]
    for command in (["decode", str(tmp_path / "run"), manifest], features):
        in_a_process(in_little_space, 100, main, command)
        assert main(command) == 0


def test_a_run_whose_folder_is_deleted_under_it_fails(world, tmp_path, monkeypatch):
    config, write = deepcopy(world), metrics.MetricsLog.__call__
    config.train_config.output_dir = str(tmp_path / "run")

    def deleting(log, record):
        write(log, record)
        if record["step"] == 1:
            shutil.rmtree(tmp_path / "run")

    monkeypatch.setattr(metrics.MetricsLog, "__call__", deleting)
    with pytest.raises(SystemExit) as ended:
        train(config)
    assert ended.value.code == EXIT_INPUT


def places(folder: Path) -> dict[str, str]:
    """Names at which nothing can be read or written."""
    (folder / "file").touch()
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    found = {"folder": "folder", "below a file": "file/x", "loop": "loop"}
    return found | {"below a loop": "loop/x", "long": "x" * 300}


@pytest.mark.parametrize("name", ["folder", "below a file", "loop", "below a loop", "long"])
def test_places_that_are_none_are_named(name, world, tmp_path, capsys):
    place, manifest = str(tmp_path / places(tmp_path)[name]), world.dataset_config.train_data_path
    is_folder = name == "folder"  # in which much may be written
    commands = [["prepare", "check", place], ["prepare", "convert", place, str(tmp_path / "x")]]
    commands += [["prepare", "convert", manifest, place + "/m.jsonl" * (not is_folder)]]
    commands += [["decode", place, manifest], ["score", place], ["report", place]]
    commands += [["features", manifest, "--encoder", place, "--output", place]]
    commands += [["features", manifest, "--encoder", world.model_config.encoder_path_hf]]
    commands[-1] += ["--output", place, "--window", "trimmed"]
    for command in commands[: -1 if is_folder else None]:
        assert main(command) in (1, 2), command
        said = capsys.readouterr().err
        assert "error: " in said and place[:200] in said and "Traceback" not in said
    config = deepcopy(world)
    config.train_config.output_dir = place if not is_folder else str(tmp_path / "file")
    with pytest.raises(SystemExit, match="[12]"):
        train(config)


@pytest.mark.slow
def test_without_a_home(world, tmp_path):
    command = [sys.executable, "-m", "slam_potsa.cli", "prepare", "check"]
    variables = {k: v for k, v in environment().items() if k not in ("HOME", "HF_HOME")}
    for more in ({}, {"HOME": "/nowhere"}):
        given = {"env": variables | more, "cwd": tmp_path, "capture_output": True, "text": True}
        ended = subprocess.run([*command, world.dataset_config.train_data_path], **given)
        assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr
    assert os.listdir(tmp_path) == []


def test_nan_in_a_store_is_told_of_the_store(world, tmp_path):
    rows = [(f"{code}-{n}", np.ones((3, 4))) for code in ("en", "es", "ru") for n in range(2)]
    store = add_features(tmp_path, "f", 4, rows)
    bad = np.full((3, 4), np.nan, np.float16)
    with open(tmp_path / "features.bin", "r+b") as file:
        file.write(bad.tobytes())
        store.keys["en-0"][2] = zlib.crc32(bad)
        _save(store, file)
    with pytest.raises(
        InputError, match="features.bin: the features of 'en-0' were stored with NaN"
    ):
        estimate_bias([world.dataset_config.train_data_path], features=FeatureStore.open(tmp_path))
