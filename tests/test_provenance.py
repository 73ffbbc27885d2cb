import os

import pytest

from slam_potsa.provenance import differences, fingerprint, read_record, why_outdated, write_record

MADE_FROM = {"manifest": "9f86", "beams": (4, 1)}


@pytest.fixture
def record(tmp_path, monkeypatch):
    (tmp_path / "answers.txt").write_text("Hello.")
    monkeypatch.setattr("sys.argv", ["decode", "it"])
    write_record(tmp_path / "made.json", MADE_FROM, [tmp_path / "answers.txt"])
    return tmp_path / "made.json"


def test_what_was_written_is_up_to_date_until_a_value_differs(record):
    assert why_outdated(record, MADE_FROM) == []
    assert read_record(record).argv == ["decode", "it"]
    (reason,) = why_outdated(record, MADE_FROM | {"manifest": "0000"})
    assert "manifest" in reason and "9f86" in reason and "0000" in reason
    assert len(why_outdated(record, {})) == 2
    answers = record.with_name("answers.txt")
    answers.write_text("Hallo.")  # of the same size
    os.utime(answers, ns=(1, 1))
    assert "answers.txt" in why_outdated(record, MADE_FROM)[0]
    other, before = record.with_name("others.txt"), answers.stat()
    other.write_text("Hello.")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(other, answers)  # of the same size and time, and what was written
    assert why_outdated(record, MADE_FROM) == []
    answers.unlink()
    assert "answers.txt" in why_outdated(record, MADE_FROM)[0]
    assert fingerprint(a=1, b=[2]) == fingerprint(b=[2], a=1) != fingerprint(a=1, b=[3])
    assert differences({"a": 1}, {"a": 1, "b": None}) == []


@pytest.mark.parametrize("content", [None, "", "[]", '{"other": 1}', "\x00"])
def test_what_is_no_record_says_nothing(tmp_path, content):
    path = tmp_path / "made.json"
    if content is not None:
        path.write_text(content)
    assert read_record(path) is None
    assert "made.json" in why_outdated(path, {})[0]
