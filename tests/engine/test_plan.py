"""Plans: figures of stages, stages that fit each other, machines, and the command."""

from __future__ import annotations

import argparse
import json
import shlex
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.commands import plan as command
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.feature_store import add_features
from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GPUS
from slam_potsa.engine.plan.corpus import Lengths, corpus_of
from slam_potsa.engine.plan.count import MANY, ROWS, Batch, Flops, Held
from slam_potsa.engine.plan.machines import differences, launch_line
from slam_potsa.engine.plan.plan import plan_stages
from slam_potsa.engine.plan.report import text
from slam_potsa.engine.recipe import literal
from tests.support import tiny

GIVEN = {name: one.default for name, one in ASSUMPTIONS.items()}
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
STORED = ("dataset_config.feature_store=nowhere", "model_config.load_encoder=false")
SMALL = (
    "model_config.llm_path=Qwen/Qwen2.5-0.5B",
    "model_config.encoder_path_hf=openai/whisper-tiny",
    "dataset_config.mel_size=80",
    "model_config.qformer_layers=2",
)


class Uncounted:
    """In place of a step that runs: GFLOPs by positions, and memory that grows with the rows."""

    def __init__(self, model, features: int, autocast: bool):
        pass

    def flops(self, batch: Batch) -> Flops:
        return Flops({("llm", "forward", 2): batch.rows * batch.positions * 10**9})

    def held(self, batch: Batch) -> Held:
        trace = torch.zeros(1, len(ROWS), 3, dtype=torch.float64)
        trace[0, 0, 1] = 800 * 2**20 * batch.rows / MANY
        return Held([{("loss", "forward"): trace}] * 2, torch.ones(1))


@pytest.fixture(autouse=True)
def _uncounted(monkeypatch):
    monkeypatch.setattr("slam_potsa.engine.plan.count.TrainingStep", Uncounted)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def paper(*overrides: str) -> PotsaConfig:
    return compose_config(["experiment=table1_ours", *overrides])


@cache
def planned(*overrides: str, **options: Any) -> dict[str, Any]:
    """The plan of one stage, of the paper's size."""
    return plan_stages([("s", paper(*overrides))], **options)


# -- data ------------------------------------------------------------------------------------------


def test_a_feature_store_is_hours_by_frames_by_width():
    # Five languages of ten hours.
    assert planned(*SMALL)["stages"][0]["feature_store_bytes"] == 50 * 3600 * 50 * 384 * 2


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_expected_longest_row_is_the_mean_over_all_batches(rows):
    values = (1.0, 2.0, 2.0, 5.0)
    batches = list(product(values, repeat=rows))
    mean = sum(map(max, batches)) / len(batches)
    assert Lengths.of(values).expected_longest(rows) == pytest.approx(mean)


def test_the_manifest_that_is_here_is_counted(tmp_path):
    config = tiny.world(tmp_path, sentences=6, languages=("en", "es", "ru"))
    corpus = corpus_of(config, GIVEN)
    assert corpus.counted and corpus.recordings == 18 and corpus.languages == ("en", "es", "ru")
    assert corpus.items == corpus.pairs == 12  # ceil(3 / 2) draws a sentence
    assert corpus.seconds.longest == pytest.approx(0.9) and corpus.prompt == 2
    assert corpus.answers.longest == 5  # four words and eos
    plan = plan_stages([("s", config)])
    assert plan["stages"][0]["steps"] == 2 * 6  # epochs, batches of two items
    assert "fleurs" not in text(plan)


