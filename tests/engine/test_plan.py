"""Plans: budgets, stages that fit each other, and the command."""

from __future__ import annotations

import argparse
import json
import shlex
from functools import cache
from itertools import product

import pytest
import torch

from slam_potsa import InputError
from slam_potsa.commands import plan as command
from slam_potsa.config import PotsaConfig
from slam_potsa.config.compose import compose_config, conf_dir
from slam_potsa.data.feature_store import add_features
from slam_potsa.engine.plan import budget
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.corpus import Lengths, corpus_of
from slam_potsa.engine.plan.hardware import GPUS
from slam_potsa.engine.plan.launch_line import differences, launch_line
from slam_potsa.engine.plan.parts import build_on_meta
from slam_potsa.engine.plan.plan import plan_stages
from tests.support import tiny


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_arguments, **_options):
        raise AssertionError("a hub was asked")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


# -- budgets ---------------------------------------------------------------------------------------


def paper(*overrides: str) -> PotsaConfig:
    return compose_config(["experiment=table1_ours", *overrides])


@cache
def built(*overrides: str):
    config = paper(*overrides)
    return config, build_on_meta(config), corpus_of(config, Assumptions())


def needed(*overrides: str, items: int = 2, gpus: int = 1) -> dict[str, int]:
    return budget.memory(*built(*overrides), items, gpus, Assumptions())


def test_more_of_anything_needs_more():
    base = sum(needed().values())
    assert sum(needed(items=3).values()) > base
    assert sum(needed(gpus=2).values()) > base  # DDP's buckets
    assert sum(needed("model_config.query_len=120").values()) > base
    assert sum(needed("train_config.use_peft=true").values()) > base


def test_what_saves_memory_saves_it():
    base = sum(needed().values())
    for saving in (
        ("dataset_config.feature_store=nowhere", "model_config.load_encoder=false"),
        ("train_config.quantization=true",),
        ("model_config.llm_path=Qwen/Qwen2.5-3B",),
    ):
        assert sum(needed(*saving).values()) < base


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_shares_what_its_stage_says(stage):
    zero = ("train_config.enable_deepspeed=true", f"deepspeed_config=zero{stage}_bf16")
    alone, four = (needed(*zero, gpus=gpus) for gpus in (1, 4))
    shared = {name for name in alone if four[name] == pytest.approx(alone[name] / 4, rel=1e-6)}
    expected = {"AdamW"} | ({"gradients"} if stage > 1 else set())
    expected |= {name for name in alone if name.startswith("weights")} if stage == 3 else set()
    assert shared == expected


def test_the_largest_batch_is_the_largest():
    (stage,) = plan_stages([("s", paper())]).stages
    for name, gpu in stage.on.items():
        assert sum(needed(items=gpu.largest_batch).values()) <= GPUS[name].memory
        assert sum(needed(items=gpu.largest_batch + 1).values()) > GPUS[name].memory
        fits = gpu.largest_batch >= 2
        assert gpu.fits is fits and (gpu.free_gib >= 0) is fits


def test_twice_the_utilisation_is_half_the_time():
    slow, fast = (
        plan_stages([("s", paper())], assumptions=Assumptions(utilisation=u)).stages[0]
        for u in (0.25, 0.5)
    )
    for gpu in GPUS:
        assert slow.on[gpu].hours == pytest.approx(2 * fast.on[gpu].hours)


def test_a_feature_store_is_hours_by_frames_by_width():
    (stage,) = plan_stages([("s", paper())]).stages
    assert stage.store_bytes == 50 * 3600 * 50 * 1280 * 2  # five languages of ten hours


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_expected_longest_row_is_the_mean_over_all_batches(rows):
    values = (1.0, 2.0, 2.0, 5.0)
    batches = list(product(values, repeat=rows))
    mean = sum(map(max, batches)) / len(batches)
    assert Lengths.of(values).expected_longest(rows) == pytest.approx(mean)


