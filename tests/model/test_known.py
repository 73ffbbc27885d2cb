"""Sizes that are shipped: they build the models their makers describe, and nothing asks a hub."""

import pytest
import torch

from slam_potsa.model.llm import known, model_config
from tests.support import refusal, refused

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
    "lmsys/vicuna-13b-v1.1": 13016,
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


def test_a_local_folder_goes_before_a_known_name_and_an_unknown_one_is_refused(
    tmp_path, monkeypatch
):
    config = tmp_path / "Qwen" / "Qwen2.5-7B" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"model_type": "qwen2", "hidden_size": 64}')
    monkeypatch.chdir(tmp_path)
    assert model_config("Qwen/Qwen2.5-7B").hidden_size == 64
    for content in ("{broken", '{"hidden_size": 64}'):
        config.write_text(content)
        refused(r"config\.json", model_config, "Qwen/Qwen2.5-7B")
    error = refusal(model_config, "Qwen/Qwen2.5-8B", "model_config.llm_path", "qwen2")
    for piece in ("model_config.llm_path='Qwen/Qwen2.5-8B'", "Qwen/Qwen2.5-7B", "local folder"):
        assert piece in str(error)
