"""Bad lines by the thousand, and lines of other projects' formats."""

import json

import pytest

from slam_potsa.data.convert import FORMATS, convert
from slam_potsa.data.line_problems import MANY, TELLTALES, foreign_format, grouped
from slam_potsa.data.manifest import read_manifest
from slam_potsa.errors import InputError
from tests.support.foreign_formats import EXAMPLES, TRANSLATED, make_corpus, write_rows


def test_few_problems_are_listed_and_many_are_grouped():
    problems = [(n, "field 'key': found nothing, expected a unique string") for n in range(1, 21)]
    assert len(problems) == MANY == len(grouped("m", problems))
    problems += [(n, f"field 'duration': found -{n}, expected seconds") for n in range(21, 23)]
    assert grouped("m", [*problems, (40, "field 'x': not known, expected one of key")]) == [
        "m:1 (and 19 other lines): field 'key': found nothing, expected a unique string",
        "m:21 (and 1 other line): field 'duration': found -21, expected seconds",
        "m:40: field 'x': not known, expected one of key",
    ]


def test_missing_wrong_and_repeated_are_told_apart(tmp_path):
    good = {"key": "a", "audio": "a.wav", "language": "fr", "sentence_id": "s"}
    lines = [good | {"key": f"k{n}", "target": n} for n in range(100)]
    lines += [good] + [good] * 50
    lines += [good | {"key": ""}] * 30
    lines += [{name: value for name, value in good.items() if name != "key"}] * 10
    path = write_rows(tmp_path / "m.jsonl", lines)
    with path.open("a") as file:
        file.write("not json\n" * 7 + "[1]\n")
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    starts = [
        ":1 (and 99 other lines): field 'target': found 0",
        ":102 (and 49 other lines): field 'key': found 'a', which line 101 has already",
        ":152 (and 29 other lines): field 'key': found ''",
        ":182 (and 9 other lines): field 'key': found nothing",
        ":192 (and 6 other lines): found 'not json', expected a JSON object",
        ":199: found '[1]', expected a JSON object such as",
    ]
    assert [
        problem.startswith(f"{path}{start}")
        for problem, start in zip(caught.value.problems, starts, strict=True)
    ] == [True] * len(starts)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_project_is_named_whose_format_it_is(name, tmp_path):
    lines = EXAMPLES[name][0]
    assert {foreign_format(line) for line in lines} == {name}
    path = write_rows(tmp_path / "train.jsonl", lines * 1700)
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
    for row in ({"key": "a", "audio": "b", "target": "c", "source": "film"}, {}, [1], "x"):
        assert foreign_format(row) is None


def test_converting_from_a_wrong_format_is_no_flood_either(tmp_path):
    path = write_rows(tmp_path / "s.jsonl", EXAMPLES["nemo"][0] * 500)
    with pytest.raises(InputError) as caught:
        convert(path, tmp_path / "out.jsonl", source_format="cot_st")
    assert len(caught.value.problems) == 3  # audio, prompt, gt
    assert all(":1 (and 999 other lines): field" in text for text in caught.value.problems)
