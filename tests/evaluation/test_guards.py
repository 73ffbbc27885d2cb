"""Each guard on one row among good ones; what it counts over a corpus."""

from dataclasses import replace
from random import Random

import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation import guards
from slam_potsa.evaluation.guards import BARE, GUARDS, REFERENCES, watch
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make

FRENCH = "Veuillez entrer le numéro de votre boîte vocale suivi du dièse."
ENGLISH = "Please enter your mailbox number followed by the pound key."
CHINESE = "请输入您的邮箱号码，然后按井号键。"
EMPTY, LANGUAGE, COPIED, REPETITION, SAME, LENGTH, CUT, FORM, MARKUP = GUARDS


def fired(prediction, reference=CHINESE, transcript=FRENCH, target="zh", usual=None):
    """The guards on one row among ten good ones, whose references are `usual`."""
    usual = usual or reference
    good = [Prediction(str(n), "fr", "x", target, usual, usual, 1, FRENCH) for n in range(10)]
    odd = Prediction("odd", "fr", "x", target, reference, prediction, 1, transcript)
    return set(watch([*good, odd])[-1])


NAMES = {"reference": "Angela Merkel", "transcript": "Angela Merkel", "target": "de"}


@pytest.mark.parametrize(
    ("prediction", "options", "expected"),
    [
        (CHINESE, {}, set()),
        ("请按井号键，然后输入邮箱的号码。", {}, set()),
        ("", {}, {EMPTY}),
        (FRENCH, {}, {LANGUAGE, COPIED, LENGTH}),
        (ENGLISH, {}, {LANGUAGE, LENGTH}),
        ("好的好的好的好的好的好的好的好的", {}, {REPETITION}),
        # What the reference does too is not held against the prediction.
        ("Angela Merkel", NAMES, set()),
        ("IBM PC GPS", {"reference": "IBM PC GPS", "usual": CHINESE}, {REFERENCES}),
    ],
)
def test_what_fires(prediction, options, expected):
    assert fired(prediction, **options) == expected


NEAR_COPY = "Veuillez entrer le numero de votre boite vocale suivi du diese"
NO_LOOP = "".join(Random(0).choices("abcdefgh ", k=5000))


@pytest.mark.parametrize(
    ("guard", "text", "options", "fires"),
    [
        (COPIED, FRENCH, {"reference": ENGLISH, "target": "en"}, True),
        (COPIED, NEAR_COPY, {"reference": ENGLISH, "target": "en"}, True),
        (COPIED, FRENCH, {"reference": ENGLISH, "target": "fr"}, False),  # it was to transcribe
        (COPIED, "Veuillez entrer", {"reference": ENGLISH, "target": "en"}, False),
        (COPIED, "a", {"transcript": None}, False),
        # Scripts are those of the references.
        (LANGUAGE, CHINESE, {"reference": "今日は天気がいいので、公園に行きます。"}, False),
        (LANGUAGE, ENGLISH, {"reference": CHINESE + "使用GPS。"}, True),
        (LANGUAGE, FRENCH, {"reference": "123", "target": "xx"}, False),
        # Languages of one script are told apart.
        (LANGUAGE, FRENCH, {"reference": ENGLISH, "target": "en"}, True),
        (LANGUAGE, "Adiós", {"reference": ENGLISH, "target": "en"}, False),  # too short
        (LANGUAGE, FRENCH, {"reference": ENGLISH, "target": "tlh"}, False),  # py3langid lacks it
        (LANGUAGE, "我哋今日去公園行吓啦，好唔好呀？", {}, False),  # Cantonese, not told from zh
        (LANGUAGE, "請輸入您的郵箱號碼，然後按井號鍵。", {}, True),  # Traditional
        (LANGUAGE, CHINESE, {"reference": "請輸入您的郵箱號碼，然後按井號鍵。"}, True),
        (LANGUAGE, "好的。", {"reference": "請輸入您的郵箱號碼。"}, False),  # in both
        (FORM, "Xin chào".replace("à", "a\u0300"), {"reference": "Xin chào", "target": "vi"}, True),
        (FORM, "Xin chào", {"reference": "Xin chào", "target": "vi"}, False),
        (MARKUP, CHINESE + "<eos>", {}, True),
        (MARKUP, CHINESE + "<eos>", {"reference": CHINESE + "<eos>"}, False),
        (MARKUP, "a < b and c > d", {}, False),
        (BARE, CHINESE, {"reference": " "}, True),
        (REPETITION, "la la la la la la", {"reference": "la la la la la la"}, False),
        (REPETITION, "the key the key the key the key", {}, True),
        (REPETITION, "The key. The key, the key", {}, False),
        (REPETITION, "1 000 000 000 000 000", {}, False),
        (REPETITION, "word " * 2000, {}, True),
        (REPETITION, NO_LOOP, {}, False),
        # Of a reference of 20 characters between 10 and 40, or off by less than ten.
        (LENGTH, "x" * 41, {"reference": "x" * 20}, True),
        (LENGTH, "x" * 9, {"reference": "x" * 20}, True),
        (LENGTH, "x" * 14, {"reference": "x" * 4}, True),
        (LENGTH, "x" * 40, {"reference": ""}, False),
    ],
)
def test_where_one_guard_fires(guard, text, options, fires):
    pytest.importorskip("py3langid")
    assert (guard in fired(text, **options)) is fires


