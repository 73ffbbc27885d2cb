"""Mutated inputs: an InputError with a message, or a good value, never a traceback."""

import copy
import dataclasses
import json
import math
import random
from functools import partial

import numpy as np
import pytest
import soundfile
import torch

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.data.audio import load_audio
from slam_potsa.data.convert import READERS, convert
from slam_potsa.data.manifest import Utterance, read_manifest, write_manifest
from slam_potsa.data.predictions import read_predictions
from slam_potsa.errors import InputError
from slam_potsa.model.language_bias import LanguageBias
from slam_potsa.objective.layer_schedule import LayerSchedule
from tests.support.foreign_formats import EXAMPLES
from tests.support.predictions import make

pytestmark = pytest.mark.reliability
# A fixed sample in every `make test`; the whole of it is slow.
TURNS = [pytest.param(300, id="sample"), pytest.param(20_000, marks=pytest.mark.slow, id="all")]

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
@pytest.mark.parametrize("kind", ["manifest", "predictions", *READERS])
def test_lines(tmp_path, kind, turns):
    rng, path = random.Random(kind), tmp_path / "in.jsonl"
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s", "target": "b"}
    good |= {"target_language": "en", "duration": 1.5, "transcript": "c"}
    rows = {"manifest": [good], "predictions": [vars(make(count=1)[0])]}
    rows |= {name: lines for name, (lines, *_) in EXAMPLES.items()}
    fill = {"language": "fr", "target_language": "en", "sentence_id": "audio"}
    read = {"manifest": read_manifest, "predictions": read_predictions}.get(kind)
    taken = 0
    for _ in range(turns // 4):
        row = rng.choice(rows[kind])
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
    for _ in range(turns // 10):
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
    for _ in range(turns):
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
    for _ in range(turns):
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
    for _ in range(turns // 3):
        try:
            check(defaults(PotsaConfig, mutated(copy.deepcopy(good), rng)))
        except InputError as error:
            assert str(error)
