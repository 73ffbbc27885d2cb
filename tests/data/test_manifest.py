import json

import pytest

from slam_potsa.data import manifest
from slam_potsa.data.manifest import (
    Utterance,
    check_manifest,
    is_checked,
    jsonl,
    mark_checked,
    read_manifest,
    write_manifest,
)
from tests.support import refusal, refused


@pytest.fixture
def write(tmp_path):
    def make(*rows):
        path = tmp_path / "m.jsonl"
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return make


def row(key="a", **fields):
    return {"key": key, "audio": f"{key}.wav", "language": "en", "sentence_id": "s", **fields}


def test_round_trip_is_exact_and_deterministic(tmp_path, write):
    utterances = [
        Utterance("ru/1", "ru/1.flac", "ru", "one", "Раз?", "One.", "en", 1.25),
        Utterance("a\u2028b", "x.tar:b.wav", "en", "two"),
    ]
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    write_manifest(first, utterances)
    write_manifest(second, read_manifest(first))
    assert read_manifest(first) == utterances
    assert first.read_bytes() == second.read_bytes()
    assert "Раз?" in first.read_text("utf-8") and "null" not in first.read_text("utf-8")
    own = read_manifest(write(row(_speaker="x", target=None)))  # fields of the user, and nulls
    assert own == [Utterance("a", "a.wav", "en", "s")]


def test_every_bad_line_is_named_at_once(write, tmp_path):
    path = write(
        row("good", target="x"),
        "{not json",
        row("good", target="y"),
        row("b", language="English", target=3),
        row("c", duration=-1, target="x", targt="oops"),
        {"key": "d\te", "audio": "", "sentence_id": "s", "target": "t"},
        row("f", duration=float("nan"), target="two\nlines", audio="x.tar.gz:f.wav"),
        row("g"),
    )
    caught = refusal(read_manifest, path, needs=("target",))
    expected = [
        ":2: found '{not json', expected a JSON object",
        ":3: field 'key': found 'good', which line 1 has already",
        ":4: field 'language': found 'English', expected a language code such as 'en'",
        ":4: field 'target': found 3, expected the translation",
        ":5: field 'duration': found -1, expected seconds, a number above 0",
        ":5: field 'targt': not known",
        ":6: field 'key': found 'd\\te'",
        ":6: field 'audio': found ''",
        ":6: field 'language': found nothing",
        ":7: field 'audio': found 'x.tar.gz:f.wav', expected a path",
        ":7: field 'duration': found nan",
        ":7: field 'target': found 'two\\nlines'",
        ":8: field 'target': found nothing, expected the translation",
    ]
    for problem, start in zip(caught.problems, expected, strict=True):
        assert problem.startswith(f"{path}{start}")
    refused("found no utterance", read_manifest, write())
    refused("no such file; expected a manifest", read_manifest, tmp_path / "none.jsonl")


def test_a_manifest_is_read_once_until_it_changes(write, monkeypatch):
    path, reads, read = write(row("a", target="x")), [], jsonl.read_lines
    monkeypatch.setattr(jsonl, "read_lines", lambda *args: reads.append(args) or read(*args))
    first = read_manifest(path)
    assert read_manifest(str(path), needs=("target",)) == first and len(reads) == 1
    write(row("a", target="x"), row("b"))
    assert len(read_manifest(path)) == 2 and len(reads) == 2
    refused(":2: field 'target': found nothing", read_manifest, path, needs=("target",))


def test_many_lines_are_read_part_by_part(write, monkeypatch):
    monkeypatch.setattr(manifest, "AT_ONCE", 7)
    rows = [row(f"é{n}", sentence_id=f" s{n} ") for n in range(100)]
    rows[50] |= {"_note": [1]}  # a field of the user
    found = read_manifest(write(*rows))
    assert [u.key for u in found] == [r["key"] for r in rows]
    assert found[-1] == list(found)[-1] and found[-1].sentence_id == "s99" and len(found[:3]) == 3
    rows[60], rows[80] = row("a", duration=-1), row("é3")
    caught = refusal(read_manifest, write(*rows))
    assert [text.split(":")[1] for text in caught.problems] == ["61", "81"]


def test_nothing_is_written_that_could_not_be_read(tmp_path):
    bad = [Utterance("a", "a.wav", "English", "s"), Utterance("b", "b.wav", "en", "s")]
    bad.append(Utterance("b", "b.wav", "en", "s", duration=0.0))
    caught = refusal(write_manifest, tmp_path / "m.jsonl", bad)
    assert len(caught.problems) == 3
    assert "found 'b', which line 2 has already" in caught.problems[-1]
    assert list(tmp_path.iterdir()) == []


def test_check_counts_hours_and_sentences(write, recording):
    path = write(
        row("a", audio=recording("a.wav", 1.0), sentence_id="one"),
        row("b", audio=recording("b.flac", 2.0), sentence_id="one", language="fr", target="x<eos>"),
        row("c", audio=recording("c.wav", 0.6), sentence_id="two", language="fr", duration=0.9),
    )
    summary = check_manifest(path)
    assert summary.languages["fr"] == (2, pytest.approx(2.6), 2)
    duration, markup = summary.warnings
    assert duration == "key 'c': field 'duration' says 0.9 s, its recording 0.60 s"
    assert markup.startswith("1 rows have a target with what tokenizers may take for a token, such")
    _, _, french, every, *_ = summary.table().splitlines()
    assert french.split() == ["fr", "2", "0.00", "2"] and every.split() == ["all", "3", "0.00", "2"]
    declared = check_manifest(path, audio=False)
    assert declared.languages["fr"].seconds == 0.9 and "duration" in declared.warnings[0]
    text_alone = check_manifest(write(row("a", audio=None)))
    assert text_alone.table().splitlines()[1].split() == ["all", "0", "0.00", "0"]


def test_check_names_every_bad_recording_and_marks_a_manifest_without(write, tmp_path, recording):
    path, mark = write(row("a", audio=recording("a.wav"))), tmp_path / "m.jsonl.checked"
    check_manifest(path, audio=False)
    assert not is_checked(path) and not is_checked(tmp_path / "none.jsonl")
    mark.mkdir()  # where none can be written: a rename onto a folder fails, for root too
    check_manifest(path)
    assert not is_checked(path)
    mark.rmdir()
    check_manifest(path)
    assert is_checked(path)
    (tmp_path / "empty.wav").touch()
    bad = {"empty.wav": "is empty", "missing.wav": "no such file"}
    bad[recording("long.wav", 30.5)] = "30.50 s long, expected 30 s or less"
    bad[recording("part.wav", 3.0)] = "3.00 s long, 'duration' says 1 s: no part"
    write(*(row(name, audio=name, duration=1) for name in ["a.wav", *bad]))
    caught = refusal(check_manifest, path)
    for (name, word), problem in zip(bad.items(), caught.problems, strict=True):
        assert f"{path}: key '{name}'" in problem and word in problem
    assert not is_checked(path)
    mark_checked(path)  # by who knows
    assert is_checked(path)
    check_manifest(path, again=False)
