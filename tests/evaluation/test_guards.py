"""Each guard on one row among good ones; what it counts over a corpus."""

import importlib.util
import time
from dataclasses import replace
from random import Random

import pytest

from slam_potsa.data.predictions import Prediction
from slam_potsa.evaluation import guards
from slam_potsa.evaluation.guards import (
    COPIED,
    EMPTY,
    GUARDS,
    LANGUAGE,
    LENGTH,
    REFERENCES,
    REFUSAL,
    REPETITION,
    SAME,
    copies,
    expected_scripts,
    guard_signature,
    in_wrong_language,
    loops,
    rates,
    watch,
)
from slam_potsa.evaluation.scores import score
from tests.support.predictions import make

FRENCH = "Veuillez entrer le numéro de votre boîte vocale suivi du dièse."
ENGLISH = "Please enter your mailbox number followed by the pound key."
CHINESE = "请输入您的邮箱号码，然后按井号键。"
LATIN = frozenset({"LATIN"})


@pytest.fixture
def no_identifier(monkeypatch):
    guards._identifier.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "py3langid" else find(name)
    )
    yield
    guards._identifier.cache_clear()


def fired(prediction, reference=CHINESE, transcript=FRENCH, target="zh", language="fr"):
    """The guards on one row among ten good ones."""
    good = [Prediction(str(n), "fr", "x", "zh", CHINESE, CHINESE, 1, FRENCH) for n in range(10)]
    good = [replace(item, target_language=target, reference=reference) for item in good]
    good = [replace(item, prediction=reference) for item in good]
    odd = replace(good[0], key="odd", prediction=prediction, transcript=transcript)
    return watch([*good, replace(odd, language=language)])[-1]


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (CHINESE, set()),
        ("请按井号键，然后输入邮箱的号码。", set()),
        ("", {EMPTY}),
        (" \n", {EMPTY}),
        (FRENCH, {LANGUAGE, COPIED, LENGTH}),
        (FRENCH.lower().replace(".", ""), {LANGUAGE, COPIED, LENGTH}),
        (ENGLISH, {LANGUAGE, LENGTH}),
        ("好的好的好的好的好的好的好的好的", {REPETITION}),
        ("请输入" * 30, {REPETITION, LENGTH}),
        ("键", {LENGTH}),
        ("抱歉，我无法听到您的音频内容。", {REFUSAL}),
    ],
)
def test_what_fires(prediction, expected):
    assert fired(prediction) == expected


def test_what_the_reference_does_too_is_not_held_against_the_prediction():
    song = "la la la la la la la la"
    assert REPETITION not in fired(song, reference=song, target="en")
    names = "Angela Merkel"
    assert fired(names, reference=names, transcript=names, target="de") == set()
    row = Prediction("odd", "fr", "x", "zh", "IBM PC GPS", "IBM PC GPS", 1, FRENCH)
    others = [replace(row, key=str(n), reference=CHINESE, prediction=CHINESE) for n in range(9)]
    assert watch([*others, row])[-1] == {REFERENCES}


def test_near_copies_where_no_transcription_was_asked_for():
    assert COPIED not in fired(FRENCH, reference=FRENCH, target="fr")
    assert COPIED in fired(FRENCH, reference=ENGLISH, target="en")
    assert copies("Veuillez entrer le numero de votre boite vocale suivi du diese", FRENCH)
    assert not copies("Veuillez entrer", FRENCH) and not copies(ENGLISH, FRENCH)
    assert not copies("", "") and not copies("…", "…") and not copies("a", None)


def test_scripts_are_those_of_the_references():
    assert expected_scripts([CHINESE, "使用GPS。"]) == {"CJK"}
    assert expected_scripts(["今日は天気がいいので、公園に行きます。"]) == {"CJK", "HIRAGANA"}
    assert expected_scripts(["Привет"]) == {"CYRILLIC"} and expected_scripts(["ＡＢ"]) == LATIN
    assert expected_scripts(["", "123"]) == frozenset()
    assert not in_wrong_language(FRENCH, "zh", frozenset())


def test_languages_of_one_script_are_told_apart():
    pytest.importorskip("py3langid")
    assert in_wrong_language(FRENCH, "en", LATIN) and not in_wrong_language(ENGLISH, "en", LATIN)
    assert not in_wrong_language("Adiós", "en", LATIN)  # too short to be judged
    assert not in_wrong_language(FRENCH, "tlh", LATIN)  # Klingon: py3langid does not know it
    assert not in_wrong_language("我哋今日去公園行吓啦，好唔好呀？", "zh", frozenset({"CJK"}))
    assert "py3langid" in guard_signature()


