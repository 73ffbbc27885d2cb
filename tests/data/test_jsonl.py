"""The reader of JSON Lines: bad lines by the thousand, and lines of other projects' formats."""

import gzip
import json

import pytest

from slam_potsa.data.convert import FORMATS, convert
from slam_potsa.data.jsonl import MANY, Problems, read_log, read_rows, write_rows
from slam_potsa.data.manifest import TELLTALES, foreign_format, read_manifest
from slam_potsa.errors import InputError
from tests.support.foreign_formats import EXAMPLES, TRANSLATED, make_corpus
from tests.support.foreign_formats import write_rows as write_lines


def test_rows_are_numbered_and_other_lines_are_told_of_at_once(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": "x\xe2\x80\xa8y"}\r\n\n[1]\n{no\n{"b": null}')
    problems = Problems(path)
    assert read_rows(path, problems) == [(1, {"a": "x\u2028y"}), (5, {"b": None})]
    starts = [f"{path}:{n}: found {text}" for n, text in ((3, "'[1]', exp"), (4, "'{no', exp"))]
    with pytest.raises(InputError) as caught:
        problems.check()
    assert all(map(str.startswith, caught.value.problems, starts))
    packed = tmp_path / "m.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_rows(packed, Problems(packed)) == read_rows(path, problems)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"no gzip"])
def test_a_file_that_cannot_be_read_says_what_was_expected(tmp_path, content):
    path = tmp_path / ("a.gz" if content == b"no gzip" else "a.jsonl")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path}: .*expected JSON Lines"):
        read_rows(path, Problems(path))


def test_a_log_ends_where_a_crash_cut_it_off(tmp_path):
    write_rows(tmp_path / "log", [{"step": 1}, {"step": 2, "x": "\u2028"}])
    assert read_log(tmp_path / "log") == [{"step": 1}, {"step": 2, "x": "\u2028"}]
    for rest in ('{"step": 3, "x": "й"'.encode()[:-2], b'{"st\n{"step": 4}\n'):
        with (tmp_path / "log").open("ab") as file:
            file.write(rest)
        assert len(read_log(tmp_path / "log")) == 2


def test_missing_wrong_and_repeated_are_told_apart(tmp_path):
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s"}
    rows = [good] + [good] * 50 + [good | {"key": ""}] * 30 + [good | {"key": None}] * 10
    path = write_lines(tmp_path / "m.jsonl", rows)
    with path.open("a") as file:
        file.write("not json\n" * 7 + "[1]\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert len(rows) > MANY  # of fewer, each is told by itself: test_manifest.py
    starts = [
        ":2 (and 49 other lines): field 'key': found 'a', which line 1 has already",
        ":52 (and 29 other lines): field 'key': found ''",
        ":82 (and 9 other lines): field 'key': found nothing",
        ":92 (and 6 other lines): found 'not json', expected a JSON object",
        ":99: found '[1]', expected a JSON object",
    ]
    for problem, start in zip(caught.value.problems, starts, strict=True):
        assert problem.startswith(f"{path}{start}")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_project_is_named_whose_format_it_is(name, tmp_path):
    lines = EXAMPLES[name][0]
    assert {foreign_format(line) for line in lines} == {name}
    path = write_lines(tmp_path / "train.jsonl", lines * 1700)
    for read in (read_manifest, lambda path: convert(path, tmp_path / "out.jsonl")):
        with pytest.raises(InputError) as caught:
            read(path)
        hint, *others = caught.value.problems
        assert hint.startswith(f"{path}: these look like {name}'s fields: slam-potsa prepare conv")
        assert hint.endswith(f"--from {name}") and 0 < len(others) < 15
        assert len(str(caught.value)) < 4000


def test_cuts_of_lhotse_are_known_too(tmp_path):
    pytest.importorskip("lhotse")
    convert(make_corpus(tmp_path, TRANSLATED), tmp_path / "c.jsonl", output_format="lhotse")
    assert foreign_format(json.loads((tmp_path / "c.jsonl").read_text())) == "lhotse"


def test_telltales_are_of_formats_that_there_are_and_never_of_a_manifest():
    assert set(TELLTALES) < set(FORMATS)
    for row in ({"key": "a", "audio": "b", "target": "c", "source": "film"}, {}):
        assert foreign_format(row) is None
