"""What files hold: hashed once, and told apart."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from slam_potsa.engine import contents
from slam_potsa.engine.contents import content_changes, content_hash, data_contents
from tests.support import tiny


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(contents, "_HASHED", {})


def test_the_hash_is_that_of_the_bytes_and_follows_them(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    assert content_hash(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))  # the same size: told by the time
    assert content_hash(path) == hashlib.sha256(b"two").hexdigest()
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]  # too small for a note


def test_a_large_file_is_read_once_over_processes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "WORTH_A_NOTE", 1)
    path = tmp_path / "model.pt"
    path.write_bytes(b"one")
    expected = content_hash(path)
    contents._HASHED.clear()  # another process
    with monkeypatch.context() as patch:
        patch.setattr(contents, "_hash", lambda *_: 1 / 0)
        assert content_hash(path) == expected
        assert content_hash(path) == expected
    path.write_bytes(b"three")
    assert content_hash(path) == hashlib.sha256(b"three").hexdigest()


@pytest.mark.parametrize("note", ["", "{}", "[]", json.dumps({"size": 3, "mtime_ns": 0})])
def test_a_note_of_another_file_or_form_does_not_count(tmp_path, monkeypatch, note):
    monkeypatch.setattr(contents, "WORTH_A_NOTE", 1)
    (tmp_path / "model.pt.sha256").write_text(note)
    (tmp_path / "model.pt").write_bytes(b"one")
    assert content_hash(tmp_path / "model.pt") == hashlib.sha256(b"one").hexdigest()


def test_data_is_told_apart_by_content_at_the_same_path(tmp_path):
    config = tiny.world(tmp_path)
    before = data_contents(config)
    assert list(before) == [config.dataset_config.train_data_path]  # validated on too
    with open(config.dataset_config.train_data_path, "a") as file:
        file.write("\n")
    now = data_contents(config)
    (change,) = content_changes(before, now)
    assert change.startswith(f"{config.dataset_config.train_data_path}: its content has changed")
    assert content_changes({"elsewhere.jsonl": "1"}, now) == []


def test_what_is_not_there_is_left_to_others(tmp_path):
    config = tiny.world(tmp_path)
    config.dataset_config.train_data_path = str(tmp_path / "none.jsonl")
    config.dataset_config.feature_store = str(tmp_path / "no-features")
    config.train_config.run_validation = False
    assert data_contents(config) == {}