def test_without_py3langid_scripts_decide_and_the_signature_says_so(no_identifier):
    assert not in_wrong_language(FRENCH, "en", LATIN) and in_wrong_language(CHINESE, "en", LATIN)
    assert "script only (pip install py3langid" in guard_signature()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the key the key the key the key", True),
        ("no no no no no", True),
        ("The key. The key, the key", False),
        ("1 000 000 000 000 000", False),
        ("-------------------", False),
        ("ha ha ha", False),
        (ENGLISH, False),
        (CHINESE, False),
        ("word " * 2000, True),
    ],
)
def test_loops(text, expected):
    assert loops(text) is expected


def test_a_long_text_without_a_loop_is_judged_quickly():
    letters = Random(0)
    text = "".join(letters.choice("abcdefgh ") for _ in range(5000))
    begin = time.perf_counter()
    assert not loops(text)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry, but I cannot translate this audio.", True),
        ("As an AI language model, I do not hear.", True),
        ("Please provide the audio you would like me to transcribe.", True),
        ("作为一个人工智能，我不能听。", True),
        ("请提供需要翻译的音频。", True),
        ("I'm sorry, that extension is busy.", False),
        ("对不起，请再试一次。", False),
    ],
)
def test_refusals_but_not_politeness(text, refuses):
    assert (REFUSAL in fired(text)) is refuses


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        ("x" * 20, "x" * 40, False),
        ("x" * 20, "x" * 41, True),
        ("x" * 20, "x" * 10, False),
        ("x" * 20, "x" * 9, True),
        ("x" * 4, "x" * 13, False),  # three times as long, off by nine characters
        ("x" * 4, "x" * 14, True),
        ("", "x" * 40, False),
        (None, "x" * 40, False),
    ],
)
def test_length_is_measured_against_the_reference(reference, prediction, expected):
    row = replace(make(["fr"])[0], reference=reference, prediction=prediction)
    assert (LENGTH in watch([row])[0]) is expected


def test_one_answer_to_everything_is_the_same_answer():
    items = make(["en", "fr"])
    texts = ["Goodbye.", "goodbye", " Good bye! "]
    same = [replace(item, prediction=texts[n % 3]) for n, item in enumerate(items)]
    assert all(SAME in row for row in watch(same))
    found = score(same[:12] + items[12:], bootstrap=0)
    assert found.row("en").guards[SAME] == 1 and found.row("fr").guards[SAME] == 0
    assert all(SAME in row for row in watch([replace(row, prediction="…") for row in items]))
    assert not any(SAME in row for row in watch([replace(row, prediction="") for row in items]))
    apart = [replace(i, target_language=f"x{n}", prediction="ja") for n, i in enumerate(items)]
    assert not any(SAME in row for row in watch(apart))


def test_recordings_of_one_sentence_may_have_one_answer():
    """Two sentences that are answered alike are chance, three are not."""
    items = make(["en", "es", "fr"], noise=0)
    assert not any(SAME in row for row in watch(items))
    alike = {"0": "ja", "1": "ja"}
    items = [replace(i, prediction=alike.get(i.key.split("-")[1], i.prediction)) for i in items]
    assert not any(SAME in row for row in watch(items))
    items = [replace(i, prediction="ja") if i.key == "fr-2" else i for i in items]
    found = [item.key for item, row in zip(items, watch(items), strict=True) if SAME in row]
    assert len(found) == 7 and found[-1] == "fr-2"


def test_rates_are_shares_and_any_counts_a_row_once():
    rows = [frozenset({EMPTY}), frozenset({LANGUAGE, LENGTH}), frozenset({REFERENCES}), frozenset()]
    found = rates(rows)
    assert found[EMPTY] == found[LANGUAGE] == found[LENGTH] == found[REFERENCES] == 0.25
    assert found["any"] == 0.5 and found[COPIED] == 0
    assert set(found) == {*GUARDS, REFERENCES, "any"}


def test_every_score_table_has_them_and_can_do_without():
    items = [replace(item, prediction="") for item in make(["fr"])] + make(["es"], noise=0)
    table = score(items, bootstrap=0)
    assert table.row("fr").guards[EMPTY] == 1 and table.row("es").guards["any"] == 0
    assert table.row("all, pooled").guards[EMPTY] == 0.5
    assert not table.row("all, mean of languages").guards
    assert "guard fired, %" in table.text() and table.guard_signature in table.text()
    assert table.as_dict()["rows"][1]["guards"][EMPTY] == 1
    plain = score(items, bootstrap=0, guards=False)
    assert "guard" not in plain.text() and not plain.row("fr").guards
