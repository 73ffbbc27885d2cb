"""What a recipe of SLAM-LLM's is refused for, before a model is loaded; SLAM-LLM is not needed."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

from slam_potsa.config import AlignmentConfig, defaults
from slam_potsa.model.drop_in import dataset_factory, from_yaml
from slam_potsa.model.factory import micro_steps
from slam_potsa.model.language_bias import PADDED, LanguageBias
from slam_potsa.model.recipe_checks import recipe_problems
from tests.support import refused

OURS = "from slam_potsa.model.drop_in import dataset_factory\nget = dataset_factory({})\n"
THEIRS = "import torch"
SPOKEN = {"distance": "ctc", "first": "ctc", "second": "text.ids", "rows": "same"}
ONE_ROW = {"batch_size_training": 1}
OWN = OURS.format("prompt='USER: '")


def problems(folder, text=OWN, train=None, data=None, bias="", **asked):
    (folder / "data.py").write_text(text)
    train = {"batching_strategy": "custom", "batch_size_training": 4} | (train or {})
    data = {"file": f"{folder}/data.py:get", "fix_length_audio": 4} | (data or {})
    row = {"key": "a", "audio": "a.wav", "language": "en", "sentence_id": "1"}
    (folder / "data.jsonl").write_text(json.dumps(row | asked.get("row", {})) + "\n")
    data["train_data_path"] = f"{folder}/data.jsonl"
    section = type("Section", (dict,), {"__getattr__": dict.__getitem__})
    pipeline = {"dataset_config": section(data), "trains": True}
    pipeline["fsdp_config"] = SimpleNamespace(pure_bf16=asked.pop("pure_bf16", False))
    recipe = SimpleNamespace(encoder_name="whisper", encoder_path_hf=None)
    means = LanguageBias({"en": torch.zeros(2)}, fingerprint=bias)
    means = means if asked.get("needs_languages", True) else None
    terms = {name: {"distance": "ot", **term} for name, term in asked.get("terms", {}).items()}
    asked = {"alignment": defaults(AlignmentConfig, {"terms": terms}), "queries": 4, "bias": means}
    return list(recipe_problems(SimpleNamespace(**train), recipe, pipeline, **asked))


@pytest.mark.parametrize(
    ("told", "case"),
    [
        ("", {}),
        ("strategy='packing'", {"train": {"batching_strategy": "packing"}}),
        ("for ever", {"train": {"batching_strategy": "dynamic"}}),
        ("LayerNorm", {"pure_bf16": True}),
        ("no language_ids", {"text": THEIRS}),
        ("", {"text": THEIRS, "needs_languages": False}),
        ("", {"text": "batch['language_ids'] = ids"}),
        (r"\+\+dataset_config.fix_length_audio=4", {"data": {"fix_length_audio": 7}}),
        (r"tasks: \[asr\]", {"data": {"prompt": "Write it."}, "text": OURS.format("")}),
        ("", {"bias": "abc"}),
        ("means over all 30 s", {"bias": "abc" + PADDED}),
        ("bias --attend-padding", {"bias": "abc", "text": "language_ids"}),
        ("", {"terms": {"ot": {}}}),
        ("needs pairs", {"terms": {"ot": {}}, "text": OURS.format("pairing='none', prompt='A'")}),
        ("needs pairs", {"terms": {"ot": {}}, "text": "language_ids"}),
        ("pairing=anchor", {"terms": {"ot": {"detach": "second"}}}),
        ("is one pair", {"terms": {"ot": {"variant": "n_pair"}}, "train": ONE_ROW}),
        ("need our dataset", {"terms": {"ctc": SPOKEN}, "text": "language_ids"}),
        ("data.jsonl:1: .*transcript", {"terms": {"ctc": SPOKEN}}),
        ("", {"terms": {"ctc": SPOKEN}, "row": {"transcript": "so"}}),
    ],
)
def test_what_cannot_work_is_told(told, case, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = problems(tmp_path, **case)
    assert len(found) == bool(told)
    assert all(re.search(told, problem) for problem in found)


def test_the_recipes_prompt_reaches_the_task_that_is_trained():
    recipe = {"prompt": "Transcribe speech to text. "}
    data = dataset_factory(tasks=["asr"]).settings(recipe)
    assert data.asr_prompt == "USER: Transcribe speech to text. \n ASSISTANT:"
    assert "Translate" in data.prompt
    assert dataset_factory(prompt="Mine: ").settings(recipe).prompt == "Mine: "
    for several in ({}, {"tasks": ["asr", "s2tt"]}):
        refused("say what it asks for", dataset_factory(**several).settings, recipe)


def test_the_ready_file_reads_potsa_yaml(tmp_path):
    path = tmp_path / "potsa.yaml"
    refused("potsa.yaml.*language_bias", from_yaml, path)
    path.write_text("projecter: {}\n")
    refused("unknown projecter; known are projector", from_yaml, path)
    path.write_text("language_bias: {enabled: false}\ndataset: {tasks: [asr]}\n")
    make, data = from_yaml(path)
    assert callable(make) and data.settings({}).tasks == ["asr"]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, 1),
        ({"gradient_accumulation_steps": 3}, 3),
        ({"train_batch_size": 16}, 1),
        ({"train_batch_size": 16, "train_micro_batch_size_per_gpu": 2}, 4),
    ],
)
def test_micro_steps_are_deepspeeds_own_number(settings, steps, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert micro_steps(settings) == steps
    refused('may be "auto"', micro_steps, {"train_batch_size": "auto"})
