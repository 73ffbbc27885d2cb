"""The benchmark of a training step measures what it says, and its page shows what was measured."""

import argparse
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def step(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("SLAM_LLM_SRC", raising=False)
    import step

    yield step
    for name in ("step", "step_models", "meters"):
        sys.modules.pop(name, None)


def test_every_variant_is_timed_by_part(step, tmp_path):
    whisper = {"d_model": 16, "encoder_layers": 1, "encoder_ffn_dim": 32, "num_mel_bins": 80}
    llm = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
    size = step.Size(
        whisper | {"encoder_attention_heads": 2},
        llm | {"num_attention_heads": 2, "num_key_value_heads": 2},
        {"qformer_dim": 16, "qformer_heads": 2, "qformer_layers": 2, "query_len": 8},
        pairs=1,
        micro=(1,),
    )
    args = argparse.Namespace(device="cpu", rounds=2, lora=False)
    found = step.Bench(size, args, tmp_path).measure(micro=1)
    assert found["accumulation"] == 1 and set(found["load"]) == {"mel", "stored"}
    variants = {v["name"]: v for v in found["variants"]}
    assert len(variants) == 4 and variants["transport, mel"]["profile"]
    for variant in variants.values():
        seconds = variant["seconds"]
        assert seconds["backward"] > 0 and seconds["project"] > 0 and seconds["optimizer"] > 0
        assert (seconds["encode"] > 0) == (variant["source"] == "mel")
        assert variant["ratio"]["cross-entropy"][1] > 0
    apart = [variants[f"{loss}, stored"]["seconds"]["transport"] for loss in step.OURS]
    assert apart[0] < apart[1]


@pytest.mark.parametrize("name", ["step_h100", "step_h100_lora"])
def test_the_page_shows_the_figures_on_record(step, name):
    record = json.loads((RESULTS / f"{name}.json").read_text())
    assert step.text(record) in (ROOT / "docs" / "performance.md").read_text()
