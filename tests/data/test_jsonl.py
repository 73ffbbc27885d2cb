import gzip
import json
import os

import pytest

from slam_potsa.data.convert import convert
from slam_potsa.data.jsonl import LONGEST, MANY, Problems, read_log, read_rows, write_rows
from slam_potsa.data.manifest import foreign_format, read_manifest
from tests.support import refusal, refused
from tests.support.foreign_formats import EXAMPLES


def test_rows_are_numbered_and_other_lines_are_told_of_at_once(tmp_path):
    path = tmp_path / "m.jsonl"
    content = b'\xef\xbb\xbf{"a": "x\xe2\x80\xa8y"}\r\n\n[1]\n{no\n{"b": null}\n{"c": "caf\xe9"}\n'
    path.write_bytes(content + b"[" * 2 * LONGEST + b"\nno")
    problems = Problems(path)
    assert list(read_rows(path, problems)) == [(1, {"a": "x\u2028y"}), (5, {"b": None})]
    bad = {3: "found '[1]', exp", 4: "found '{no', exp", 6: "not UTF-8: found byte 0xe9 at 10"}
    bad |= {7: "found over 16 MiB", 8: "found 'no'"}
    starts = [f"{path}:{number}: {text}" for number, text in bad.items()]
    assert all(map(str.startswith, problems.texts(), starts)) and len(problems.found) == len(starts)
    packed = tmp_path / "m.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert [*read_rows(packed, Problems(packed))] == [*read_rows(path, problems)]
    (tmp_path / "a.gz").write_bytes(b"no gzip")
    for name in ("none.jsonl", "a.gz"):
        refused(f"{name}: .*expected JSON Lines", list, read_rows(tmp_path / name, Problems(name)))


def test_what_json_allows_and_no_reader_survives_is_a_bad_line(tmp_path):
    path, bad = tmp_path / "m.jsonl", ["[" * 10**5, '{"a": ' + "9" * 5000 + "}"]
    bad += ['{"a": 1, "a": 2}', '{"a": ' + '{"b":' * 10**5 + "1" + "}" * 10**5 + "}", '{"\x00": 1}']
    path.write_text("\n".join(bad) + "\n")
    problems = Problems(path)
    assert not list(read_rows(path, problems)) and len(problems.texts()) == len(bad)
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s"}
    wrong = [
        ("key", "a\x00"),
        ("transcript", "\ud83d"),
        ("audio", "a" * 256),
        ("duration", 10**400),
    ]
    lines = [json.dumps(good | {"key": f"k{n}", f: v}) for n, (f, v) in enumerate(wrong)]
    path.write_text("\n".join([*lines, json.dumps(good)[:-1] + ', "duration": 1e400}']))
    caught = refusal(read_manifest, path)
    for problem, name in zip(caught.problems, [*dict(wrong), "duration"], strict=True):
        assert f"field '{name}'" in problem
    os.mkfifo(tmp_path / "pipe.jsonl")
    refused("a pipe or a device", read_manifest, tmp_path / "pipe.jsonl")


def test_a_log_ends_where_a_crash_cut_it_off(tmp_path):
    write_rows(tmp_path / "log", [{"step": 1}, {"step": 2, "x": "\u2028"}])
    assert read_log(tmp_path / "log") == [{"step": 1}, {"step": 2, "x": "\u2028"}]
    for rest in ('{"step": 3, "x": "й"'.encode()[:-2], b'{"st\n{"step": 4}\n'):
        with (tmp_path / "log").open("ab") as file:
            file.write(rest)
        assert len(read_log(tmp_path / "log")) == 2


def test_of_many_problems_those_of_one_kind_are_told_once(tmp_path):
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s"}
    rows = [good] + [good] * 50 + [good | {"key": ""}] * 30 + [good | {"key": None}] * 10
    assert len(rows) > MANY  # of fewer, each is told by itself: test_manifest.py
    path = tmp_path / "m.jsonl"
    write_rows(path, rows)
    path.write_text(path.read_text() + "not json\n" * 7 + "[1]\n")
    starts = [
        ":2 (and 49 other lines): field 'key': found 'a', which line 1 has already",
        ":52 (and 29 other lines): field 'key': found ''",
        ":82 (and 9 other lines): field 'key': found nothing",
        ":92 (and 6 other lines): found 'not json', expected a JSON object",
        ":99: found '[1]', expected a JSON object",
    ]
    caught = refusal(read_manifest, path)
    for problem, start in zip(caught.problems, starts, strict=True):
        assert problem.startswith(f"{path}{start}")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_project_is_named_whose_format_it_is(name, tmp_path):
    path, lines = tmp_path / "train.jsonl", EXAMPLES[name][0]
    assert {foreign_format(line) for line in lines} == {name}
    write_rows(path, lines * 1700)
    for read in (read_manifest, lambda path: convert(path, tmp_path / "out.jsonl")):
        caught = refused(f"{name}'s fields: .*--from {name}", read, path)
        assert 0 < len(caught.problems) - 1 < 15 and len(str(caught)) < 4000
    for row in ({"key": "a", "audio": "b", "target": "c", "source": "film"}, {}):
        assert foreign_format(row) is None
