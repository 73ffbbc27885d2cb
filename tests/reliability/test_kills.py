"""SIGKILL at random moments, and before each of Python's file operations: what was going on goes
on, to the same numbers, and leaves nothing."""

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from slam_potsa.commands.prepare import make
from slam_potsa.config import PotsaConfig
from slam_potsa.data.jsonl import read_log
from slam_potsa.engine import native
from slam_potsa.engine.decode import decode_to, load_run
from slam_potsa.engine.encode import store_features
from slam_potsa.engine.prepare import is_main_process
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.files import TEMPORARY
from slam_potsa.files import alone as hold
from slam_potsa.model.checkpoint import read_checkpoint
from slam_potsa.model.encoder import load_encoder
from tests.support import mini_fleurs, tiny_recipe
from tests.support.torchrun import IMPORTED_ONCE, in_two_processes

pytestmark = pytest.mark.reliability
TIMES = ("seconds", "tokens_per_second")


def training(config: PotsaConfig, out: Path) -> None:
    config.train_config.output_dir = str(out)
    with hold(out) if is_main_process() else nullcontext():  # as the command does
        native.finetune(config)


def a_rank(rank: int, config: PotsaConfig, out: Path) -> None:
    watch_writes(out, rank)
    training(config, out)


def training_in_two_processes(config: PotsaConfig, out: Path) -> None:
    in_two_processes(a_rank, config, out, method="fork")  # forked itself, and without threads


def decoding(config: PotsaConfig, out: Path) -> None:
    run = load_run(config.train_config.output_dir)
    run.train_config.val_batch_size = 2
    decode_to(out / "test", run, config.dataset_config.train_data_path)


def features(config: PotsaConfig, out: Path) -> None:
    encoder = load_encoder(config.model_config.encoder_path_hf, "trimmed")
    store_features(encoder, [config.dataset_config.train_data_path], out, progress=False)


def preparing(config: PotsaConfig, out: Path) -> None:
    tree = Path(config.train_config.output_dir).parent / "fleurs"
    make("fleurs", out, source=tree, **mini_fleurs.CHOICE)


def a_recipe(config: PotsaConfig, out: Path) -> None:
    recipe = Path(config.train_config.output_dir).parent / "recipe.yaml"
    tiny_recipe.train(load_recipe(str(recipe), [f"output_dir={out}"]))


JOBS = (training, decoding, features, preparing, a_recipe, training_in_two_processes)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> PotsaConfig:
    """A trained model and its recordings, a corpus as published, and a recipe."""
    multiprocessing.set_forkserver_preload(IMPORTED_ONCE)
    imports = multiprocessing.get_context("forkserver").Process(target=int)
    imports.start()
    folder = tmp_path_factory.mktemp("kills")
    tiny_recipe.write(folder)
    mini_fleurs.build_tree(folder / "fleurs", mini_fleurs.world())
    config = tiny_recipe.parts(folder / "world")
    config.train_config.output_dir = str(folder / "trained")
    native.finetune(deepcopy(config))
    imports.join()
    return config


def contents(out: Path) -> dict[str, object]:
    """What a job made, by file: weights, lines of metrics, texts and bytes; None of other files."""
    found: dict[str, object] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = str(path.relative_to(out))
        assert TEMPORARY not in name and "partial" not in name, f"{name} was left behind"
        if path.name == "model.pt":
            state = read_checkpoint(path)  # carried states hold sums of losses: rounding
            found[name] = {k: v for k, v in state.items() if not k.endswith("as_parameter")}
        elif path.name == "metrics.jsonl":
            found[name] = [
                {k: v for k, v in line.items() if k not in TIMES} for line in read_log(path)
            ]
        elif path.suffix in (".wav", ".bin", ".safetensors", ".jsonl"):
            found[name] = path.read_bytes()
        else:
            found[name] = None
    return found


def assert_same(ours: dict[str, object], theirs: dict[str, object]) -> None:
    """Bytes exactly; numbers up to sums whose order follows the alignment of memory."""
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        if isinstance(expected, bytes | None):
            assert ours[name] == expected, name
        elif isinstance(expected, dict):
            torch.testing.assert_close(
                ours[name], expected, atol=1e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
            )
        else:
            for line, other in zip(ours[name], expected, strict=True):
                numbers = {k: v for k, v in other.items() if isinstance(v, float)}
                assert {k: line[k] for k in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-4)
                assert line.keys() == other.keys() and line["layers"] == other["layers"]


