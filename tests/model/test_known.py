"""Sizes that are shipped: they build the models their makers describe, and nothing asks a hub."""

from __future__ import annotations

import json

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.model.known import known, model_config

# Parameters as the model cards give them, in millions. OpenAI's table counts a little differently.
PUBLISHED = {
    "openai/whisper-tiny": 39,
    "openai/whisper-base": 74,
    "openai/whisper-small": 244,
    "openai/whisper-medium": 769,
    "openai/whisper-large-v2": 1550,
    "openai/whisper-large-v3": 1550,
    "openai/whisper-large-v3-turbo": 809,
    "Qwen/Qwen2.5-0.5B": 490,
    "Qwen/Qwen2.5-1.5B": 1540,
    "Qwen/Qwen2.5-3B": 3090,
    "Qwen/Qwen2.5-7B": 7610,
    "Qwen/Qwen2.5-14B": 14700,
    "Qwen/Qwen2-7B": 7610,
}


@pytest.mark.parametrize("name", known())
def test_a_model_has_the_published_number_of_parameters(name):
    from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

    whisper = name.startswith("openai")
    build = WhisperForConditionalGeneration if whisper else AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = build(model_config(name))
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert count == pytest.approx(PUBLISHED[name], rel=0.04 if whisper else 0.01)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def test_a_local_folder_goes_before_a_known_name(tmp_path, monkeypatch):
    folder = tmp_path / "Qwen" / "Qwen2.5-7B"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2", "hidden_size": 64}))
    monkeypatch.chdir(tmp_path)
    assert model_config("Qwen/Qwen2.5-7B").hidden_size == 64


def test_an_unknown_name_says_what_is_known_and_that_a_folder_works():
    with pytest.raises(InputError) as error:
        model_config("Qwen/Qwen2.5-8B", "model_config.llm_path", "qwen2")
    message = str(error.value)
    assert "model_config.llm_path='Qwen/Qwen2.5-8B'" in message
    assert "Qwen/Qwen2.5-7B" in message and "local folder" in message
    assert "whisper" not in message


@pytest.mark.parametrize("content", [None, "{broken", '{"hidden_size": 64}'])
def test_a_folder_without_a_usable_configuration(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json"):
        model_config(str(tmp_path))
