import pytest

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.data.tasks import (
    Reading,
    answer,
    needed_fields,
    question,
    read_answer,
    reference,
    require,
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
    for tasks in (["st", "asr"], []):
        with pytest.raises(InputError, match="expected some of asr, s2tt, cot"):
            needed_fields(tasks)


def test_decoding_asks_for_a_translation_where_one_was_trained():
    assert task_to_decode(["asr", "cot", "s2tt"]) == "s2tt"
    assert task_to_decode(["asr", "cot"]) == "cot"
    assert task_to_decode(["asr"]) == task_to_decode(["s2tt"], "asr") == "asr"


def test_the_defaults_are_cot_sts_format(hello):
    """The lines of st_covost2's README: prompt and gt of its three sources."""
    data = DatasetConfig()
    asked = {task: question(data, task, hello) for task in ("asr", "cot", "s2tt")}
    assert asked.pop("s2tt").startswith("USER: Translate the speech to zh.")
    assert asked == {"asr": "<|en|>", "cot": "<|zh|>"}
    said = [answer(data, task, hello) for task in ("asr", "cot", "s2tt")]
    assert said == ["Hello.", "Hello.<|zh|>你好。", "你好。"]


def test_names_of_languages(hello, utterance):
    prompt = "From {language_name} to {target_language_name} ({target_language}):"
    data = DatasetConfig(prompt=prompt)
    assert question(data, "s2tt", hello) == "From English to Chinese (zh):"
    unknown = utterance("qzz", "s", target_language="en")
    assert question(data, "s2tt", unknown) == "From qzz to English (en):"


@pytest.mark.parametrize(
    "cot_answer", ["{transcript}<|{target_language}|>{target}", "[{transcript} => {target}]"]
)
def test_reading_inverts_the_answer(hello, cot_answer):
    data = DatasetConfig(cot_answer=cot_answer)
    said = answer(data, "cot", hello)
    for text in (said, f" {said}\n"):
        assert read_answer(data, "cot", hello, text) == Reading("你好。", "Hello.")
    assert read_answer(data, "cot", hello, "Hello. ") == Reading("Hello.", malformed=True)
    for task in ("asr", "s2tt"):
        assert read_answer(data, task, hello, " a<|zh|>b ") == Reading("a<|zh|>b")


def test_what_is_scored_and_what_an_answer_needs(hello, utterance):
    assert (reference("asr", hello), reference("cot", hello)) == ("Hello.", "你好。")
    assert (written_language("asr", hello), written_language("s2tt", hello)) == ("en", "zh")
    row = utterance("en", "s", target="x", target_language="zh")
    assert [answer(DatasetConfig(), task, row) for task in ("s2tt", "asr", "cot")] == [
        *("x", None, None)
    ]


def test_the_configuration_is_checked_for_them():
    config = PotsaConfig()
    config.dataset_config.tasks = ["asr", "mt"]
    config.dataset_config.test_task = "mt"
    config.dataset_config.cot_prompt = "{to} {transcript}"
    config.dataset_config.cot_answer = "{transcript}{target}"
    with pytest.raises(InputError) as caught:
        check(config)
    places = ["tasks: found 'mt'", "test_task='mt'", "cot_prompt: unknown placeholder {to}"]
    places += ["cot_prompt: unknown placeholder {transcript}", "cot_answer='{transcript}{target}'"]
    assert len(caught.value.problems) == len(places)
    assert all(f"dataset_config.{place}" in str(caught.value) for place in places)


def test_what_prompts_ask_for_is_required_of_all_rows(hello, utterance):
    lonely = [utterance("en", f"s{i}") for i in range(2)]
    data = DatasetConfig(prompt="To {target_language_name}:")
    with pytest.raises(InputError) as caught:
        require(data, ["s2tt", "cot"], [hello, *lonely])
    assert len(caught.value.problems) == 3  # prompt, cot_prompt and cot_answer
    asked = "utterance 'en-s0-0' (and 1 others): the cot_prompt asks for {target_language}"
    assert asked in str(caught.value)
    require(data, ["asr"], [hello, *lonely])