def alone(job: Callable, config: PotsaConfig, out: Path, log: Path) -> None:
    """In the process that is killed: one thread, what it says in a file."""
    torch.set_num_threads(1)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.setpgrp()
    if job is not training_in_two_processes:  # whose ranks write
        watch_writes(out, 0)
    job(config, out)


def watch_writes(out: Path, rank: int) -> None:
    """Below `out`, before each opening to write, renaming, removal and new folder: a dot in
    OUT.writes-RANK, or SIGKILL where OUT.kill names this rank and that number of dots.

    Python tells of its own operations only: what torch.save and libsndfile open by themselves is
    killed at random moments."""
    kill = out.with_suffix(".kill")
    chosen = [int(number) for number in kill.read_text().split()] if kill.exists() else []
    dots = os.open(f"{out}.writes-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    done = 0

    def before(event: str, arguments: tuple) -> None:
        nonlocal done
        if event == "open":
            path, _, flags = arguments
            within = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) and is_below(path)
        elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
            # A tree is removed from within its folders, by names relative to them.
            within = is_below(arguments[0]) or arguments[-1] not in (-1, None)
        else:
            return
        if within and chosen == [rank, done]:
            os.killpg(0, signal.SIGKILL)
        if within:
            done += os.write(dots, b".")

    def is_below(path: object) -> bool:
        return isinstance(path, (str, Path)) and os.fspath(path).startswith(f"{out}/")

    sys.addaudithook(before)


def until_done(
    job: Callable, config: PotsaConfig, out: Path, rng: random.Random, most: int = 0
) -> int:
    """Start a job again and again until it ends, killed `most` times at most, or by `watch_writes`,
    once. How many times."""
    context = multiprocessing.get_context("forkserver")
    kills, log = 0, out.with_suffix(".log")
    while True:
        process = context.Process(target=alone, args=(job, config, out, log))
        process.start()
        process.join(rng.uniform(0, DURATION[job]) if kills < most else None)
        if process.exitcode is None:
            time.sleep(0.01)
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has not its own group yet
                process.kill()
            process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0, log.read_text()[-4000:]
            return kills
        kills += 1
        out.with_suffix(".kill").unlink(missing_ok=True)


DURATION: dict[Callable, float] = {}


@pytest.mark.parametrize(
    ("job", "kills"),
    [*((job, 1) for job in JOBS[:3]), *(pytest.param(j, 40, marks=pytest.mark.slow) for j in JOBS)],
)
def test_a_killed_job_goes_on_to_the_same_numbers(job, kills, world, tmp_path):
    begun, rng, count, turn = time.perf_counter(), random.Random(0), 0, 0
    until_done(job, world, tmp_path / "whole", rng)
    DURATION[job] = time.perf_counter() - begun
    assert (expected := contents(tmp_path / "whole"))
    while count < kills:
        out = tmp_path / str(turn)
        count, turn = count + until_done(job, world, out, rng, kills - count), turn + 1
        assert_same(contents(out), expected)


@pytest.mark.parametrize(
    ("job", "every"),
    [
        (preparing, 9),
        *(pytest.param(job, 1, marks=pytest.mark.slow) for job in JOBS),
    ],
)
def test_a_job_killed_at_a_write_goes_on_to_the_same_numbers(job, every, world, tmp_path):
    until_done(job, world, tmp_path / "whole", rng := random.Random(0))
    expected = contents(tmp_path / "whole")
    writes = [
        (int(dots.name[-1]), number)
        for dots in sorted(tmp_path.glob("whole.writes-*"))
        for number in range(dots.stat().st_size)
    ]
    print(f"{job.__name__}: {len(writes)} writes")
    wrong, killed = {}, {}
    for rank, number in writes[::every]:
        out = tmp_path / f"{rank}-{number}"
        out.with_suffix(".kill").write_text(f"{rank} {number}")
        try:
            killed[rank] = killed.get(rank, 0) + until_done(job, world, out, rng)
            assert_same(contents(out), expected)
        except AssertionError as error:
            wrong[out.name] = str(error)[-600:]
    assert not wrong
    # Of two ranks the second may find done what it did the time before.
    assert killed.pop(0) == len([rank for rank, _ in writes[::every] if rank == 0])
    assert all(killed.values())