def test_the_manifest_that_is_here_is_counted(tmp_path):
    config = tiny.world(tmp_path, sentences=6, languages=("en", "es", "ru"))
    corpus = corpus_of(config, Assumptions())
    assert corpus.counted and corpus.recordings == 18 and corpus.languages == ("en", "es", "ru")
    assert corpus.items == corpus.pairs == 12  # ceil(3 / 2) draws a sentence
    assert corpus.seconds.longest == pytest.approx(0.9) and corpus.prompt == 2
    assert corpus.answers.longest == 5  # four words and eos
    (stage,) = plan_stages([("s", config)]).stages
    assert stage.steps == 2 * 6  # epochs, batches of two items


def test_recordings_without_a_duration_are_refused(tmp_path):
    config = tiny.world(tmp_path)
    path = tmp_path / "data" / "manifest.jsonl"
    lines = [json.loads(line) | {"duration": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = plan_stages([("s", config)])
    assert not plan.stages and "18 recordings have no `duration`" in plan.problems[0]


# -- stages ----------------------------------------------------------------------------------------


def test_the_recipe_for_24_gb_fits_24_gb():
    _, stages, processes = command.read_stages(["recipe=potsa_24gb"])
    plan = plan_stages(stages, gpus=processes, gpu_names=["rtx4090"])
    assert not plan.problems
    assert all(stage.on["rtx4090"].fits and not stage.frozen["encoder"] for stage in plan.stages)
    batches = {
        name: [
            config.train_config.batch_size_training
            * config.train_config.gradient_accumulation_steps
            * processes
            for _, config in command.read_stages([f"recipe={name}"])[1]
        ]
        for name, processes in (("potsa", 4), ("potsa_24gb", 1))
    }
    assert batches["potsa"] == batches["potsa_24gb"]


def test_what_a_gpu_cannot_hold_is_said_with_what_to_set():
    config = paper(
        "train_config.batch_size_training=64", "train_config.gradient_accumulation_steps=4"
    )
    (problem,) = plan_stages([("s", config)], gpu_names=["rtx4090"]).problems
    assert "on an RTX 4090" in problem and "batch_size_training=2" in problem
    assert "gradient_accumulation_steps=128" in problem
    (hopeless,) = plan_stages(
        [("s", paper("model_config.llm_path=Qwen/Qwen2.5-14B"))], gpu_names=["rtx4090"]
    ).problems
    assert "not even one item fits" in hopeless and "quantization=true" in hopeless


def test_stages_that_do_not_fit_each_other():
    first, second = paper(), paper("model_config.qformer_layers=6", "model_config.query_len=64")
    second.dataset_config.fix_length_audio = 64
    problems = plan_stages([("one", first), ("two", second)]).problems
    assert all(problem.startswith("two: checkpoint of stage one") for problem in problems)
    assert any("encoder_projector.query has shape [1, 80, 768]" in p for p in problems)
    assert any("unexpected encoder_projector.qformer.encoder.layer.6" in p for p in problems)


def test_an_llm_of_another_width_does_not_fit_the_projector():
    stages = [("one", paper()), ("two", paper("model_config.llm_path=Qwen/Qwen2.5-3B"))]
    problems = plan_stages(stages).problems
    assert any("linear.weight has shape [3584, 768], this model [2048, 768]" in p for p in problems)


def test_a_checkpoint_that_is_here_is_compared(tmp_path):
    config = paper(f"ckpt_path={tmp_path / 'model.pt'}")
    (stage,) = plan_stages([("s", config)]).stages
    assert any("not here yet" in note for note in stage.notes)
    torch.save({"encoder_projector.query": torch.zeros(1, 4, 768)}, tmp_path / "model.pt")
    problems = plan_stages([("s", config)]).problems
    assert any("encoder_projector.query has shape [1, 4, 768]" in p for p in problems)


def test_every_problem_of_every_stage_at_once():
    broken = compose_config(
        ["dataset_config.mel_size=80", "train_config.lr=-1", "model_config.llm_path=Qwen/Qwen9"],
        checked=False,
    )
    short = paper("model_config.query_len=33000", "dataset_config.fix_length_audio=33000")
    short.model_config.llm_path = "Qwen/Qwen2.5-3B"
    problems = plan_stages([("one", broken), ("two", short)]).problems
    named = ("one: train_config.lr", "one: model_config.llm_path", "one: dataset_config.mel_size")
    for start in (*named, "two: a row of 33"):
        assert any(problem.startswith(start) for problem in problems), start


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gpus": 0}, "--gpus=0"),
        ({"gpu_names": ["rtx9090"]}, "--gpu=rtx9090"),
        ({"nodes": 0}, "--nodes=0: expected 1 or more"),
        ({"gpu_memory": -1.0}, "--gpu-memory=-1.0: expected GiB, above 0"),
        ({"assumptions": Assumptions(utilisation=1.5)}, "--utilisation=1.5: expected 0.01 to 1"),
    ],
)
def test_arguments_that_make_no_sense(options, named):
    with pytest.raises(InputError, match=named):
        plan_stages([("s", paper())], **options)


