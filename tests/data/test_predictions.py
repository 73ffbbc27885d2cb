import json

from slam_potsa.data.predictions import (
    Prediction,
    read_predictions,
    write_pred_gt,
    write_predictions,
)
from tests.support import refusal

ONE = Prediction("a", "fr", "fr/a.flac", "en", "Good day.", "good\u2028day", 4, "Bonjour.")
TWO = Prediction("b", "it", "x.tar:b.flac", "en", None, "")
HEARD = {"heard": "Bonjour", "alternatives": (("Good day.", -0.25), ("Good", -1))}


def test_predictions_survive_writing_and_slam_llms_files_have_a_text_a_line(tmp_path):
    path, every = tmp_path / "p.jsonl", [ONE, TWO, Prediction(**vars(ONE) | HEARD | {"key": "c"})]
    write_predictions(path, every)
    first = path.read_bytes()
    assert read_predictions(path) == every
    write_predictions(path, read_predictions(path))
    assert path.read_bytes() == first
    assert first.count(b'"heard"') == first.count(b'"alternatives"') == 1  # only where they are
    foreign = [Prediction(**vars(ONE) | {"sentence_id": "cafe\u0301 "})]  # é as two characters
    write_predictions(path, foreign)
    assert read_predictions(path)[0].sentence_id == "caf\u00e9"  # as a manifest's
    write_pred_gt(tmp_path / "log", [ONE, Prediction(**vars(TWO) | {"prediction": "x\ny"})])
    assert (tmp_path / "log_pred").read_text("utf-8") == "a\tgood\u2028day\nb\tx y\n"
    assert (tmp_path / "log_gt").read_text("utf-8") == "a\tGood day.\nb\t\n"


def test_every_bad_line_is_reported_at_once(tmp_path):
    good = {k: v for k, v in vars(ONE).items() if v is not None}
    rows = [good, good, good | {"key": "b", "beam": 0}, good | {"key": "c", "prediction": None}]
    rows += [good | {"key": "d", "hypothesis": "x"}, good | {"key": "e", "alternatives": [["x"]]}]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{not json")
    caught = refusal(read_predictions, path)
    words = ["which line 1 has already", "'beam': found 0", "'prediction': found nothing"]
    words += ["'hypothesis': not known", "'alternatives': found", "found '{not json'"]
    for number, (problem, word) in enumerate(zip(caught.problems, words, strict=True), 2):
        assert problem.startswith(f"{path}:{number}: ") and word in problem
