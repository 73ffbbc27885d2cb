import json

import pytest

from slam_potsa.data.predictions import (
    Prediction,
    read_predictions,
    write_pred_gt,
    write_predictions,
)
from slam_potsa.errors import InputError

ONE = Prediction("a", "fr", "fr/a.flac", "en", "Good day.", "good\u2028day", 4, "Bonjour.")
TWO = Prediction("b", "it", "x.tar:b.flac", "en", None, "")


def test_predictions_survive_writing_and_reading(tmp_path):
    write_predictions(tmp_path / "p.jsonl", [ONE, TWO])
    assert read_predictions(tmp_path / "p.jsonl") == [ONE, TWO]
    first = (tmp_path / "p.jsonl").read_bytes()
    write_predictions(tmp_path / "p.jsonl", [ONE, TWO])
    assert (tmp_path / "p.jsonl").read_bytes() == first


def test_what_few_files_have_is_written_only_where_it_is(tmp_path):
    best = (("Good day.", -0.25), ("Good", -1))
    extra = {"key": "c", "heard": "Bonjour", "alternatives": best}
    many = Prediction(**vars(ONE) | extra)
    write_predictions(tmp_path / "p.jsonl", [ONE, many])
    assert read_predictions(tmp_path / "p.jsonl") == [ONE, many]
    first, second = (
        json.loads(line) for line in (tmp_path / "p.jsonl").read_text().split("\n")[:2]
    )
    assert not {"heard", "alternatives"} & set(first)
    assert second["alternatives"] == [["Good day.", -0.25], ["Good", -1]]


def test_every_bad_line_is_reported_at_once(tmp_path):
    good = {k: v for k, v in vars(ONE).items() if v is not None}
    rows = [good, good, good | {"key": "b", "beam": 0}, good | {"key": "c", "prediction": None}]
    rows += [good | {"key": "d", "hypothesis": "x"}, good | {"key": "e", "alternatives": [["x"]]}]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{not json")
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    words = ["which line 1 has already", "'beam': found 0", "'prediction': found nothing"]
    words += ["'hypothesis': not known", "'alternatives': found", "found '{not json'"]
    for number, (problem, word) in enumerate(zip(caught.value.problems, words, strict=True), 2):
        assert problem.startswith(f"{path}:{number}: ") and word in problem


def test_slam_llm_files_have_a_text_a_line(tmp_path):
    two_lines = Prediction(**vars(TWO) | {"prediction": "x\ny"})
    write_pred_gt(tmp_path / "log", [ONE, two_lines])
    assert (tmp_path / "log_pred").read_text("utf-8") == "a\tgood\u2028day\nb\tx y\n"
    assert (tmp_path / "log_gt").read_text("utf-8") == "a\tGood day.\nb\t\n"
