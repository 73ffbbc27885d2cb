from dataclasses import replace

import pytest

from slam_potsa.config import DatasetConfig, PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.data.dataset import get_speech_dataset
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

TASKS = ("asr", "cot", "s2tt")


@pytest.fixture
def hello(utterance):
    return utterance("en", "hello", transcript="Hello.", target="你好。", target_language="zh")


def test_fields_and_the_task_to_decode_follow_the_tasks():
    assert needed_fields(["asr"]) == ("audio", "transcript")
    assert needed_fields(["s2tt", "s2tt"]) == ("audio", "target")
    both = ("audio", "transcript", "target")
    assert needed_fields(["cot"]) == needed_fields(["asr", "s2tt"]) == both
    for tasks in (["st", "asr"], []):
        with pytest.raises(InputError, match="expected some of asr, s2tt, cot"):
            get_speech_dataset({"tasks": tasks}, None, "train")
    # A translation where one was trained.
    assert task_to_decode(["asr", "cot", "s2tt"]) == "s2tt"
    assert task_to_decode(["asr", "cot"]) == "cot"
    assert task_to_decode(["asr"]) == task_to_decode(["s2tt"], "asr") == "asr"


def test_the_defaults_are_cot_sts_format(hello, utterance):
    """The lines of st_covost2's README: prompt and gt of its three sources."""
    data = DatasetConfig()
    asked = {task: question(data, task, hello) for task in TASKS}
    assert asked.pop("s2tt").startswith("USER: Translate the speech to zh.")
    assert asked == {"asr": "<|en|>", "cot": "<|zh|>"}
    assert [answer(data, t, hello) for t in TASKS] == ["Hello.", "Hello.<|zh|>你好。", "你好。"]
    untranscribed = utterance("en", "s", target="x", target_language="zh")
    assert [answer(data, task, untranscribed) for task in TASKS] == [None, None, "x"]
    named = DatasetConfig(prompt="{language_name} to {target_language_name} ({target_language}):")
    assert question(named, "s2tt", hello) == "English to Chinese (zh):"
    assert question(named, "s2tt", replace(hello, language="qzz")).startswith("qzz to")
    assert [reference(task, hello) for task in TASKS] == ["Hello.", "你好。", "你好。"]
    assert [written_language(task, hello) for task in TASKS] == ["en", "zh", "zh"]


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


def test_the_configuration_and_all_rows_are_checked_for_them(hello, utterance):
    config = PotsaConfig()
    data = config.dataset_config
    data.tasks, data.test_task = ["asr", "sing"], "sing"
    data.cot_prompt, data.cot_answer = "{to} {transcript}", "{transcript}{target}"
    with pytest.raises(InputError) as caught:
        check(config)
    places = ["tasks: found 'sing'", "test_task='sing'", "cot_prompt: unknown placeholder {to}"]
    places += ["cot_prompt: unknown placeholder {transcript}", "cot_answer='{transcript}{target}'"]
    assert len(caught.value.problems) == len(places)
    assert all(f"dataset_config.{place}" in str(caught.value) for place in places)
    rows = [hello, *(utterance("en", f"s{i}") for i in range(2))]
    data = DatasetConfig(prompt="To {target_language_name}:")
    with pytest.raises(InputError) as caught:
        require(data, ["s2tt", "cot"], rows)
    assert len(caught.value.problems) == 3  # prompt, cot_prompt and cot_answer
    asked = "utterance 'en-s0-0' (and 1 others): the cot_prompt asks for {target_language}"
    assert asked in str(caught.value)
    require(data, ["asr"], rows)