def test_recordings_without_a_duration_are_refused(tmp_path):
    config = tiny.world(tmp_path)
    path = tmp_path / "data" / "manifest.jsonl"
    lines = [json.loads(line) | {"duration": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = plan_stages([("s", config)])
    assert not plan["stages"] and "18 recordings have no `duration`" in plan["problems"][0]


# -- stages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name):
    config = compose_config([f"experiment={name}", *SMALL], checked=False)
    plan = plan_stages([(name, config)], name=name)
    assert not plan["problems"] and len(plan["stages"]) == 1
    assert "Qwen/Qwen2.5-0.5B" in text(plan) and json.loads(json.dumps(plan))


def test_what_a_gpu_cannot_hold_is_said_with_what_to_set():
    given = ("train_config.batch_size_training=64", "train_config.gradient_accumulation_steps=4")
    (problem,) = planned(*given, gpu_names=("rtx4090",))["problems"]
    assert "on an RTX 4090" in problem and "batch_size_training=3" in problem
    assert "gradient_accumulation_steps=86" in problem
    (hopeless,) = planned("model_config.llm_path=Qwen/Qwen2.5-14B", gpu_names=("rtx4090",))[
        "problems"
    ]
    assert "not even one item fits" in hopeless and "quantization=true" in hopeless


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("model_config.query_len=64", "encoder_projector.query has shape [1, 80, 768]"),
        ("model_config.qformer_layers=1", "unexpected encoder_projector.qformer.encoder.layer.1"),
        (
            "model_config.llm_path=Qwen/Qwen2.5-1.5B",
            "linear.weight has shape [896, 768], this model [1536, 768]",
        ),
    ],
)
def test_stages_that_do_not_fit_each_other(second, said):
    problems = plan_stages([("one", paper(*SMALL)), ("two", paper(*SMALL, second))])["problems"]
    assert all(problem.startswith("two: checkpoint of stage one") for problem in problems)
    assert any(said in problem for problem in problems)


def test_a_checkpoint_that_is_here_is_compared(tmp_path):
    config = paper(*SMALL, f"ckpt_path={tmp_path / 'model.pt'}")
    (figures,) = plan_stages([("s", config)])["stages"]
    assert any("not here yet" in note for note in figures["notes"])
    torch.save({"encoder_projector.query": torch.zeros(1, 4, 768)}, tmp_path / "model.pt")
    problems = plan_stages([("s", config)])["problems"]
    assert any("encoder_projector.query has shape [1, 4, 768]" in p for p in problems)


def test_every_problem_of_every_stage_at_once():
    broken = compose_config(
        ["dataset_config.mel_size=80", "train_config.lr=-1", "model_config.llm_path=Qwen/Qwen9"],
        checked=False,
    )
    short = paper(*SMALL, "model_config.query_len=33000")
    problems = plan_stages([("one", broken), ("two", short)])["problems"]
    named = ("one: train_config.lr", "one: model_config.llm_path", "one: dataset_config.mel_size")
    for start in (*named, "two: a row of 33"):
        assert any(problem.startswith(start) for problem in problems), start


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gpus": 0}, "--gpus=0"),
        ({"gpu_names": ["rtx9090"]}, "--gpu=rtx9090"),
        ({"nodes": 0}, "--nodes=0: expected 1 or more"),
        ({"gpu_memory": -1.0}, "--gpu-memory=-1.0: expected 1 or more"),
        ({"assumptions": {"utilisation": 1.5}}, "--utilisation=1.5: expected 0.01 to 1"),
    ],
)
def test_arguments_that_make_no_sense(options, named):
    with pytest.raises(InputError, match=named):
        plan_stages([("s", paper())], **options)


# -- cards, stores and machines ------------------------------------------------------------------


def test_a_card_that_no_table_has_is_planned_by_its_memory_alone():
    plan = planned(*SMALL, gpu_memory=47.5)
    (card,) = plan["stages"][0]["on"].values()
    assert card["fits"] and card["largest_batch"] >= 2
    assert card["hours"] is card["store_hours"] is None
    assert "unlisted 47.5 GiB GPU: no hours" in text(plan) and not plan["problems"]
    both = planned(*SMALL, gpu_names=("a100",), gpu_memory=2.0)
    assert list(both["stages"][0]["on"]) == ["a100", "unlisted"]
    (problem,) = both["problems"]
    assert "on an unlisted 2 GiB GPU" in problem


