"""Sizes that are shipped: they build the models their makers describe, and nothing asks a hub."""

from __future__ import annotations

import json

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.model.known import known, model_config

# Parameters as the model cards give them, in millions. OpenAI's table counts a little differently.
WHISPER = {
    "tiny": 39,
    "base": 74,
    "small": 244,
    "medium": 769,
    "large-v2": 1550,
    "large-v3": 1550,
    "large-v3-turbo": 809,
}
# Billions, and without embeddings.
QWEN = {
    "Qwen2.5-0.5B": (0.49, 0.36),
    "Qwen2.5-1.5B": (1.54, 1.31),
    "Qwen2.5-3B": (3.09, 2.77),
    "Qwen2.5-7B": (7.61, 6.53),
    "Qwen2.5-14B": (14.7, 13.1),
    "Qwen2-7B": (7.61, 6.53),
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_shipped_file_is_tested_here():
    expected = [f"openai/whisper-{size}" for size in WHISPER] + [f"Qwen/{name}" for name in QWEN]
    assert sorted(expected) == list(known())


@pytest.mark.parametrize("size", WHISPER)
def test_whisper_has_the_published_number_of_parameters(size):
    from transformers import WhisperForConditionalGeneration

    with torch.device("meta"):
        model = WhisperForConditionalGeneration(model_config(f"openai/whisper-{size}"))
    assert count(model) / 1e6 == pytest.approx(WHISPER[size], rel=0.04)


@pytest.mark.parametrize("name", QWEN)
def test_qwen_has_the_published_number_of_parameters(name):
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(f"Qwen/{name}"))
    total = count(model)
    embeddings = {id(p): p.numel() for p in model.get_input_embeddings().parameters()}
    embeddings |= {id(p): p.numel() for p in model.get_output_embeddings().parameters()}
    billions, without = QWEN[name]
    assert total / 1e9 == pytest.approx(billions, rel=0.01)
    assert (total - sum(embeddings.values())) / 1e9 == pytest.approx(without, rel=0.01)


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
    assert "did you mean Qwen/Qwen2.5-7B?" in message and "local folder" in message
    assert "whisper" not in message


@pytest.mark.parametrize("content", [None, "{broken", '{"hidden_size": 64}'])
def test_a_folder_without_a_usable_configuration(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="expected a folder with a transformers config.json"):
        model_config(str(tmp_path))
