import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slam_potsa.cli import main
from slam_potsa.commands.train import read_stages
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.manifest import read_manifest, write_manifest
from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GPUS
from slam_potsa.engine.plan.plan import plan_stages, text
from slam_potsa.engine.plan.stage import corpus_of
from tests.support import tiny

GIVEN = {name: default for name, (default, _) in ASSUMPTIONS.items()}
KINDS = ("experiment", "recipe")
NAMED = [(kind, p.stem) for kind in KINDS for p in sorted((conf_dir() / kind).glob("*.yaml"))]
# Recipes of the demo have the models that it builds, of no known size.
NAMED = [(kind, name) for kind, name in NAMED if not (kind == "recipe" and name.startswith("demo"))]
SMALL = (
    "model_config.llm_path=Qwen/Qwen2.5-0.5B",
    "model_config.encoder_path_hf=openai/whisper-tiny",
    "dataset_config.mel_size=80",
    "model_config.qformer_layers=2",
)


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch):
    """In place of a step that runs: 10 GFLOPs a position, and 800 MiB a row."""

    def count_step(_model, batch, _features, _autocast):
        flops = Counter({("llm", "forward", 2): batch.rows * batch.positions * 10**10})
        return flops, Counter(loss=800 * 2**20 * batch.rows)

    monkeypatch.setattr("slam_potsa.engine.plan.stage.count_step", count_step)


def paper(*overrides: str) -> PotsaConfig:
    return compose_config(["experiment=table1_ours", *SMALL, *overrides])


def test_without_a_manifest_the_corpus_of_the_paper_is_assumed():
    corpus = corpus_of(paper(), GIVEN)
    assert corpus.languages == ("en", "ja", "es", "ko", "ru") and corpus.hours == 50
    assert (corpus.recordings, corpus.items, corpus.pairs) == (12_500, 6_250, 6_250)
    assert corpus.mean_answer == pytest.approx(1 + 2.25 * 14.4)
    english = corpus_of(paper("dataset_config.train_data_path=covost2/train.jsonl"), GIVEN)
    assert english.languages == ("en",) and english.pairs == 0


