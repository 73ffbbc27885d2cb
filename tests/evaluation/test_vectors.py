from dataclasses import replace

import pytest
import torch

from slam_potsa.engine.decode import Translator
from slam_potsa.engine.encode import store_features
from slam_potsa.evaluation.vectors import pooled_vectors, record, speech_dataset, tap_names
from slam_potsa.model.factory import model_factory
from slam_potsa.model.speech_llm import SpeechLLM
from tests.support import tiny
from tests.support.trained import untrained_run


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("run"))


def manifest(translator):
    return translator.config.dataset_config.test_data_path


def test_one_pass_records_what_single_passes_do(translator):
    assert isinstance(translator, Translator) and isinstance(translator.model, SpeechLLM)
    names = tap_names(translator.model)
    assert names == ("encoder", "compensated", *(f"qformer.{n}" for n in range(1, 5)), "projector")
    dataset = translator.dataset(manifest(translator))
    found = record(translator, [dataset], names, keep={0, 7})
    assert set(found) == set(names)
    for tap in names:
        assert torch.allclose(
            found[tap].pooled, pooled_vectors(translator, manifest(translator), tap), atol=1e-5
        )
        assert set(found[tap].tokens) == {0, 7}


def test_tokens_of_a_row_average_to_its_vector_and_long_rows_are_thinned(translator):
    dataset = translator.dataset(manifest(translator))
    whole = record(translator, [dataset], ["encoder", "projector"], keep=range(18), positions=999)
    for recorded in whole.values():
        for row, tokens in recorded.tokens.items():
            assert torch.allclose(tokens.mean(0), recorded.pooled[row], atol=1e-5)
    thin = record(translator, [dataset], ["encoder", "projector"], keep=[17], positions=3)
    assert len(whole["encoder"].tokens[17]) > 3
    kept, before = thin["encoder"].tokens[17], whole["encoder"].tokens[17]
    assert torch.allclose(kept, before[[0, round((len(before) - 1) / 2), -1]], atol=1e-5)
    assert thin["projector"].tokens[17].shape == (3, tiny.WIDTH)


def test_rows_are_counted_through_all_datasets(translator):
    utterances = translator.dataset(manifest(translator)).items.utterances
    base = manifest(translator).rsplit("/", 1)[0]
    parts = [speech_dataset(translator, part, base) for part in (utterances[:5], utterances[5:])]
    found = record(translator, parts, ["projector"], keep={6})["projector"]
    whole = pooled_vectors(translator, manifest(translator))
    assert torch.allclose(found.pooled, whole, atol=1e-5) and set(found.tokens) == {6}


def test_stored_features_stand_in_for_the_recordings(translator, tmp_path):
    utterances = translator.dataset(manifest(translator)).items.utterances
    base = manifest(translator).rsplit("/", 1)[0]
    store = store_features(
        translator.model.encoder, [manifest(translator)], tmp_path, progress=False
    )
    data = translator.config.dataset_config
    heard = record(translator, [speech_dataset(translator, utterances, base)], ["encoder"])
    data.feature_store = str(store.folder)
    try:
        stored = speech_dataset(translator, utterances, "/nowhere")
        found = record(translator, [stored], ["encoder"])
        assert torch.allclose(found["encoder"].pooled, heard["encoder"].pooled, atol=2e-3)
        # What the store does not hold is encoded, as long as the model has its encoder.
        others = [replace(utterance, key=f"new/{utterance.key}") for utterance in utterances]
        again = record(translator, [speech_dataset(translator, others, base)], ["encoder"])
        assert torch.allclose(again["encoder"].pooled, heard["encoder"].pooled, atol=1e-5)
    finally:
        data.feature_store = None


def test_a_target_language_is_not_needed(translator):
    utterances = [
        replace(utterance, target=None, target_language=None)
        for utterance in translator.dataset(manifest(translator)).items.utterances
    ]
    prompt = translator.config.dataset_config.prompt
    translator.config.dataset_config.prompt = "USER : {target_language}"
    try:
        base = manifest(translator).rsplit("/", 1)[0]
        found = record(translator, [speech_dataset(translator, utterances, base)], ["projector"])
    finally:
        translator.config.dataset_config.prompt = prompt
    whole = pooled_vectors(translator, manifest(translator))
    assert torch.allclose(found["projector"].pooled, whole, atol=1e-5)


def test_without_compensation_there_is_no_compensated_tap(tmp_path):
    config = tiny.world(tmp_path)
    config.language_bias.enabled = False
    model, _ = model_factory(
        config.train_config, config.model_config, language_bias=config.language_bias
    )
    assert tap_names(model)[:2] == ("encoder", "qformer.1")