def test_a_store_is_counted_once_and_only_where_it_is_not_here_yet(tmp_path):
    stored = paper(*SMALL, f"dataset_config.feature_store={tmp_path}", STORED[1])
    other = paper(*SMALL, *STORED)
    plan = plan_stages([("s0", stored), ("s1", stored), ("s2", other)], gpu_names=["a100"])
    hours = plan["stages"][0]["on"]["a100"]["store_hours"]
    line = f"+ {2 * hours:,.1f} h once to store features ({2 * 6.912:,.1f} GB)"
    assert text(plan).count("once to store features") == 1 and line in text(plan)
    assert "once to store" not in text(planned(*SMALL))
    add_features(tmp_path, "fingerprint", 384, [])
    assert "once to store" not in text(plan_stages([("s", stored)]))


def test_several_machines_share_the_accumulation():
    given = (*SMALL, "train_config.validation_interval=780")  # 8 micro-steps of one pair
    one, two = (planned(*given, gpus=4, nodes=nodes) for nodes in (1, 2))
    (figures,), (alone,) = two["stages"], one["stages"]
    words = shlex.split(figures["launch"])
    assert words[words.index("--num_nodes") + 1] == "2"
    assert words[words.index("--num_gpus") + 1] == "4"
    assert "train_config.gradient_accumulation_steps=4" in words
    assert "train_config.validation_interval=390" in words
    assert (figures["gpus"], figures["accumulation"]) == (8, 4)
    assert figures["step_tokens"] == alone["step_tokens"]
    assert "2 machines of 4 GPUs" in text(two)
    assert not alone["launch"] and "machine" not in text(one)


@pytest.mark.parametrize(
    ("override", "nodes", "said"),
    [
        ("train_config.seed=1", 3, "train_config.gradient_accumulation_steps=8"),
        ("engine=native", 2, "engine=native"),
        ("train_config.quantization=true", 2, "train_config.quantization=true"),
    ],
)
def test_what_machines_cannot_share_is_said(override, nodes, said):
    plan = planned(*SMALL, override, nodes=nodes)
    (figures,), (problem,) = plan["stages"], plan["problems"]
    assert (figures["launch"], figures["gpus"], figures["accumulation"]) == ("", 1, 8)
    assert f"--nodes={nodes}" in problem and said in problem


@pytest.mark.parametrize("alignment", ["ot", "none", "[ot,cosine]", "ot_paper"])
def test_the_launch_line_composes_the_same_configuration(alignment):
    config = compose_config(
        [
            f"alignment={alignment}",
            "native.max_grad_norm=0.5",
            "dataset_config.tasks=[asr,s2tt]",
            "dataset_config.prompt=" + literal("it's {language_name}:\nthen"),
            "train_config.model_name='null'",
        ]
    )
    words = shlex.split(launch_line(config, nodes=2, gpus=8))
    named = ["--hostfile", "hostfile", "--num_nodes", "2", "--num_gpus", "8"]
    assert words[:7] == ["deepspeed", *named]
    overrides = [word for word in words[8:] if not word.startswith("deepspeed_config=")]
    assert compose_config(overrides) == config
    assert set(differences(config)) == {override.split("=")[0] for override in overrides}


# -- command ---------------------------------------------------------------------------------------


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["plan", *words])
    args.command(args)


def test_the_command_prints_and_writes(tmp_path, capsys):
    path = tmp_path / "plan.json"
    given = ("experiment=table1_ours", *SMALL, "--gpus", "4", "--utilisation", "0.5")
    run(*given, "--json", str(path))
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    (figures,) = written["stages"]
    assert written["gpus"] == 4 and written["assumptions"]["utilisation"] == 0.5
    assert f"{figures['frozen_parameters']['llm']:,}" in printed and "FLEURS" in printed
    assert figures["frozen_parameters"]["llm"] == 494_032_768
    assert set(figures["on"]) == set(GPUS)
    assert "(largest batch: pairs, of two recordings each" in printed


def test_the_command_refuses_after_it_has_printed(capsys):
    with pytest.raises(InputError, match="unlisted 2 GiB GPU"):
        run(*SMALL, "--gpu-memory", "2")
    assert "NO" in capsys.readouterr().out