def test_the_manifest_that_is_here_is_counted(tmp_path):
    config = tiny.world(tmp_path, sentences=6, languages=("en", "es", "ru"))
    corpus = corpus_of(config, GIVEN)
    assert corpus.recordings == 18 and corpus.languages == ("en", "es", "ru")
    assert corpus.items == corpus.pairs == 12  # ceil(3 / 2) draws a sentence
    assert corpus.longest_seconds == pytest.approx(0.9)
    plan = plan_stages([("s", config)])
    assert plan["stages"][0]["steps"] == 2 * 6  # epochs, batches of two items
    path = tmp_path / "data" / "manifest.jsonl"
    lines = [json.loads(line) | {"duration": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = plan_stages([("s", config)])
    assert not plan["stages"] and "18 recordings have no `duration`" in plan["problems"][0]


def test_what_joins_and_mere_partners_are_rows_without_an_answer(tmp_path):
    joins = ("dataset_config.pairing=joining", "dataset_config.joining_share=0.5")
    for joining, count in (("ko", 10_000), ("fr", 12_500)):  # among the corpus's, beside them
        config = paper(*joins, f"dataset_config.joining=[{joining}]")
        corpus = corpus_of(config, GIVEN)
        assert (corpus.items, corpus.pairs, corpus.half_answered) == (2 * count, count, count)
        assert joining in corpus.languages
    for size, expected in ((4, (6, 2, 4)), (1, (2, 1, 1))):
        config.train_config.batch_size_training = size
        found = plan_stages([("s", config)])["stages"][0]
        batch, work = found["mean_batch"], found["micro_step_flops"]["llm"]["forward"]
        assert tuple(batch[name] for name in ("rows", "pairs", "answered")) == expected
        whole = batch["rows"] * batch["positions"] * 10**10
        assert work == whole if size == 4 else whole / 2 < work < whole  # one row, two in turn
    corpus = corpus_of(paper("dataset_config.pairing=partner"), GIVEN)
    assert corpus.items == corpus.pairs == corpus.half_answered == 12_500
    corpus = corpus_of(paper("dataset_config.joining=[fr]"), GIVEN)
    assert (corpus.items, corpus.pairs, corpus.half_answered) == (8_750, 8_750, 2_500)
    config = tiny.world(tmp_path, sentences=6, languages=("en", "es", "it"))
    manifest = Path(config.dataset_config.train_data_path)
    rows = read_manifest(manifest)
    mute = [replace(row, target=None) if row.language == "it" else row for row in rows]
    write_manifest(manifest, mute)
    config.dataset_config.joining = ["it"]
    for pairing, expected in (("random", (12, 12, 6)), ("partner", (18, 18, 18))):
        config.dataset_config.pairing = pairing
        corpus = corpus_of(config, GIVEN)
        assert (corpus.items, corpus.pairs, corpus.half_answered) == expected


@pytest.mark.parametrize("kind, name", NAMED)
def test_every_experiment_and_recipe_can_be_planned(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no checkpoint lies that they start from
    given = list(SMALL) if kind == "experiment" else []
    if given and name.startswith(("authors", "table3_multi")):  # layers up to the fourth
        given += ["model_config.qformer_layers=4"]
    if name == "join":
        given += ["dataset_config.joining=[fr]"]
    title, stages, gpus = read_stages([f"{kind}={name}", *given])
    plan = plan_stages(stages, name=title, gpus=gpus)
    assert not plan["problems"] and len(plan["stages"]) == len(stages)
    assert stages[0][1].model_config.llm_path in text(plan) and json.loads(json.dumps(plan))


def test_a_stage_must_fit_the_cards_that_are_named_or_one_of_all():
    large = paper("train_config.batch_size_training=32")  # 50 GiB
    assert not problems(large)
    plan = plan_stages([("s", large)], gpu_names=("rtx4090", "a100"))
    assert [gpu["fits"] for gpu in plan["stages"][0]["on"].values()] == [False, True]
    (problem,) = plan["problems"]
    assert "on an RTX 4090" in problem and "lower train_config.batch_size_training" in problem
    assert len(problems(paper("train_config.batch_size_training=99"))) == 5


def problems(*stages: PotsaConfig) -> list[str]:
    return plan_stages(list(zip(("one", "two", "three"), stages, strict=False)))["problems"]


def test_stages_that_do_not_fit_each_other(tmp_path):
    for second, said in (
        ("query_len=64", "encoder_projector.query has shape [1, 80, 768]"),
        ("qformer_layers=1", "unexpected encoder_projector.qformer.encoder.layer.1"),
        ("llm_path=Qwen/Qwen2.5-1.5B", "has shape [896, 768], this model [1536, 768]"),
    ):
        told = problems(paper(), paper(f"model_config.{second}"))
        assert all(problem.startswith("two: checkpoint of stage one") for problem in told)
        assert any(said in problem for problem in told)
    torch.save({"encoder_projector.query": torch.zeros(1, 4, 768)}, tmp_path / "model.pt")
    told = problems(paper(f"ckpt_path={tmp_path / 'model.pt'}"))
    assert any("encoder_projector.query has shape [1, 4, 768]" in problem for problem in told)


def test_every_problem_of_every_stage_at_once():
    broken = compose_config(["dataset_config.mel_size=80", "model_config.llm_path=Qwen/Qwen9"])
    long, few = paper("model_config.query_len=33000"), "train_config.batch_size_training=6251"
    told = problems(broken, long, paper(few))
    named = ("one: model_config.llm_path", "one: dataset_config.mel_size")
    for start in (*named, "two: a row of 33", "three: 6250 items are fewer"):
        assert any(problem.startswith(start) for problem in told), start


def test_the_command_prints_writes_and_then_refuses(tmp_path, capsys):
    path = tmp_path / "plan.json"
    given = ("experiment=table1_ours", *SMALL, "--gpus", "4", "--utilisation", "0.5")
    assert main(["plan", *given, "--json", str(path)]) == 0
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    (figures,) = written["stages"]
    assert written["gpus"] == 4 and written["assumptions"]["utilisation"] == 0.5
    assert f"{figures['frozen_parameters']['llm']:,}" in printed and "FLEURS" in printed
    assert figures["frozen_parameters"]["llm"] == 494_032_768
    assert figures["feature_store_bytes"] == 50 * 3600 * 50 * 384 * 2  # hours, frames, width
    assert set(figures["on"]) == set(GPUS)
    assert "4 GPUs x 8 micro-steps" in printed and "--utilisation 0.5" in printed
    large = "train_config.batch_size_training=40"
    assert main(["plan", *SMALL, large, "--gpu", "rtx3090"]) == 2
    said = capsys.readouterr()
    assert "NO" in said.out and "on an RTX 3090" in said.err
    assert main(["plan", *SMALL, "--gpus", "0"]) == 2
    assert "--gpus=0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["plan", "--utilisation", "0"])