@pytest.mark.parametrize(
    ("set_value", "named"),
    [
        ({"freeze_llm": False}, "freeze_llm=true or use_peft=true"),
        ({"enable_deepspeed": True}, "engine=native"),
    ],
)
def test_eight_bits_where_they_cannot_be(set_value, named):
    config = PotsaConfig()
    config.train_config.quantization = True
    vars(config.train_config).update(set_value)
    assert any(named in problem for problem in plan_stages([("s", config)]).problems)


# -- cards, stores and machines ------------------------------------------------------------------


def test_a_card_that_no_table_has_is_planned_by_its_memory_alone():
    plan = plan_stages([("s", paper())], gpu_memory=47.5)
    (card,) = plan.stages[0].on.values()
    assert card.fits and card.largest_batch >= 2 and card.hours is card.store_hours is None
    assert "unlisted 47.5 GiB GPU: no hours" in plan.text()
    assert not plan.problems and json.loads(json.dumps(plan.as_dict()))
    both = plan_stages([("s", paper())], gpu_names=["a100"], gpu_memory=12.0)
    assert list(both.stages[0].on) == ["a100", "unlisted"]
    (problem,) = both.problems
    assert "on an unlisted 12 GiB GPU" in problem


def test_a_store_is_counted_once_and_only_where_it_is_not_here_yet(tmp_path):
    stored = paper(f"dataset_config.feature_store={tmp_path}", "model_config.load_encoder=false")
    other = paper("dataset_config.feature_store=nowhere", "model_config.load_encoder=false")
    hours = plan_stages([("s", stored)]).stages[0].on["a100"].store_hours
    for stages, times in (([stored], 1), ([stored, stored], 1), ([stored, other, paper()], 2)):
        named = [(f"s{number}", config) for number, config in enumerate(stages)]
        text = plan_stages(named, gpu_names=["a100"]).text()
        line = f"+ {times * hours:,.1f} h once to store features ({times * 23.04:,.1f} GB)"
        assert text.count("once to store features") == 1 and line in text
    assert "once to store" not in plan_stages([("s", paper())]).text()
    add_features(tmp_path, "fingerprint", 1280, [])
    assert "once to store" not in plan_stages([("s", stored)]).text()


def test_several_machines_share_the_accumulation():
    config = paper("train_config.validation_interval=780")  # 8 micro-steps of one pair
    one, two = (plan_stages([("s", config)], gpus=4, nodes=nodes) for nodes in (1, 2))
    assert not one.stages[0].launch and "machine" not in one.text()
    (stage,) = two.stages
    words = shlex.split(stage.launch)
    assert words[words.index("--num_nodes") + 1] == "2"
    assert words[words.index("--num_gpus") + 1] == "4"
    assert {
        "train_config.gradient_accumulation_steps=4",
        "train_config.validation_interval=390",
    } <= set(words)
    assert (stage.gpus, stage.accumulation) == (8, 4)
    assert stage.step_tokens == one.stages[0].step_tokens
    assert "2 machines of 4 GPUs" in two.text()


