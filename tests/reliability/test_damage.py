"""Flipped bits, deleted and cut files in every kind of artefact: never other numbers in silence."""

import os
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slam_potsa.data.feature_store import FeatureStore, add_features
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.manifest import check_manifest, is_checked
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import native, share
from slam_potsa.engine.decode import decode_to, load_run
from slam_potsa.engine.decode_processes import Answer, Journal
from slam_potsa.engine.run_directory import complete_checkpoints, last_checkpoint, read_config
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report.collect import Request, collect
from slam_potsa.files import HOST, TEMPORARY, alone, atomic_path
from slam_potsa.model.checkpoint import read_checkpoint
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.model.metrics import MetricsLog
from tests.support import refused, tiny

pytestmark = pytest.mark.reliability


def flip(path: Path, rng: random.Random) -> None:
    """One bit of a file, anywhere in it."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    write(path, bytes(content))


def cut(path: Path, rng: random.Random) -> None:
    write(path, path.read_bytes()[: rng.randrange(path.stat().st_size)])


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(1, next(TIMES)))  # two writes may have one time


TIMES = iter(range(1, 10**6))
DAMAGE = {"flip": flip, "cut": cut, "delete": lambda path, rng: path.unlink()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("damage"), sentences=2)
    config.native.save_interval, config.native.max_steps = 2, 4
    return native.finetune(config).parent


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(run, tmp_path, caplog, damage):
    rng = random.Random(0)
    for name in sorted(path.name for path in complete_checkpoints(run)[-1].iterdir()):
        folder = tmp_path / name
        shutil.copytree(run, folder)
        older, newest = complete_checkpoints(folder)
        damage(newest / name, rng)
        if name != "complete" or damage is not flip:  # whose notes may change
            assert last_checkpoint(folder) == older
            assert f"{newest}: " in caplog.text and "checkpoint-2 is taken" in caplog.text
        (older / "optimizer.pt").unlink()
        (newest / "optimizer.pt").unlink(missing_ok=True)
        if (newest / "complete").exists():
            refused("optimizer.pt is not there", last_checkpoint, folder)
        for checkpoint in (older, newest):
            (checkpoint / "complete").unlink(missing_ok=True)
        assert last_checkpoint(folder) is None
        assert f"{older}: nothing there says what it was made from" in caplog.text


@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_weights_biases_and_metrics_are_refused(run, tmp_path, damage):
    rng, log = random.Random(1), MetricsLog(run / "metrics.jsonl")
    written = log.written()
    readers = {"model.pt": read_checkpoint, "language_bias.safetensors": LanguageBias.load}
    readers |= {"metrics.jsonl": lambda path: MetricsLog(path).keep(written)}
    readers |= {"config.yaml": lambda path: read_config(path.parent)}
    for name, read in readers.items():
        for _ in range(20):
            for part in (name, f"{name}.record"):
                if (run / part).exists():
                    shutil.copy(run / part, tmp_path / part)
            read(tmp_path / name)
            damage(tmp_path / name, rng)
            refused(name, read, tmp_path / name)


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_report_shows_no_numbers_that_were_damaged(run, tmp_path, damage):
    rng, whole = random.Random(3), read_log(run / "metrics.jsonl")
    shutil.copy(run / "config.yaml", tmp_path)
    for _ in range(30):
        shutil.copy(run / "metrics.jsonl", tmp_path)
        damage(tmp_path / "metrics.jsonl", rng)
        report = collect([tmp_path], Request(heard=["en"]))
        rows = report.runs[0].metrics
        told = "metrics.jsonl is damaged or cut off" in str(report.left_out)
        assert [*rows] == whole[: len(rows)] and told == (len(rows) < len(whole))


def exported(folder: Path):
    config = load_run(folder)
    return replace(config, ckpt_path=""), read_checkpoint(config.ckpt_path)


def listened(folder: Path):
    return check_manifest(folder / "manifest.jsonl", again=False).languages


@pytest.fixture(scope="module")
def made(run):
    """What decoding, export and checking made of the run: folder, its files, how it is read."""
    config = load_run(run)
    manifest, decoded = Path(config.dataset_config.train_data_path), run.parent / "decoded"
    decode_to(decoded / "test", config, manifest)
    out, name = share.export_run(run, run.parent / "out"), "test_predictions.jsonl"
    return {
        "predictions": (decoded, [name, "test.done.json"], lambda of: read_predictions(of / name)),
        "exported": (out, [share.CONFIG, share.SHARED], exported),
        "checked": (manifest.parent, ["manifest.jsonl.checked"], listened),
    }


@pytest.mark.parametrize("kind", ["predictions", "exported", "checked"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_refused_made_again_or_told(made, tmp_path, kind, damage, caplog):
    folder, names, read = made[kind]
    whole, rng = read(folder), random.Random(kind)
    for turn, name in enumerate(names * 15):
        copied = tmp_path / str(turn)
        shutil.copytree(folder, copied)
        damage(copied / name, rng)
        caplog.clear()
        try:
            found = read(copied)
        except InputError as error:
            assert str(copied) in str(error)
            continue
        assert str(found) == str(whole) or "edited, or damaged" in caplog.text
    assert not (folder / "manifest.jsonl").exists() or is_checked(copied / "manifest.jsonl")


def test_a_best_model_that_is_gone_is_not_replaced_by_the_last(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/best/model.pt").unlink()
    refused("best/model.pt: not there, but its record is", load_run, tmp_path / "run")


@pytest.mark.parametrize("name", ["features.bin", "index.json"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_gives_no_other_features(tmp_path, damage, name):
    found = {f"k{n}": np.random.default_rng(n).normal(size=(n + 1, 4)) for n in range(5)}
    whole, rng = tmp_path / "whole", random.Random(2)
    add_features(whole, "f", 4, found.items())
    for turn in range(10):
        shutil.copytree(whole, tmp_path / str(turn))
        damage(tmp_path / str(turn) / name, rng)
        refused = 0
        for key, value in found.items():
            try:
                read = FeatureStore.open(tmp_path / str(turn))[key]
                np.testing.assert_array_equal(read, value.astype(np.float16))
            except InputError:
                refused += 1
        assert refused


@pytest.mark.parametrize("damage", [flip, cut])
def test_a_damaged_journal_gives_no_other_answers(tmp_path, damage, caplog):
    answers = {f"k{n}": Answer(f"k{n}", [f"text {n}"], [n / 7], n / 3) for n in range(9)}
    for turn in range(40):
        journal, rng = Journal(tmp_path / str(turn), {"manifest": "a"}), random.Random(turn)
        journal.add(0, [answers.values()])
        damage(tmp_path / f"{turn}_partial.0.jsonl", rng)
        caplog.clear()
        left = Journal(tmp_path / str(turn), {"manifest": "a"}).answers()
        assert left.items() <= answers.items()
        assert len(left) == len(answers) or caplog.text or damage is cut
    assert len(answers) == 9


def test_what_a_killed_process_left_half_written_goes_at_the_next_start(tmp_path):
    dead, ended = 2**22 + 1, subprocess.Popen(["true"])
    if Path("/proc/self").exists():  # elsewhere it counts as alive until somebody has asked
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    else:
        ended.wait()
    ours, below, living, elsewhere, beside = (
        tmp_path / folder / f"{TEMPORARY}{process}@{host}@{name}"
        for folder, process, host, name in (
            (".", ended.pid, HOST, "ours-x"),
            ("in", dead, HOST, "ours-x"),
            (".", os.getppid(), HOST, "ours-x"),
            (".", dead, "another", "ours-x"),
            (".", dead, HOST, "theirs-x"),
        )
    )
    (tmp_path / "in").mkdir()
    for path in (ours, below, living, elsewhere, beside):
        path.touch()
    with alone(tmp_path, prefix="ours"):
        assert not ours.exists() and below.exists() and beside.exists()
    with alone(tmp_path):
        assert not below.exists() and not beside.exists()
    assert living.exists() and elsewhere.exists()
    with atomic_path(tmp_path / "ours.wav") as path:
        assert path.match(f"{TEMPORARY}{os.getpid()}@{HOST}@ours-*.wav")
    assert ended.wait() == 0
