"""What `slam-potsa plan` counts without data, held to what torch counts on models that run."""

import json
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from slam_potsa.commands.train import read_stages
from slam_potsa.engine.plan.assumptions import ASSUMPTIONS
from slam_potsa.engine.plan.count import (
    LOSS,
    Batch,
    Meter,
    build_on_meta,
    count_step,
    encoder_flops,
)
from slam_potsa.engine.plan.plan import plan_stages
from slam_potsa.engine.plan.stage import Stage, corpus_of
from slam_potsa.model.factory import model_factory
from tests.support import tiny

ROWS, FRAMES, POSITIONS, ANSWER = 4, 16, 24, 5
LLM_LAYERS = 2  # of tiny.world, whose encoder has one
BATCH = Batch(ROWS, ROWS // 2, FRAMES, POSITIONS, ANSWER, ROWS)
GIVEN = {name: default for name, (default, _) in ASSUMPTIONS.items()}


@pytest.fixture
def config(tmp_path):
    config = tiny.world(tmp_path)
    config.model_config.llm_dtype, config.model_config.qformer_layers = "float32", 2
    return config


def choose(config, trains: str) -> None:
    train = config.train_config
    more = {"lora": ["llm.lora"], "llm": ["llm"], "everything": ["encoder", "llm"]}
    train.train_parts = ["projector", *more.get(trains, [])]
    config.language_bias.enabled = train.freeze_encoder


def counted(config, batch: Batch = BATCH):
    built = build_on_meta(config)
    return count_step(built.model, batch, autocast=built.autocast)


class Running:
    """The same model with weights, on a CPU."""

    def __init__(self, config):
        built = build_on_meta(config)
        self.model, self.autocast = built.model.to_empty(device="cpu"), built.autocast
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            tensor.data = torch.randn(tensor.shape).mul(0.1).to(tensor.dtype)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

    def step(self) -> None:
        text = torch.ones(ROWS, POSITIONS, dtype=torch.long)
        attend, heard = text.bool(), torch.ones(ROWS, FRAMES)
        attend[0, :2] = heard[0, 5:] = 0  # padding: else there would be no mask
        inputs = {
            "input_ids": text,
            "labels": text,
            "attention_mask": attend,
            "modality_mask": (torch.arange(POSITIONS) < tiny.QUERIES).expand(ROWS, -1),
            "audio_mel": torch.randn(ROWS, 2 * FRAMES, 80),
            "audio_mel_post_mask": heard,
            "language_ids": torch.zeros(ROWS, dtype=torch.long),
            "sentence_ids": torch.arange(ROWS) // 2,
            "pairs": torch.arange(ROWS).view(-1, 2),
            "label_start": POSITIONS - ANSWER,
        }
        no_sweeps = patch.object(Tensor, "__bool__", lambda _value: False)
        with no_sweeps, torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            output, _ = self.model(**inputs)
        output.loss.backward()

    def flops(self) -> int:
        """Attention as plain products, scores kept."""
        # Its counter knows this product, but not where it is done in place.
        product = {torch.ops.aten.baddbmm_: lambda _sum, x, y, **_: 2 * x[0] * x[1] * x[2] * y[2]}
        counter = FlopCounterMode(display=False, custom_mapping=product)
        with counter, sdpa_kernel(SDPBackend.MATH):
            self.step()
        return counter.get_total_flops()

    def peak(self) -> int:
        weights = [*self.model.parameters(), *self.model.buffers()]
        with ModuleTracker() as modules, Meter("SpeechLLM", weights, modules) as meter:
            self.step()
        return meter.peak.total()


def attention_again(trains: str) -> int:
    """Half of attention's forward once more: what a kernel that keeps no scores computes again."""
    heard = (trains == "everything") * FRAMES**2
    queries = 2 * tiny.QUERIES**2 + tiny.QUERIES * FRAMES
    return 2 * ROWS * (16 * (heard + queries) + LLM_LAYERS * POSITIONS**2 * tiny.WIDTH)


@pytest.mark.parametrize(
    ("trains", "variant", "autocast"),
    [
        ("projector", "plain", False),
        ("projector", "debiased", True),
        ("projector", "contrastive", False),
        ("lora", "plain", True),
        ("llm", "plain", False),
        ("everything", "plain", True),
    ],
)
def test_flops_and_peak_are_those_of_a_step_that_runs(config, trains, variant, autocast):
    choose(config, trains)
    config.alignment.terms["ot"].variant, config.native.bf16 = variant, autocast
    flops, held = counted(config)
    running = Running(config)
    assert flops.total() - attention_again(trains) == running.flops()
    assert held.total() == pytest.approx(running.peak(), rel=0.03)


def test_terms_over_layers_of_the_llm_cost_what_their_length_says(config):
    alone, _ = counted(config)
    layers = {"first": "llm.{layer}", "second": "llm.{layer}", "layers": [LLM_LAYERS]}
    config.alignment.terms["deep"] = replace(config.alignment.terms["ot"], **layers)
    more, _ = counted(config)
    assert {k: n for k, n in alone.items() if k[0] == "llm"}.items() <= more.items()
    assert more[LOSS, "forward", 4] > 2 * alone[LOSS, "forward", 4]  # S positions against N tokens


def test_the_llm_does_no_work_for_rows_that_are_only_aligned(config):
    whole, half = (counted(config, BATCH._replace(answered=n))[0] for n in (ROWS, ROWS // 2))
    for way in ("forward", "backward"):
        assert half["llm", way, 4] == whole["llm", way, 4] / 2 > 0
        assert half["projector", way, 4] == whole["projector", way, 4]
    config.alignment.terms["deep"] = replace(
        config.alignment.terms["ot"], first="llm.1", second="llm.1"
    )
    whole, half = (counted(config, BATCH._replace(answered=n))[0] for n in (ROWS, ROWS // 2))
    assert half == whole


def test_work_is_proportional_to_rows_and_precision_is_that_of_the_weights(config):
    config.alignment.terms.clear()
    config.model_config.llm_dtype = "bfloat16"
    sizes = ({"rows": rows, "answered": rows, "pairs": 0} for rows in (ROWS, 2 * ROWS))
    one, two = (counted(config, BATCH._replace(**each))[0] for each in sizes)
    assert two == {key: 2 * count for key, count in one.items()}
    sizes = {part: size for part, _way, size in one}
    assert sizes == {"encoder": 2, "projector": 4, "llm": 2}
    encoder = encoder_flops(build_on_meta(config).encoder, FRAMES)
    assert one["encoder", "forward", 2] == ROWS * encoder


@pytest.mark.parametrize("trains", ["projector", "lora", "everything"])
def test_weights_are_those_of_the_model_that_is_built(tmp_path, trains):
    config = tiny.world(tmp_path)
    choose(config, trains)
    config.model_config.llm_dtype, config.language_bias.enabled = "bfloat16", False
    sections = {"language_bias": config.language_bias, "alignment": config.alignment}
    built, _ = model_factory(config.train_config, config.model_config, **sections)
    built.controller.detach()
    meta = build_on_meta(config)
    modules = {"encoder": built.encoder, "projector": built.encoder_projector, "llm": built.llm}
    held = {
        name: sum(t.numel() * t.element_size() for t in [*m.parameters(), *m.buffers()])
        for name, m in modules.items()
    }
    assert meta.total(lambda t: t.numel() * t.element_size()) == held
    of_meta, of_built = (
        {n: (p.shape, p.dtype, p.requires_grad) for n, p in model.named_parameters()}
        for model in (meta.model, built)
    )
    assert of_meta == of_built


def stage(config, gpus: int = 1, **changed) -> Stage:
    """With some options of `train_config` or `model_config` changed."""
    config = deepcopy(config)
    for name, value in changed.items():
        section = config.train_config if hasattr(config.train_config, name) else config.model_config
        setattr(section, name, value)
    return Stage(config, build_on_meta(config), corpus_of(config, GIVEN), gpus, GIVEN)


def needed(config, **changed) -> float:
    return sum(stage(config, **changed).memory.values())


def test_more_of_anything_needs_more_and_what_saves_memory_saves_it(config):
    base = needed(config)
    more = (
        {"batch_size_training": 3},
        {"gpus": 2},
        {"query_len": 9},
        {"train_parts": ["projector", "llm.lora"]},
    )
    assert all(needed(config, **given) > base for given in more)
    llm = [stage(config, quantization=q).memory["weights: llm"] for q in (False, True)]
    assert llm[0] > 2 * llm[1]
    config.dataset_config.feature_store = "nowhere"
    assert needed(config, load_encoder=False) < base


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_zero_shares_what_its_stage_says(config, zero, monkeypatch):
    monkeypatch.setattr(Stage, "_count", lambda _stage, _batch: (Counter(), Counter()))
    config.deepspeed_config = f"zero{zero}_bf16"
    alone, four = (stage(config, gpus, enable_deepspeed=True).memory for gpus in (1, 4))
    shared = {name for name in alone if four[name] == pytest.approx(alone[name] / 4, rel=1e-3)}
    expected = {"AdamW"} | ({"gradients"} if zero > 1 else set())
    expected |= {name for name in alone if name.startswith("weights")} if zero == 3 else set()
    assert shared == expected


@pytest.mark.slow
def test_the_figures_on_record_are_those_of_the_recipe_and_that_for_24_gb_fits_them():
    name, stages, processes = read_stages(["recipe=potsa"])
    record = Path(__file__).parents[2] / "benchmarks" / "results" / "plan.json"
    plan = plan_stages(stages, name=name, gpus=processes)
    assert json.loads(json.dumps(plan)) == json.loads(record.read_text())
    _, stages, processes = read_stages(["recipe=potsa_24gb"])
    plan = plan_stages(stages, gpus=processes, gpu_names=("rtx4090", "rtx3090"))
    assert not plan["problems"] and len(plan["stages"]) == len(stages)


@pytest.mark.slow
def test_eight_bits_are_counted_loaded_and_trained(tmp_path):
    pytest.importorskip("bitsandbytes")
    from slam_potsa.engine import native
    from slam_potsa.model.llm import load_llm

    config = tiny.world(tmp_path)
    config.train_config.quantization = True
    config.model_config.llm_dtype, config.native.max_steps = "float32", 2
    llm = load_llm(config.train_config, config.model_config)
    assert llm.model.layers[0].mlp.gate_proj.weight.dtype == torch.int8
    linear = [m for n, m in llm.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    scales = sum(4 * m.out_features for m in linear)  # attributes, no buffers
    held = [t.numel() * t.element_size() for t in [*llm.parameters(), *llm.buffers()]]
    size = build_on_meta(config).total(lambda t: t.numel() * t.element_size())["llm"]
    assert size == sum(held) + scales
    state = torch.load(native.finetune(config), weights_only=True)
    assert state and not any(name.startswith("llm.") for name in state)
