"""Mutated inputs: an InputError with a message, or a good value, never a traceback."""

import copy
import dataclasses
import faulthandler
import json
import math
import random
import re
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.data.audio import load_audio
from slam_potsa.data.convert import convert
from slam_potsa.data.feature_store import FeatureStore, add_features
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.engine import share
from slam_potsa.engine.decode_processes import Answer, Journal
from slam_potsa.engine.recipe import load_recipe
from slam_potsa.engine.run_directory import read_config, write_config
from slam_potsa.errors import InputError
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.objective.layer_schedule import LayerSchedule
from slam_potsa.provenance import content_hash, why_outdated, write_record
from tests.support import tiny_recipe
from tests.support.foreign_formats import EXAMPLES
from tests.support.predictions import make

pytestmark = pytest.mark.reliability
# A fixed sample in every `make test`; the whole of it is slow.
TURNS = [pytest.param(300, id="sample"), pytest.param(20_000, marks=pytest.mark.slow, id="all")]

SECONDS, MEMORY = 20, 1 << 30  # of one case at most


@pytest.fixture(autouse=True)
def bounded():
    """Beyond MEMORY, allocations fail; see `cases` for SECONDS."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    used = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]
    resource.setrlimit(resource.RLIMIT_DATA, (int(used) * 1024 + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


def cases(count: int) -> Iterator[int]:
    """Numbers; one that does not come to its end ends the process with its traceback."""
    for number in range(count):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        yield number
    faulthandler.cancel_dump_traceback_later()


VALUES = [None, True, 0, -1, 10**30, 10**400, 1e308, math.inf, math.nan, "", " ", "a\x00", "\ud83d"]
VALUES += ["x" * 5000, "../" * 2000, "a\tb", "é", "\u202e", [], {}, [1], {"a": 1}, [[]] * 3, "fr"]
VALUES += [json.loads("[" * 40 + "]" * 40), "a.tar:b", "a.tar.gz:b", "/dev/zero", "\x85", "1e400"]


def mutated(value, rng):
    """`value` with one thing changed: a leaf, a field more or less, a part repeated."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                return {k: v for k, v in value.items() if k != name}
            case 1:
                return value | {rng.choice(["x", "_x", "", "audio", "\ud83d"]): rng.choice(VALUES)}
            case _:
                return value | {name: mutated(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return value[:place] + [mutated(value[place], rng)] * rng.choice([1, 1, 1, 2, 0])
    return copy.deepcopy(rng.choice(VALUES))


def garbled(line: bytes, rng) -> bytes:
    """The bytes of a line, some of them changed."""
    content = bytearray(line)
    for _ in range(rng.choice([0, 0, 1, 3])):
        place = rng.randrange(len(content) + 1)
        content[place : place + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
    return bytes(content)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("kind", ["manifest", "predictions", *EXAMPLES])
def test_lines(tmp_path, kind, turns):
    rng, path = random.Random(kind), tmp_path / "in.jsonl"
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s", "target": "b"}
    good |= {"target_language": "en", "duration": 1.5, "transcript": "c"}
    lines = {"manifest": [good], "predictions": [vars(make(count=1)[0])]}
    lines |= {name: own for name, (own, *_) in EXAMPLES.items()}
    fill = {"language": "fr", "target_language": "en", "sentence_id": "audio"}
    read = {"manifest": read_manifest, "predictions": read_predictions}.get(kind)
    taken = 0
    for _ in cases(turns // 4):
        row = rng.choice(lines[kind])
        for _ in range(rng.choice([1, 1, 2])):
            row = mutated(row, rng)
        line = json.dumps(row, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
        path.write_bytes(garbled(line, rng))
        try:
            if read is None:
                convert(path, tmp_path / "out.jsonl", source_format=kind, **fill)
                found = read_manifest(tmp_path / "out.jsonl")
            else:
                found = read(path)
        except InputError as error:
            str(error).encode("utf-8", "backslashreplace")
            continue
        taken += len(found)
        if kind != "predictions":
            assert all(isinstance(u, Utterance) and math.isfinite(u.duration or 1) for u in found)
            write_manifest(tmp_path / "again.jsonl", found)  # nothing that could not be written
    assert taken or turns < 1000


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.au"])
def test_recordings(tmp_path, name, turns):
    rng, path = random.Random(name), tmp_path / name
    tone = 0.3 * np.sin(np.arange(24_000) / 7)
    soundfile.write(path, tone, 16_000, "PCM_16" if name[2:] in ("wav", "aiff", "au") else None)
    whole = path.read_bytes()
    for _ in cases(turns // 10):
        content = bytearray(whole[: rng.choice([len(whole)] * 3 + [rng.randrange(len(whole))])])
        for _ in range(rng.choice([1, 1, 4])):
            place = rng.randrange(min(len(content), rng.choice([64, 10**9])) or 1)
            content[place : place + 1] = rng.randbytes(rng.choice([1, 1, 4]))
        path.write_bytes(content)
        try:
            found = load_audio(name, tmp_path)
        except InputError:
            continue
        assert found.dtype == np.float32 and np.isfinite(found).all() and len(found) >= 160


@pytest.mark.parametrize("turns", TURNS)
def test_states_of_the_schedule(turns):
    rng = random.Random(0)
    fresh = partial(LayerSchedule, "ucb", candidates=(1, 2, 3))
    before = fresh()
    for step in range(9):
        choice, _ = before.choose()
        if step < 7:
            before.observe(choice, 2.0 / (step + 1))
    saved = before.state_dict()
    for _ in cases(turns):
        state, schedule = mutated(saved, rng), fresh()
        untouched = schedule.state_dict()
        try:
            schedule.load_state_dict(state)
        except ValueError:
            assert schedule.state_dict() == untouched
            continue
        schedule.observe(*(schedule.choose()[0], 1.0))
        json.dumps(schedule.state_dict(), allow_nan=False)
        assert all(0 <= p <= 1 for p in schedule.probabilities().values())


@pytest.mark.parametrize("turns", TURNS)
def test_states_of_the_biases(turns):
    rng = random.Random(0)
    biases = {"en": torch.ones(4), "ru": torch.zeros(4)}
    saved = LanguageBias(biases, {"en": 3, "ru": 4}, fingerprint="f")._serialize()
    for _ in cases(turns):
        payload = garbled(saved, rng)
        module = LanguageBias(biases)
        module.carried.write(payload)
        other, untouched = LanguageBias(biases), module._serialize()
        try:
            other.load_state_dict(module.state_dict())
        except InputError:
            assert other._serialize() == untouched
            continue
        assert bool(torch.isfinite(other.table).all())
        assert other.table.shape == (len(other.ids) + 1, 4)


@pytest.mark.parametrize("turns", TURNS)
def test_configurations(turns):
    rng = random.Random(0)
    good = dataclasses.asdict(PotsaConfig())
    for _ in cases(turns // 3):
        try:
            check(defaults(PotsaConfig, mutated(copy.deepcopy(good), rng)))
        except InputError as error:
            assert str(error)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Files of ours by kind, in a folder each, and how they are read: none with a seal."""
    folder = tmp_path_factory.mktemp("written")
    tiny_recipe.write(folder)
    config = tiny_recipe.parts(folder / "world")
    config.train_config.output_dir = str(folder)
    write_config(config)
    options = dataclasses.asdict(PotsaConfig())
    about = {"format": share.FORMAT, "languages": {"spoken": ["en"], "written": []}}
    content_hash_of = {"sha256": content_hash(folder / "recipe.yaml"), "options": options}
    (folder / share.CONFIG).write_text(json.dumps(about | content_hash_of))
    (folder / share.SHARED).write_bytes((folder / "recipe.yaml").read_bytes())
    add_features(folder, "f", 4, [("a", np.ones((2, 4)))])
    (folder / "index.json.record").unlink()
    Journal(folder / "j", {"a": 1}).add(0, [[Answer("k", ["text"], [0.5], 1.5)]])
    write_record(folder / "r", {"a": [1, "b"]}, [folder / "recipe.yaml"])
    return folder


READ = {
    "config.yaml": lambda path: check(read_config(path.parent)),
    "recipe.yaml": lambda path: load_recipe(str(path), []),
    share.CONFIG: lambda path: share.load_shared(path.parent),
    "index.json": lambda path: FeatureStore.open(path.parent)["a"],
    "j_partial.0.jsonl": lambda path: Journal(path.parent / "j", {"a": 1}).answers(),
    "r": lambda path: why_outdated(path, {"a": [1, "b"]}),
}


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("name", READ)
def test_files_of_ours(written, tmp_path, name, turns):
    rng, whole = random.Random(name), (written / name).read_bytes()
    for other in written.iterdir():
        if other.is_file():
            (tmp_path / other.name).write_bytes(other.read_bytes())
    good = yaml.safe_load(whole) if name.endswith((".yaml", "json", "r")) else None
    for number in cases(turns // (150 if name == "recipe.yaml" else 10)):
        content = json.dumps(mutated(good, rng)).encode() if good and number % 2 else whole
        (tmp_path / name).write_bytes(garbled(content, rng))
        try:
            READ[name](tmp_path / name)
        except InputError as error:
            assert str(error)
