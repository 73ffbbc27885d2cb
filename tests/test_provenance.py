"""One record, one comparison that says what differs."""

from __future__ import annotations

import os

import pytest

from slam_potsa.provenance import (
    content_hash,
    differences,
    fingerprint,
    read_record,
    why_outdated,
    write_record,
)


@pytest.fixture
def result(tmp_path):
    (tmp_path / "answers.txt").write_text("Hello.")
    made_from = {"manifest": "9f86", "beams": (4, 1)}
    write_record(tmp_path / "made.json", made_from, [tmp_path / "answers.txt"], ["decode", "it"])
    return tmp_path, made_from


def test_what_was_written_is_up_to_date_and_knows_its_command(result):
    folder, made_from = result
    assert why_outdated(folder / "made.json", made_from) == []
    assert read_record(folder / "made.json").argv == ["decode", "it"]


def test_every_difference_is_named(result):
    folder, made_from = result
    (reason,) = why_outdated(folder / "made.json", made_from | {"manifest": "0000"})
    assert "manifest" in reason and "9f86" in reason and "0000" in reason
    assert len(why_outdated(folder / "made.json", {})) == 2


@pytest.mark.parametrize("harm", ["delete", "change", "same size"])
def test_files_are_told_by_their_content(result, harm):
    folder, made_from = result
    path = folder / "answers.txt"
    if harm == "delete":
        path.unlink()
    else:
        path.write_text("Hello, you." if harm == "change" else "Hallo.")
        os.utime(path, ns=(1, 1))
    assert "answers.txt" in why_outdated(folder / "made.json", made_from)[0]


@pytest.mark.parametrize("content", [None, "", "[]", '{"other": 1}', "\x00"])
def test_what_is_no_record_says_nothing(tmp_path, content):
    path = tmp_path / "made.json"
    if content is not None:
        path.write_text(content)
    assert read_record(path) is None
    assert "made.json" in why_outdated(path, {})[0]


def test_hashes_are_of_content(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    (tmp_path / "b").write_bytes(b"same")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    assert fingerprint(a=1, b=[2]) == fingerprint(b=[2], a=1) != fingerprint(a=1, b=[3])
    assert differences({"a": 1}, {"a": 1, "b": None}) == []
