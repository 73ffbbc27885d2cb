import pytest

from slam_potsa.errors import InputError
from slam_potsa.evaluation.blind_control import blind_file, blind_rows, blind_text
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make


def test_it_is_found_beside_the_predictions(tmp_path):
    predictions = tmp_path / "test_predictions.jsonl"
    assert blind_file(predictions) is None
    (tmp_path / "test_blind_predictions.jsonl").write_text("")
    assert blind_file(predictions) == tmp_path / "test_blind_predictions.jsonl"
    assert blind_file(tmp_path / "test_blind_predictions.jsonl") is None
    assert blind_file(tmp_path / "other.jsonl") is None


def test_its_bleu_stands_beside_each_row():
    heard, guessed = make(noise=0.1), make(noise=1, seed=3)
    table = score(heard, zero_shot=["fr"], bootstrap=0)
    rows = blind_rows(table, heard, guessed[::-1], zero_shot=["fr"])
    blind = score(guessed, zero_shot=["fr"], bootstrap=0)
    assert [row.name for row in rows] == [row.name for row in table.rows]
    for row in rows:
        assert row.bleu == table.row(row.name).bleu.value
        assert row.blind == pytest.approx(blind.row(row.name).bleu.value)
        assert row.as_dict()["difference"] == row.bleu - row.blind > 0
    assert blind_text(rows).splitlines()[1].split()[-1].startswith("+")


def test_it_decodes_the_same_utterances():
    table = score(make(), bootstrap=0)
    with pytest.raises(InputError, match="12 utterances are decoded by the system only"):
        blind_rows(table, make(), make(["en", "es"]))