def test_an_answer_that_was_cut_off_is_counted():
    rows = [replace(row, cut=True) for row in make(["fr"], noise=0)]
    assert all(CUT in row for row in watch(rows))


def test_without_py3langid_scripts_decide_and_the_signature_says_so(monkeypatch):
    monkeypatch.setattr(guards, "_identifier", lambda: None)
    assert LANGUAGE not in fired(FRENCH, ENGLISH, target="en")
    assert LANGUAGE in fired(CHINESE, ENGLISH, target="en")
    assert "script only (pip install py3langid" in guards.guard_signature()


def same(items):
    return [item.key for item, row in zip(items, watch(items), strict=True) if SAME in row]


def test_one_answer_to_everything_is_the_same_answer():
    """Recordings of one sentence may have one; two sentences answered alike are chance."""
    items = make(["en", "es", "fr"], noise=0)
    answers = ["Goodbye.", "goodbye", " Good bye! "]
    alike = [replace(item, prediction=answers[n % 3]) for n, item in enumerate(items)]
    assert len(same(alike)) == len(items)
    found = score(alike[:12] + items[12:], bootstrap=0)
    assert found.row("en").guards[SAME] == 1 and found.row("fr").guards[SAME] == 0
    apart = [replace(i, target_language=f"x{n}", prediction="ja") for n, i in enumerate(items)]
    assert not same(items) and not same(apart)
    assert not same([replace(row, prediction="") for row in items])
    items = [replace(i, prediction="ja") if i.key[-2:] in ("-0", "-1") else i for i in items]
    assert not same(items)
    items = [replace(i, prediction="ja") if i.key == "fr-2" else i for i in items]
    assert len(same(items)) == 7 and same(items)[-1] == "fr-2"


def test_the_worst_rows_name_faults_of_the_prediction_alone():
    names = Prediction("names", "fr", "x", "zh", "IBM PC GPS", "", 1)
    good = [Prediction(str(n), "fr", "x", "zh", CHINESE, CHINESE, 1) for n in range(5)]
    (worst,) = score([names, *good], bootstrap=0, worst=1).worst
    assert (worst.item, worst.guards) == (names, [EMPTY]) and REFERENCES in watch([names, *good])[0]


def test_every_score_table_has_their_rates():
    items = [replace(item, prediction="") for item in make(["fr"])] + make(["es"], noise=0)
    table = score(items, bootstrap=0)
    assert set(table.row("fr").guards) == {*GUARDS, REFERENCES, "any", BARE}
    assert table.row("fr").guards[EMPTY] == 1 and table.row("es").guards["any"] == 0
    assert table.row("all, pooled").guards[EMPTY] == 0.5
    assert not table.row("all, mean of languages").guards
    assert "guard fired, %" in table.text() and guards.guard_signature() in table.text()
