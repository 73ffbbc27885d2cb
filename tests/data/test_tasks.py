from collections import Counter

import pytest

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.data.tasks import (
    Reading,
    Templates,
    draw_task,
    needed_fields,
    reference,
    task_to_decode,
    written_language,
)
from slam_potsa.errors import InputError


@pytest.fixture
def hello(utterance):
    return utterance("en", "hello", transcript="Hello.", target="你好。", target_language="zh")


def test_fields_follow_the_tasks():
    assert needed_fields(["asr"]) == ("transcript",)
    assert needed_fields(["s2tt", "s2tt"]) == ("target",)
    assert needed_fields(["cot"]) == needed_fields(["asr", "s2tt"]) == ("transcript", "target")
    with pytest.raises(InputError, match="task 'st': expected one of asr, s2tt, cot"):
        needed_fields(["st", "asr"])
    with pytest.raises(InputError, match="no tasks"):
        needed_fields([])


def test_draws_follow_their_place_and_weigh_as_listed():
    tasks = ["asr", "s2tt", "s2tt"]
    drawn = [draw_task(tasks, 1, epoch, "s") for epoch in range(3000)]
    assert drawn == [draw_task(tasks, 1, epoch, "s") for epoch in range(3000)]
    assert abs(Counter(drawn)["s2tt"] / 3000 - 2 / 3) < 0.03
    assert drawn != [draw_task(tasks, 2, epoch, "s") for epoch in range(3000)]
    assert {draw_task(["cot", "cot"], place) for place in range(9)} == {"cot"}


def test_decoding_asks_for_a_translation_where_one_was_trained():
    assert task_to_decode(["asr", "cot", "s2tt"]) == "s2tt"
    assert task_to_decode(["asr", "cot"]) == "cot"
    assert task_to_decode(["asr"]) == "asr"
    assert task_to_decode(["s2tt"], "asr") == "asr"


def test_the_defaults_are_cot_sts_format(hello):
    """The lines of st_covost2's README: prompt and gt of its three sources."""
    templates = Templates.of(DatasetConfig())
    assert templates.question("asr", hello) == "<|en|>"
    assert templates.answer("asr", hello) == "Hello."
    assert templates.question("cot", hello) == "<|zh|>"
    assert templates.answer("cot", hello) == "Hello.<|zh|>你好。"
    assert templates.question("s2tt", hello).startswith("USER: Translate the speech to zh.")
    assert templates.answer("s2tt", hello) == "你好。"


def test_names_of_languages(hello, utterance):
    templates = Templates("From {language_name} to {target_language_name} ({target_language}):")
    assert templates.question("s2tt", hello) == "From English to Chinese (zh):"
    unknown = utterance("qzz", "s", target_language="en")
    assert templates.question("s2tt", unknown) == "From qzz to English (en):"


@pytest.mark.parametrize(
    "cot_answer", ["{transcript}<|{target_language}|>{target}", "[{transcript} => {target}]"]
)
def test_reading_inverts_the_answer(hello, cot_answer):
    templates = Templates("", cot_answer=cot_answer)
    said = templates.answer("cot", hello)
    assert templates.read("cot", hello, said) == Reading("你好。", "Hello.")
    assert templates.read("cot", hello, f" {said}\n") == Reading("你好。", "Hello.")
    assert templates.read("cot", hello, "Hello. ") == Reading("Hello.", malformed=True)


def test_other_tasks_are_read_as_they_are(hello):
    templates = Templates("")
    for task in ("asr", "s2tt"):
        assert templates.read(task, hello, " a<|zh|>b ") == Reading("a<|zh|>b")
    assert (reference("asr", hello), reference("cot", hello)) == ("Hello.", "你好。")
    assert (written_language("asr", hello), written_language("s2tt", hello)) == ("en", "zh")


def test_an_answer_needs_all_of_its_parts(utterance):
    templates = Templates("")
    row = utterance("en", "s", target="x", target_language="zh")
    assert templates.answer("s2tt", row) == "x"
    assert templates.answer("asr", row) is templates.answer("cot", row) is None


def test_bad_templates_are_refused_at_once():
    with pytest.raises(InputError) as caught:
        Templates("{lang}: {transcript}", asr_prompt="{target}", cot_answer="{target} {transcript}")
    assert len(caught.value.problems) == 4
    assert "prompt: unknown placeholder {lang}; known are {language}," in str(caught.value)
    assert "cot_answer='{target} {transcript}'" in str(caught.value)
    for answer in ("{transcript}{target}", "{transcript}|{target}|{target}"):
        with pytest.raises(InputError, match="a marker"):
            Templates("", cot_answer=answer)


def test_the_configuration_is_checked_for_them():
    config = PotsaConfig()
    config.dataset_config.tasks = ["asr", "mt"]
    config.dataset_config.test_task = "mt"
    config.dataset_config.cot_prompt = "{to}"
    with pytest.raises(InputError) as caught:
        check(config)
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert "dataset_config.tasks: found 'mt'" in text and "dataset_config.test_task='mt'" in text
    assert "dataset_config.cot_prompt: unknown placeholder {to}" in text


def test_what_templates_ask_for_is_required_of_all_rows(hello, utterance):
    lonely = [utterance("en", f"s{i}") for i in range(2)]
    templates = Templates("To {target_language_name}:")
    with pytest.raises(InputError) as caught:
        templates.require(["s2tt", "cot"], [hello, *lonely])
    assert len(caught.value.problems) == 3  # prompt, cot_prompt and cot_answer
    asked = "utterance 'en-s0-0' (and 1 others): the cot_prompt asks for {target_language}"
    assert asked in str(caught.value)
    templates.require(["asr"], [hello, *lonely])
