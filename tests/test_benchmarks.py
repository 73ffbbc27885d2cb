import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from scipy import stats

from tests.support import tiny
from tests.support.announcements import announcements

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture
def script(monkeypatch):
    """A module of benchmarks/ by its name, which no other test finds imported."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("SLAM_LLM_SRC", raising=False)
    yield importlib.import_module
    for path in (ROOT / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def step(script):
    return script("step")


def smallest(step):
    whisper = {"d_model": 16, "encoder_layers": 1, "encoder_ffn_dim": 32, "num_mel_bins": 80}
    llm = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
    return step.Size(
        whisper | {"encoder_attention_heads": 2},
        llm | {"num_attention_heads": 2, "num_key_value_heads": 2},
        {"qformer_dim": 16, "qformer_heads": 2, "qformer_layers": 2, "query_len": 8},
        pairs=1,
        micro=(1,),
    )


def test_every_variant_is_timed_by_part(step, tmp_path):
    args = argparse.Namespace(device="cpu", rounds=2, lora=False)
    found = step.Bench(smallest(step), args, tmp_path).measure(micro=1)
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


def test_the_performance_table_has_what_was_recorded(script, monkeypatch, tmp_path):
    table = script("table")
    for name in table.TABLES:
        assert (RESULTS / f"{name}.txt").read_text() == f"{table.text(name)}\n"
    ratio = {"SLAM-LLM, 4 at once": [1.9, 2.0, 2.1]}
    parts = dict(zip("abcd", (4.0, 3.0, 2.0, 1.0), strict=True))
    rows = [
        {"name": f"ours, 4 at once{k}", "ratio": ratio, "parts": parts}
        for k in ("", ", stored features")
    ]
    decode = {"machine": "Linux A, torch 2", "size": "tiny", "arguments": {"batch": [4]}}
    own = {"what": "w", "at_most": 1.1, "result": [0.9, 1.0, 1.2], "where": "nowhere"}
    (tmp_path / "decode.json").write_text(json.dumps(decode | {"rows": rows}))
    (tmp_path / "growth_b.json").write_text(json.dumps({"machine": "B", "table": [own]}))
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    lines = [line.split() for name in table.TABLES for line in table.text(name).splitlines()[1:]]
    assert lines[0][-5:] == [">=", "3.00", "2.00", "(1.90-2.10)", "A"]
    assert " ".join(lines[1]) == "misses it: a 40 %, b 30 %, c 20 %"
    assert lines[4:] == [["w", "<=", "1.10", "1.00", "(0.90-1.20)", "B"]]


def test_an_exponent_is_the_slope_of_logarithms(script):
    rounds = [[{"step": c * n**1.5, "read": c} for n in (1, 2, 4)] for c in (1.0, 1.0, 2.0)]
    found = script("growth").curve((1, 2, 4), rounds, at_most=1.1)
    assert found["exponent"] == [pytest.approx(1.5)] * 3
    assert found["seconds"] == [1.0, 2**1.5, 8.0] and found["where"] == "read 12 %"


@pytest.mark.slow
def test_growth_along_every_axis(script, tmp_path, monkeypatch):
    growth = script("growth")
    path = tmp_path / "growth.json"
    command = f"growth.py --rounds 2 --most 2 --lines 10000 --json {path}"
    monkeypatch.setattr(sys, "argv", command.split())
    growth.main()
    record = json.loads(path.read_text())
    assert set(record["curves"]) == {*growth.AXES, growth.PROCESSES, growth.MANIFEST}
    assert len(record["table"]) == len(record["curves"])
    assert "<svg" in path.with_suffix(".svg").read_text()


@pytest.mark.slow
def test_evidence_of_a_small_world(script, tmp_path, monkeypatch, capsys):
    """Every kind of rows, two seeds; a second call trains nothing and prints the same."""
    evidence = script("evidence")
    tiny.whisper(tmp_path / "demo/parts/whisper-base")
    tiny.llm(tmp_path / "demo/parts/llm")
    systems = ["alone", "longer", "join", "join_shuffled", "pseudo", "ceiling", "partner"]
    systems += ["english", "few", "few_contrastive_shuffled", "pairs", "potsa_shuffled", "join_kl"]
    systems += ["pseudo_shuffled", "join_kl_shuffled", "longer_own_bias"]
    monkeypatch.setattr(evidence.announcements, "build", announcements)
    monkeypatch.setattr(evidence, "FEW", 2)
    monkeypatch.setattr(evidence, "PAIRS", 2)
    monkeypatch.chdir(tmp_path)
    command = "evidence.py --demo demo --output runs --world world --json evidence.json "
    command += "--seeds 1 2 --pairs 3 --steps 2 --more 2 "
    command += "--options train_config.warmup_steps=1 train_config.batch_size_training=2 --systems"
    monkeypatch.setattr(sys, "argv", [*command.split(), *systems])
    evidence.main()
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "evidence.json").read_text())["rows"]
    assert {row["system"] for row in rows} == set(systems)
    assert all(row["seeds"] == [1, 2] and row["ce"]["test/it"] > 0 for row in rows)
    controls = [(row["joins"], row["against"]) for row in rows if row["system"] == "join_shuffled"]
    assert controls == [("it", "longer"), ("fr", "longer")]
    assert "join_shuffled (it, 2)" in (tmp_path / "evidence.svg").read_text()
    monkeypatch.setattr(evidence.native, "finetune", None)
    evidence.main()
    assert capsys.readouterr().out in printed


def test_languages_and_numbers_of_pairs_vary_where_that_is_told(script, monkeypatch):
    evidence = script("evidence")
    monkeypatch.setattr(sys, "argv", ["evidence.py", "--seeds", "3"])
    found = [(run.system, run.language, run.pairs) for run in evidence.runs(evidence._arguments())]
    joins = {(language, pairs) for system, language, pairs in found if system == "join"}
    assert joins == {("it", 40), ("it", 80), ("it", 160), ("it", 320), ("fr", 160)}
    others = {system: (language, pairs) for system, language, pairs in found if system != "join"}
    assert ("join_shuffled", "it", 160) in found and ("join_shuffled", "fr", 160) in found
    assert others["pseudo"] == ("it", 160) and others["longer"] == ("", 0)
    assert len(found) == len(set(found)) == len(others) + len(joins) + 1


def test_intervals_are_over_seeds_and_p_is_corrected_within_a_place(script):
    run, summarise = script("evidence").Run, script("evidence_tables").summarise
    results = {}
    for seed, (own, control, base) in enumerate(
        [(1.0, 3.0, 2.0), (1.1, 3.3, 2.0), (0.9, 3.1, 2.0)]
    ):
        for ce, name in ((own, "join"), (control, "join_shuffled"), (base, "longer")):
            joins = {} if name == "longer" else {"language": "it", "pairs": 9}
            heard = {place: {"ce": {"s": 5.0}} for place in ("test/en", "test/es", "test/ru")}
            results[run(name, seed, **joins)] = heard | {"test/it": {"ce": {"a": ce, "b": ce}}}
    join, control, longer = summarise(results)
    found = join["delta_ce"]["test/it"]
    assert "against" not in longer and join["against"] == control["against"] == "longer"
    test = stats.ttest_1samp([-1.0, -0.9, -1.1], 0)
    assert found["mean"] == -1.0 and found["p"] == pytest.approx(test.pvalue)
    low, high = test.confidence_interval()
    assert found["half"] == pytest.approx((high - low) / 2, abs=1e-4)
    smaller, larger = sorted((found["p"], control["delta_ce"]["test/it"]["p"]))
    assert found["p_holm"] in (pytest.approx(2 * smaller), pytest.approx(max(2 * smaller, larger)))
    first = {run: result for run, result in results.items() if run.seed < 2}
    beside = summarise(results, earlier=summarise(first))
    assert [row["seeds"] for row in beside] == [[0, 1, 2]] * 3
    for row, whole in zip(beside, summarise(results), strict=True):
        assert row["ce"] == pytest.approx(whole["ce"], abs=2e-4)
    again = beside[0]["delta_ce"]["test/it"]
    assert again.pop("each") == found["each"]
    assert again == pytest.approx({name: found[name] for name in again})


def test_decoding_gives_the_texts_of_one_row_at_a_time(script, step, tmp_path, monkeypatch):
    decode = script("decode")
    monkeypatch.setattr(decode, "ANSWER", 4)
    args = argparse.Namespace(device="cpu", rows=2, batch=[1, 2], beams=2, rounds=2)
    args.threads, args.note = 1, "small"
    bench, begun = decode.Bench(smallest(step), args, tmp_path), time.perf_counter()
    rows = bench.measure()
    assert [(row["alike"], row["ratio"]) for row in rows] == [(2, {})] * 4
    assert 0 < 2 * sum(row["seconds"][1] for row in rows) < time.perf_counter() - begun
    for row in rows:
        spent = row["parts"]
        assert min(spent.values()) >= 0
        assert (spent["encode"] == 0) == ("stored" in row["name"])
    record = {"machine": "A", "size": "tiny", "arguments": vars(args), "rows": rows}
    assert decode.text(record).count("ours, 2 at once, stored features") == 2


def test_only_a_free_matching_knows_words_in_another_order(script):
    matching = script("matching")
    x, other = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    free, aligned, near = matching.costs(x, [x.flip(0), other, x], 2)
    assert free[0] < 0.1 * free[1] and free[2] < 0.1 * free[1]
    assert aligned[2] == 0 and aligned[0] > 0.5 * aligned[1] and near > 0.9
    found = matching.compare(
        [x, other, x.flip(0), other], ["a", "b", "a", "b"], ["en", "en", "it", "it"]
    )
    assert found["free"] == 1.0 and found["queries"] == found["candidates"] == 2
    steady = torch.arange(34.0)[:, None]  # changes evenly: fired as cut evenly
    assert torch.equal(matching.even(steady), torch.tensor([[8.0], [25.0]]))
    assert len(matching.fired(steady)) == 2
