"""The picture of a plan: its marginals, its tokens' places in time, its errors."""

from __future__ import annotations

import pytest
import torch

from slam_potsa.engine import native
from slam_potsa.engine.decode import Translator, load_run
from slam_potsa.errors import InputError
from slam_potsa.evaluation.transport_view import spans, transport_view
from tests.support import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny.world(tmp_path_factory.mktemp("view"), sentences=3)
    config.native.max_steps = 2
    native.finetune(config)
    return Translator(load_run(config.train_config.output_dir)), config


def test_spans_hold_the_middle_half_of_the_attention():
    attention = torch.zeros(3, 100)
    attention[0] = 1.0  # everywhere: frames 25 to 75
    attention[1, 40] = 1.0  # one frame
    attention[2, 10] = attention[2, 90] = 0.5  # two ends
    expected = [[0.48, 1.5], [0.8, 0.82], [0.2, 1.82]]
    found = spans(attention)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), atol=0.021)
    assert torch.allclose(found[1], torch.tensor([0.8, 0.82], dtype=torch.float64))


def test_a_plan_between_two_recordings(run):
    translator, config = run
    manifest = config.dataset_config.train_data_path
    before = translator.decode(manifest, progress=False)
    view = transport_view(translator, manifest, "en-1", "es-1", layer=3)
    queries = tiny.QUERIES
    assert view.plan.shape == (queries, queries)
    assert torch.allclose(view.plan.sum(0), torch.full((queries,), 1 / queries), atol=1e-3)
    assert view.first.utterance.key == "en-1" and view.second.utterance.language == "es"
    for side in (view.first, view.second):
        assert (side.spans[:, 0] < side.spans[:, 1]).all()
        assert side.spans.max() <= side.utterance.duration + 0.021  # a frame is 20 ms
    assert 0 <= view.diagonal <= 1 and view.cost >= 0
    # Eager attention was for the picture only.
    assert translator.model.encoder_projector.qformer.config._attn_implementation == "sdpa"
    assert translator.decode(manifest, progress=False) == before


def test_equal_recordings_cost_next_to_nothing(run):
    translator, config = run
    manifest = config.dataset_config.train_data_path
    same = transport_view(translator, manifest, "en-1", "en-1")
    other = transport_view(translator, manifest, "en-1", "ru-2")
    assert same.cost < other.cost


def test_all_errors_at_once(run):
    translator, config = run
    with pytest.raises(InputError) as error:
        transport_view(translator, config.dataset_config.train_data_path, "a", "b", layer=9)
    assert len(error.value.problems) == 3
