import json
from types import SimpleNamespace

import pytest

from slam_potsa.data.predictions import (
    Prediction,
    read_pred_gt,
    read_predictions,
    rewrite_pred,
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
    good = {
        "key": "a", "language": "fr", "source": "a.wav", "target_language": "en",
        "prediction": "x", "beam": 1,
    }  # fmt: skip
    lines = [
        json.dumps(good),
        "{not json",
        json.dumps(good),
        json.dumps(good | {"key": "b", "beam": 0}),
        json.dumps({name: good[name] for name in good if name != "prediction"} | {"key": "c"}),
        json.dumps(good | {"key": "d", "hypothesis": "x"}),
        "[1]",
        json.dumps(good | {"key": "e", "alternatives": [["x", "0.5"]]}),
    ]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    assert [problem.split(":")[1] for problem in caught.value.problems] == list("2345678")
    assert "already on line 1" in str(caught.value)
    assert "field 'prediction': missing" in str(caught.value)
    assert "unknown fields hypothesis" in str(caught.value)
    assert "expected a list of [text, score]" in str(caught.value)


def test_a_missing_file_says_which(tmp_path):
    with pytest.raises(InputError, match="nowhere.jsonl"):
        read_predictions(tmp_path / "nowhere.jsonl")


def test_slam_llm_files_join_by_key_with_the_manifest(tmp_path):
    pred, gt = tmp_path / "log_pred", tmp_path / "log_gt"
    pred.write_text("b\tyes\tsir\na\t\n")
    gt.write_text("a\tGood day.\nb\tYes.\n")
    utterances = [
        SimpleNamespace(
            key="a", language="fr", audio="a.flac", transcript="Bonjour.", target_language="en"
        ),
        SimpleNamespace(
            key="b", language="it", audio="b.flac", transcript=None, target_language=None
        ),
    ]
    found = read_pred_gt(pred, gt, utterances=utterances, target_language="en", beam=5)
    assert found == [
        Prediction("b", "it", "b.flac", "en", "Yes.", "yes\tsir", 5),
        Prediction("a", "fr", "a.flac", "en", "Good day.", "", 5, "Bonjour."),
    ]


def test_slam_llm_files_round_trip_on_one_line_each(tmp_path):
    two_lines = Prediction(**vars(TWO) | {"prediction": "x\ny"})
    pred, gt = write_pred_gt(tmp_path / "decode_beam4", [ONE, two_lines])
    assert (pred.name, gt.name) == ("decode_beam4_pred", "decode_beam4_gt")
    assert pred.read_text(encoding="utf-8") == "a\tgood\u2028day\nb\tx y\n"
    again = read_pred_gt(pred, gt, language="fr", target_language="en")
    assert [(p.key, p.reference, p.prediction) for p in again] == [
        ("a", "Good day.", "good\u2028day"),
        ("b", "", "x y"),
    ]


def test_all_mismatches_of_keys_are_reported(tmp_path):
    (tmp_path / "pred").write_text("a\tx\nb\ty\nb\tz\n")
    (tmp_path / "gt").write_text("a\tx\nc\ty\nno tab\n")
    with pytest.raises(InputError) as caught:
        read_pred_gt(tmp_path / "pred", tmp_path / "gt", language="fr", target_language="en")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    assert "pred:3: key 'b' again" in text and "gt:3: found no tab" in text
    assert f"key 'b' is in {tmp_path / 'pred'} and not" in text
    assert f"key 'c' is in {tmp_path / 'gt'} and not" in text


def test_a_language_that_nothing_tells_is_asked_for(tmp_path):
    (tmp_path / "pred").write_text("a\tx\n")
    (tmp_path / "gt").write_text("a\tx\n")
    with pytest.raises(InputError, match="spoken language is not known"):
        read_pred_gt(tmp_path / "pred", tmp_path / "gt", target_language="en")
    with pytest.raises(InputError, match="target language is not known"):
        read_pred_gt(tmp_path / "pred", tmp_path / "gt", language="fr")


def test_texts_are_rewritten_and_the_raw_file_is_kept(tmp_path):
    (tmp_path / "log_pred").write_text("a\tx | y\nb\tz\n")
    rows = [SimpleNamespace(key=key, target=key.upper()) for key in "ab"]
    rewrite_pred(tmp_path / "log", rows, lambda row, text: row.target + text.split("| ")[-1])
    assert (tmp_path / "log_pred").read_text() == "a\tAy\nb\tBz\n"
    assert (tmp_path / "log_raw").read_text() == "a\tx | y\nb\tz\n"
    with pytest.raises(InputError, match="key 'b' is in .* and not in the manifest"):
        rewrite_pred(tmp_path / "log", rows[:1], lambda row, text: text)
