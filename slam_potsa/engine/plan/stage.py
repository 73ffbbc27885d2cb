"""One stage's figures: what it has, needs and takes on each GPU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from slam_potsa.config import PotsaConfig
from slam_potsa.engine.plan import budget
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.corpus import Corpus
from slam_potsa.engine.plan.flops import Flops, encoder_flops
from slam_potsa.engine.plan.hardware import Gpu
from slam_potsa.engine.plan.parts import Parts
from slam_potsa.engine.plan.sizes import FRAMES_PER_SECOND, GIB, Batch

LARGEST_BATCH = 4096  # items a GPU; more are not looked for


@dataclass(frozen=True)
class OnGpu:
    """A stage on one kind of GPU."""

    label: str
    fits: bool
    free_gib: float
    largest_batch: int  # items a micro-step that fit; 0: none
    seconds_a_step: (
        float | None
    )  # optimizer step; None, as the hours: the card's speed is not known
    hours: float | None
    store_hours: float | None  # encoding all recordings once, in float32, on one GPU


@dataclass(frozen=True)
class StagePlan:
    """What a stage is, holds and costs. Bytes and FLOPs are a GPU's, tokens and steps all GPUs'."""

    name: str
    models: dict[str, str]
    corpus: Corpus
    trainable: dict[str, int]
    frozen: dict[str, int]
    memory: dict[str, int]
    batch: Batch  # what a micro-step holds on average
    worst: Batch
    flops: dict[str, Flops]  # of a micro-step
    accumulation: int
    gpus: int
    steps: int
    total_steps: int
    store_bytes: int
    store: tuple[str, str] | None  # (folder, manifest) of features that are yet to be stored
    on: dict[str, OnGpu]
    launch: str = ""  # on several machines, where that is asked for
    one_machine: str = ""  # why there is no such command
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def peak_gib(self) -> float:
        return sum(self.memory.values()) / GIB

    @property
    def step_flops(self) -> float:
        """Of an optimizer step, on all GPUs."""
        return sum(f.total for f in self.flops.values()) * self.accumulation * self.gpus

    @property
    def step_tokens(self) -> int:
        """LLM positions of an optimizer step, padding included, on all GPUs."""
        return self.batch.rows * self.batch.positions * self.accumulation * self.gpus


def make_stage(
    name: str,
    config: PotsaConfig,
    parts: Parts,
    corpus: Corpus,
    *,
    gpus: int,
    cards: Mapping[str, Gpu],
    assumptions: Assumptions,
    store: tuple[str, str] | None = None,
    launch: str = "",
    one_machine: str = "",
    notes: tuple[str, ...] = (),
) -> StagePlan:
    """The figures of a stage whose model could be built."""
    train = config.train_config
    batch = budget.mean_batch(config, parts, corpus)
    work = budget.step_flops(config, parts, batch)
    steps = _steps(config, corpus, gpus)
    return StagePlan(
        name=name,
        models={
            "encoder": config.model_config.encoder_path_hf,
            "projector": f"{config.model_config.encoder_projector}, {parts.projector.layers} x "
            f"{parts.projector.width}, {parts.projector.queries} queries",
            "llm": config.model_config.llm_path + (" in 8 bits" if train.quantization else ""),
        },
        corpus=corpus,
        trainable=parts.trainable,
        frozen=parts.frozen,
        memory=budget.memory(config, parts, corpus, train.batch_size_training, gpus, assumptions),
        batch=batch,
        worst=budget.worst_batch(config, parts, corpus, train.batch_size_training),
        flops=work,
        accumulation=train.gradient_accumulation_steps,
        gpus=gpus,
        steps=steps,
        total_steps=train.total_steps,
        store_bytes=budget.store_bytes(corpus.hours, parts.encoder.width),
        store=store,
        on={
            name: _on_gpu(card, config, parts, corpus, work, steps, gpus, assumptions)
            for name, card in cards.items()
        },
        launch=launch,
        one_machine=one_machine,
        notes=notes,
    )


def stage_problems(plan: StagePlan, config: PotsaConfig, parts: Parts) -> Iterator[str]:
    """Positions, batches and steps that do not work out."""
    worst, llm, corpus = plan.worst, parts.llm, plan.corpus
    if llm.positions and worst.positions > llm.positions:
        yield (
            f"a row of {worst.positions} positions ({parts.projector.queries} queries, "
            f"{corpus.prompt} of the prompt, {worst.answer} of the answer): "
            f"{plan.models['llm']} has {llm.positions}; lower model_config.query_len or leave long "
            "answers out"
        )
    if not plan.steps:
        size = config.train_config.batch_size_training
        yield (
            f"{corpus.items} items are fewer than one batch of {size} on {plan.gpus} GPUs: lower "
            "train_config.batch_size_training"
        )


def step_notes(plan: StagePlan, config: PotsaConfig) -> Iterator[str]:
    """Where training would end, seen from its schedule."""
    train = config.train_config
    if plan.steps and plan.steps <= train.warmup_steps:
        yield f"ends at step {plan.steps}, inside the warm-up of {train.warmup_steps} steps"
    elif 0 < plan.steps < train.total_steps:
        left = 1 - (plan.steps - train.warmup_steps) / (train.total_steps - train.warmup_steps)
        yield (
            f"ends at step {plan.steps} of total_steps={train.total_steps}, at {left:.0%} of the "
            "peak rate"
        )
    if not (config.native.bf16 or train.use_fp16 or train.enable_deepspeed):
        yield "the projector computes in float32, without tensor cores; native.bf16=true casts it"
    if train.quantization:
        yield (
            "8 bits: bitsandbytes keeps the inputs of its matrices, which is counted; how much "
            "slower its products are is not"
        )


def _steps(config: PotsaConfig, corpus: Corpus, gpus: int) -> int:
    """Optimizer steps, as the native host counts them: incomplete batches are dropped."""
    train = config.train_config
    share = -(-corpus.items // gpus)
    batches = share // train.batch_size_training
    if corpus.items < train.batch_size_training * gpus:
        return 0
    epochs = train.num_epochs * math.ceil(batches / train.gradient_accumulation_steps)
    return config.native.max_steps or min(epochs, train.total_steps)


def _on_gpu(
    gpu: Gpu,
    config: PotsaConfig,
    parts: Parts,
    corpus: Corpus,
    work: dict[str, Flops],
    steps: int,
    gpus: int,
    assumptions: Assumptions,
) -> OnGpu:
    train = config.train_config

    def needed(items: int) -> int:
        return sum(budget.memory(config, parts, corpus, items, gpus, assumptions).values())

    use = needed(train.batch_size_training)
    seconds = store = None
    if gpu.half is not None:
        seconds = budget.seconds(work, parts, gpu, assumptions.utilisation)
        seconds *= train.gradient_accumulation_steps
        store = _store_seconds(config, parts, corpus, gpu.single * assumptions.utilisation)
    return OnGpu(
        label=gpu.label,
        fits=use <= gpu.memory,
        free_gib=(gpu.memory - use) / GIB,
        largest_batch=_largest(needed, gpu.memory),
        seconds_a_step=seconds,
        hours=None if seconds is None else steps * seconds / 3600,
        store_hours=None if store is None else store / 3600,
    )


def _largest(needed, memory: int) -> int:
    """The most items whose memory fits, by bisection: memory only grows with the batch."""
    low, high = 0, LARGEST_BATCH + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= memory else (low, middle)
    return low


def _store_seconds(config: PotsaConfig, parts: Parts, corpus: Corpus, rate: float) -> float:
    """`slam-potsa features`: the encoder once over every recording."""
    if config.model_config.encoder_window == "30s":
        frames = parts.encoder.positions
    else:
        frames = math.ceil(corpus.seconds.mean * FRAMES_PER_SECOND)
    return corpus.recordings * encoder_flops(parts.encoder, frames, trained=False).total / rate