def test_an_accumulation_that_machines_cannot_share_is_refused():
    plan = plan_stages([("s", paper())], nodes=3)
    (problem,) = plan.problems
    assert "--nodes=3: train_config.gradient_accumulation_steps=8" in problem
    assert plan.stages[0].launch == "" and plan.stages[0].gpus == 1


@pytest.mark.parametrize("override", ["engine=native", "train_config.quantization=true"])
def test_what_the_native_host_alone_trains_stays_on_one_machine(override):
    plan = plan_stages([("s", paper(override))], nodes=2)
    (stage,) = plan.stages
    assert (stage.launch, stage.gpus, stage.accumulation) == ("", 1, 8)
    (line,) = (line for line in plan.text().splitlines() if "one machine" in line)
    assert line.startswith("on one machine only: s (") and override.split("=")[0] in line


def test_the_table_says_what_its_columns_are():
    paired = plan_stages([("s", paper())]).text()
    single = plan_stages([("s", paper("dataset_config.pairing=none", "alignment=none"))]).text()
    assert "(largest batch: pairs, of two recordings each" in paired
    assert "(largest batch: recordings" in single and "`slam-potsa features`" in single


def test_the_header_of_the_24_gb_recipe_has_the_figures_of_its_plan():
    _, stages, _ = command.read_stages(["recipe=potsa_24gb"])
    plan = plan_stages(stages)
    once = {stage.store: stage for stage in plan.stages}.values()
    figures = [f"{sum(stage.store_bytes for stage in once) / 1e9:.0f} GB of disk"]
    for card in ("rtx4090", "rtx3090"):
        figures.append(f"{sum(stage.on[card].store_hours for stage in once):.1f} h on an RTX")
        figures.append(f"{sum(stage.on[card].hours for stage in plan.stages):.0f} h")
    header = (conf_dir() / "recipe" / "potsa_24gb.yaml").read_text().partition("output_dir")[0]
    assert [figure for figure in figures if figure not in header] == []


# -- command ---------------------------------------------------------------------------------------


def run(*words: str) -> None:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers(required=True))
    args = parser.parse_args(["plan", *words])
    args.command(args)


def test_the_command_prints_and_writes(tmp_path, capsys):
    path = tmp_path / "plan.json"
    run("experiment=table1_ours", "--gpus", "4", "--utilisation", "0.5", "--json", str(path))
    printed, written = capsys.readouterr().out, json.loads(path.read_text())
    (stage,) = written["stages"]
    assert written["gpus"] == 4 and written["assumptions"]["utilisation"] == 0.5
    assert f"{stage['frozen_parameters']['llm']:,}" in printed and "FLEURS" in printed
    assert stage["frozen_parameters"]["llm"] == 7_615_616_512
    assert set(stage["on"]) == set(GPUS)


def test_the_command_refuses_after_it_has_printed(capsys):
    with pytest.raises(InputError, match="RTX 4090"):
        run("train_config.batch_size_training=64", "--gpu", "rtx4090")
    assert "NO" in capsys.readouterr().out


def test_the_launch_line_composes_the_same_configuration():
    from slam_potsa.engine.recipe import literal

    config = paper(
        "native.max_grad_norm=0.5",
        "dataset_config.tasks=[asr,s2tt]",
        "dataset_config.prompt=" + literal("it's {language_name}:\nthen"),
        "train_config.model_name='null'",
    )
    line = launch_line(config, nodes=2, gpus=8)
    words = shlex.split(line)
    assert words[:7] == [
        "deepspeed",
        "--hostfile",
        "hostfile",
        "--num_nodes",
        "2",
        "--num_gpus",
        "8",
    ]
    overrides = [word for word in words[8:] if not word.startswith("deepspeed_config=")]
    again = compose_config(overrides)
    assert again == config
    assert set(differences(config)) == {override.split("=")[0] for override in overrides}
