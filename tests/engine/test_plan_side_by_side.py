"""What the step that runs without data counts, beside the formulas that it replaces."""

from __future__ import annotations

import pytest

from slam_potsa.config.compose import compose_config
from slam_potsa.engine.plan import budget
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.corpus import corpus_of
from slam_potsa.engine.plan.count import MANY, REST, Batch, TrainingStep
from slam_potsa.engine.plan.parts import build_on_meta
from tests.support import tiny


def both(config):
    """(parts, mean batch, formula's FLOPs, counted FLOPs by part, the step)."""
    corpus = corpus_of(config, Assumptions())
    parts = build_on_meta(config, corpus.languages)
    parts.model.controller.diagnose_interval = 0
    parts.model.train()
    features = parts.encoder.width if config.dataset_config.feature_store else 0
    step = TrainingStep(parts.model, features=features, autocast=parts.precision.autocast)
    batch = budget.mean_batch(config, parts, corpus)
    counted = {}
    for (part, way, _item), flops in step.flops(Batch(**batch._asdict())).items():
        name = "alignment" if part == REST else part
        counted[name, way] = counted.get((name, way), 0) + flops
    return parts, corpus, budget.step_flops(config, parts, batch), counted, step


def assert_equal_flops(formulas, counted):
    for part, flops in formulas.items():
        for way, value in flops._asdict().items():
            assert counted.pop((part, way), 0) == pytest.approx(value, rel=1e-12), (part, way)
    assert not any(counted.values())


def assert_bytes_near(config, parts, corpus, step, rel):
    many = budget.worst_batch(config, parts, corpus, MANY)
    items = config.train_config.batch_size_training
    counted = sum(step.held(Batch(**many._asdict())).peak(items).values())
    worst = budget.worst_batch(config, parts, corpus, items)
    formula = sum(budget._passing(config, parts, worst).values())
    # A row of its own in the formulas' table, where the LLM's or the projector's weights train.
    formula += budget._static(config, parts, 1).get("weights cast by autocast", 0)
    print(f"formulas {formula / 2**20:,.1f} MiB, counted {counted / 2**20:,.1f} MiB")
    assert counted == pytest.approx(formula, rel=rel)


@pytest.mark.parametrize("variant", ["plain", "normalised", "debiased", "contrastive"])
@pytest.mark.parametrize("trains", ["projector", "lora", "llm", "everything"])
def test_equal_flops_on_tiny_models(tmp_path, variant, trains):
    config = tiny.world(tmp_path)
    config.alignment.terms["ot"].variant = variant
    config.train_config.batch_size_training = 3
    config.train_config.use_peft = trains == "lora"
    config.train_config.freeze_llm = trains not in ("llm", "everything")
    config.train_config.freeze_encoder = trains != "everything"
    config.alignment.terms["ot"].detach = "second" if trains == "lora" else "none"
    _, _, formulas, counted, _ = both(config)
    assert_equal_flops(formulas, counted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "rel"),
    [
        (("experiment=table1_ours",), 0.05),
        (("experiment=table3_multi",), 0.05),
        (("experiment=table1_ours", "native.bf16=true"), 0.1),
        (("experiment=table1_ours", "dataset_config.feature_store=f"), 0.05),
        (("experiment=table1_ours", "train_config.use_peft=true"), 0.1),
        (("alignment=none", "train_config.batch_size_training=4"), 0.1),
        (
            (
                "train_config.freeze_encoder=false",
                "native.bf16=true",
                "language_bias.enabled=false",
            ),
            0.1,
        ),
        (("train_config.freeze_llm=false", "native.bf16=true"), 0.1),
    ],
)
def test_at_the_papers_size_flops_are_equal_and_bytes_near(overrides, rel):
    config = compose_config(list(overrides))
    parts, corpus, formulas, counted, step = both(config)
    assert_equal_flops(formulas, counted)
    assert_bytes_near(config, parts, corpus, step, rel)
