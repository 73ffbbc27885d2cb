from dataclasses import replace
from pathlib import Path

import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.blind_control import blind_file, blind_rows, blind_text, check_blind
from slam_potsa.evaluation.scores import score
from slam_potsa.evaluation.significance import compare
from tests.support.predictions import make


def make_blind(**options):
    return [replace(item, source=f"not {item.source}") for item in make(**options)]


def test_it_is_found_beside_the_predictions(tmp_path):
    predictions = tmp_path / "test_predictions.jsonl"
    assert blind_file(predictions) is None
    (tmp_path / "test_blind_predictions.jsonl").write_text("")
    assert blind_file(predictions) == tmp_path / "test_blind_predictions.jsonl"
    assert blind_file(tmp_path / "test_blind_predictions.jsonl") is None
    assert blind_file(tmp_path / "other.jsonl") is None


def test_its_bleu_stands_beside_each_row():
    heard, guessed = make(noise=0.1), make_blind(noise=1, seed=3)
    table = score(heard, zero_shot=["fr"], bootstrap=0)
    rows = blind_rows(table, heard, guessed[::-1], zero_shot=["fr"])
    blind = score(guessed, zero_shot=["fr"], bootstrap=0)
    assert [row.name for row in rows] == [row.name for row in table.rows]
    for row in rows:
        assert row.bleu == table.row(row.name).bleu.value
        assert row.blind == pytest.approx(blind.row(row.name).bleu.value)
        assert row.as_dict()["difference"] == row.bleu - row.blind > 0
    assert blind_text(rows).splitlines()[1].split()[-2].startswith("+")


def test_what_was_heard_is_tested():
    heard, guessed = make(noise=0.1), make_blind(noise=1, seed=3)
    rows = {row.name: row for row in blind_rows(score(heard, bootstrap=0), heard, guessed)}
    bleu = compare(guessed, heard)[0]
    pooled = rows["all, pooled"]
    assert (pooled.p_value, pooled.signature) == (bleu.p_value, bleu.signature)
    assert pooled.p_value < 0.05 and rows["all, mean of languages"].p_value is None
    text = blind_text(list(rows.values()))
    assert f"BLEU|{bleu.signature}" in text and "not corrected" in text
    deaf = [replace(item, source="other.flac") for item in heard]  # answers that never listened
    assert all(
        row.p_value == 1 and row.difference == 0
        for row in blind_rows(score(heard, bootstrap=0), heard, deaf)
        if row.name != "all, mean of languages"
    )
    few = blind_rows(score(heard, bootstrap=0), heard, guessed, test="ar", samples=20)
    assert "|ar:20|" in few[0].signature


def test_a_file_with_own_recordings_is_no_blind_control():
    heard, path = make(), Path("test_blind_predictions.jsonl")
    with pytest.raises(InputError, match=r"36 of 36 .*own recording.*, …; expected another"):
        blind_rows(score(heard, bootstrap=0), heard, make(noise=1))
    one = make_blind()
    one[5] = replace(one[5], source=heard[5].source)
    with pytest.raises(InputError, match="^test_blind_predictions.jsonl: 1 of 36 .*'en-5'"):
        check_blind(heard, one, path)
    with pytest.raises(InputError, match="^test_blind_predictions.jsonl: 12 utterances are"):
        check_blind(heard, make_blind(languages=["en", "es"]), path)
    check_blind(heard, make_blind(), path)


def test_it_decodes_the_same_utterances():
    table = score(make(), bootstrap=0)
    with pytest.raises(InputError, match="12 utterances are decoded by the system only"):
        blind_rows(table, make(), make(["en", "es"]))
