"""The picture of a plan: its marginals, its tokens' places in time, which pairs are looked at."""

from __future__ import annotations

import json

import pytest
import torch

from slam_potsa.data.manifest import Utterance
from slam_potsa.evaluation.activations import read_recordings
from slam_potsa.evaluation.transport_view import aligned_layer, choose_pairs, spans, transport_view
from tests.support import tiny
from tests.support.trained import untrained_run


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("view"))


def test_spans_hold_the_middle_half_of_the_attention():
    attention = torch.zeros(3, 100)
    attention[0] = 1.0  # everywhere: frames 25 to 75
    attention[1, 40] = 1.0  # one frame
    attention[2, 10] = attention[2, 90] = 0.5  # two ends
    expected = [[0.48, 1.5], [0.8, 0.82], [0.2, 1.82]]
    assert torch.allclose(spans(attention), torch.tensor(expected, dtype=torch.float64), atol=0.021)


def test_a_plan_between_two_recordings(translator):
    rows = read_recordings([translator.config.dataset_config.test_data_path])
    recordings = {row.key: row for row in rows}
    view = transport_view(translator, recordings["en-1"], recordings["es-1"], layer=3)
    plan, queries = torch.tensor(view.plan), tiny.QUERIES
    assert plan.shape == (queries, queries) and view.layer == 3
    assert torch.allclose(plan.sum(0), torch.full((queries,), 1 / queries), atol=1e-3)
    assert view.languages == ["en", "es"] and json.loads(json.dumps(view.plan)) == view.plan
    for side, key in zip(view.spans, ("en-1", "es-1"), strict=True):
        assert all(begin < end for begin, end in side)
        assert max(max(side)) <= recordings[key].duration + 0.021  # a frame is 20 ms
    assert 0 <= view.diagonal <= 1
    # Eager attention was for the picture only.
    assert translator.model.encoder_projector.qformer.config._attn_implementation == "sdpa"
    same = transport_view(translator, recordings["en-1"], recordings["en-1"], layer=2)
    other = transport_view(translator, recordings["en-1"], recordings["ru-2"], layer=2)
    assert 0 <= same.cost < other.cost


def test_pairs_are_of_all_kinds_and_of_different_sentences():
    spoken = {"en": "abcd", "fr": "bd", "es": "abcd", "ru": "abc"}
    rows = [Utterance(f"{n}-{s}", "a", n, s) for n, sentences in spoken.items() for s in sentences]
    pairs = [[row.key for row in pair] for pair in choose_pairs(rows, ["en", "es"])]
    assert pairs == [["en-a", "es-a"], ["fr-b", "es-b"]]  # French and Russian share only b
    few = choose_pairs(rows[:6], ["en"])
    assert [[row.key for row in pair] for pair in few] == [["en-b", "fr-b"]]


def test_the_layer_of_the_plans_is_the_one_aligned_most(tmp_path):
    lines = [{"layers": [3]}, {"layers": [3, 1]}, {"layers": None}, {}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert aligned_layer([tmp_path / "none", tmp_path], 4) == 3
    assert aligned_layer([tmp_path], 2) == 1
    assert aligned_layer([tmp_path / "none"], 4) == 2 and aligned_layer([], 1) == 1
