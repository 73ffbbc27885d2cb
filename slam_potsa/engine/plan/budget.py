"""The memory of one GPU and the work of one step, part by part."""

from __future__ import annotations

import math

from slam_potsa.config import PotsaConfig, TermConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.plan import memory as held
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.corpus import Corpus
from slam_potsa.engine.plan.flops import (
    Flops,
    alignment_flops,
    encoder_flops,
    llm_flops,
    projector_flops,
)
from slam_potsa.engine.plan.hardware import Gpu
from slam_potsa.engine.plan.memory import FLOAT, HALF
from slam_potsa.engine.plan.parts import Parts, deepspeed_halves
from slam_potsa.engine.plan.sizes import FRAMES_PER_SECOND, GIB, MELS_PER_FRAME, Batch
from slam_potsa.objective.layer_schedule import candidate_layers

MOMENTS = 2  # AdamW keeps two float32 numbers a parameter


def worst_batch(config: PotsaConfig, parts: Parts, corpus: Corpus, items: int) -> Batch:
    """Every row as long as the longest recording with the longest answer."""
    rows = items * (2 if corpus.pairs else 1)
    return _batch(config, parts, corpus, rows, corpus.seconds.longest, corpus.answers.longest)


def mean_batch(config: PotsaConfig, parts: Parts, corpus: Corpus) -> Batch:
    """What a micro-step holds on average: rows are padded to the longest of the batch."""
    rows = round(config.train_config.batch_size_training * corpus.rows_per_item)
    longest = corpus.seconds.expected_longest(rows), corpus.answers.expected_longest(rows)
    return _batch(config, parts, corpus, rows, *longest)


def memory(
    config: PotsaConfig,
    parts: Parts,
    corpus: Corpus,
    items: int,
    gpus: int,
    assumptions: Assumptions,
) -> dict[str, int]:
    """Bytes by what holds them, at the peak of a micro-step of `items`; their sum is the peak."""
    batch = worst_batch(config, parts, corpus, items)
    passing = _passing(config, parts, batch)
    table = _static(config, parts, gpus) | passing
    table["allocator's fragments"] = assumptions.reserve * sum(passing.values())
    table["CUDA context"] = assumptions.context_gib * GIB
    return {name: int(value) for name, value in table.items() if value}


def step_flops(config: PotsaConfig, parts: Parts, batch: Batch) -> dict[str, Flops]:
    """Of a micro-step, by part; the encoder only where it runs in training."""
    train = config.train_config
    trained_encoder = not train.freeze_encoder
    work = {
        "projector": projector_flops(
            parts.projector, batch.frames, encoder_trained=trained_encoder
        ).times(batch.rows),
        "llm": llm_flops(
            parts.llm,
            batch.positions,
            batch.answer,
            trained=not (train.freeze_llm or train.use_peft),
            lora=parts.lora.parameters if parts.lora else 0,
        ).times(batch.rows),
        "alignment": alignment_flops(
            aligned_term(config),
            batch.pairs,
            parts.projector.queries,
            aligned_widths(config, parts),
        ),
    }
    if config.dataset_config.feature_store is None:
        work["encoder"] = encoder_flops(parts.encoder, batch.frames, trained=trained_encoder).times(
            batch.rows
        )
    return work


def seconds(work: dict[str, Flops], parts: Parts, gpu: Gpu, utilisation: float) -> float:
    """Of a micro-step: products at the peak of their precision, weights read twice at the least."""
    items = parts.precision._asdict()
    compute = 0.0
    for part, flops in work.items():  # alignment has no entry: it is float32 always
        half = parts.precision.activation(items[part]) == HALF if part in items else False
        compute += flops.total / (gpu.half if half else gpu.single)
    return max(compute / utilisation, 2 * parts.weights["llm"] / gpu.bandwidth)


def aligned_term(config: PotsaConfig) -> TermConfig:
    """The first term with a weight."""
    return next(iter(config.alignment.active.values()), TermConfig(weight=0.0))


def aligned_widths(config: PotsaConfig, parts: Parts) -> tuple[int, ...]:
    """The width of every place that a step compares (eq. 4: one layer, or several with 'multi')."""
    alignment, size = config.alignment, parts.projector
    if not alignment.active:
        return ()
    schedule = alignment.schedule
    layers = 1
    if schedule.strategy == "multi" or schedule.layers:
        layers = len(schedule.layers) or len(candidate_layers(schedule.candidates, size.layers))
    outputs = [term for term in alignment.active.values() if term.first == "projector"]
    return (size.width,) * layers + (size.llm_width,) * len(outputs)


def store_bytes(hours: float, width: int) -> int:
    """A feature store of so much speech: float16, valid frames only."""
    return round(hours * 3600 * FRAMES_PER_SECOND * width * HALF)


def _batch(
    config: PotsaConfig, parts: Parts, corpus: Corpus, rows: int, seconds: float, answer: float
) -> Batch:
    whole_window = (
        config.dataset_config.feature_store is None and config.model_config.encoder_window == "30s"
    )
    spoken = min(parts.encoder.positions, math.ceil(seconds * FRAMES_PER_SECOND))
    answer = math.ceil(answer)
    return Batch(
        rows=rows,
        pairs=rows // 2 if corpus.pairs else 0,
        frames=parts.encoder.positions if whole_window else spoken,
        positions=config.model_config.query_len + corpus.prompt + answer,
        answer=answer,
    )


def _static(config: PotsaConfig, parts: Parts, gpus: int) -> dict[str, float]:
    """Weights, gradients, optimizer; DeepSpeed's ZeRO shares some of them among the GPUs."""
    trained = sum(parts.trainable.values())
    weights = {f"weights: {part}": float(size) for part, size in parts.weights.items()}
    if config.train_config.enable_deepspeed:
        return weights | _zero(config, parts, weights, trained, gpus)
    table = weights | {
        "gradients": FLOAT * trained,
        "AdamW": MOMENTS * FLOAT * trained,
    }
    if gpus > 1:
        table["DDP's buckets"] = FLOAT * trained
    if parts.precision.autocast:
        table["weights cast by autocast"] = HALF * trained
    return table


def _zero(
    config: PotsaConfig, parts: Parts, weights: dict[str, float], trained: int, gpus: int
) -> dict[str, float]:
    settings = deepspeed.read_settings(config.deepspeed_config)
    stage, half = (
        (settings.get("zero_optimization") or {}).get("stage", 0),
        deepspeed_halves(config),
    )
    item = HALF if half else FLOAT
    shared = {1: gpus if stage >= 1 else 1, 2: gpus if stage >= 2 else 1}
    if half:  # what trains is cast too; the optimizer keeps float32 weights of its own
        weights = {
            name: size - (FLOAT - HALF) * parts.trainable[name.removeprefix("weights: ")]
            for name, size in weights.items()
        }
    if stage >= 3:
        weights = {name: size / gpus for name, size in weights.items()}
    states = (MOMENTS + 1 if half else MOMENTS) * FLOAT
    return weights | {
        "gradients": item * trained / shared[2],
        "AdamW": states * trained / shared[1],
    }


def _passing(config: PotsaConfig, parts: Parts, batch: Batch) -> dict[str, float]:
    """Activations and what comes and goes with them."""
    train, precision = config.train_config, parts.precision
    item = precision.activation(precision.llm)
    projected = precision.activation(precision.projector)
    widths = aligned_widths(config, parts)
    contrastive = aligned_term(config).variant == "contrastive"
    trained_llm = not (train.freeze_llm or train.use_peft)
    table = {
        "activations: projector": held.projector_activations(
            parts.projector,
            batch.rows,
            batch.frames,
            item=projected,
            autocast=precision.autocast,
        ),
        "activations: llm": held.llm_activations(
            parts.llm,
            batch,
            item=item,
            trained=trained_llm,
            autocast=precision.autocast,
            eight_bit=train.quantization,
            lora=parts.lora,
        ),
        "alignment": held.alignment_activations(
            batch.pairs,
            parts.projector.queries,
            widths,
            solved=batch.pairs**2 if contrastive else batch.pairs,
        ),
        "logits": held.logit_bytes(parts.llm, batch.rows, batch.answer, item),
        "workspace": held.llm_workspace(parts.llm, batch, item, eight_bit=train.quantization),
        "features": _features(config, parts, batch),
    }
    if config.model_config.load_encoder and not train.freeze_encoder:
        table["activations: encoder"] = held.encoder_activations(
            parts.encoder,
            batch.rows,
            batch.frames,
            item=precision.activation(precision.encoder),
            autocast=precision.autocast,
        )
    elif config.dataset_config.feature_store is None:
        # The frozen encoder is done before the rest begins: only what it needs beyond that counts.
        alone = held.encoder_workspace(parts.encoder, batch.rows, batch.frames, precision.encoder)
        table["workspace: encoder"] = max(0, alone - sum(table.values()))
    return table


def _features(config: PotsaConfig, parts: Parts, batch: Batch) -> int:
    """Encoder output: as stored or computed, cast to float32, and with its bias subtracted."""
    copies = HALF + FLOAT + (FLOAT if config.language_bias.enabled else 0)
    size = batch.rows * batch.frames * parts.encoder.width * copies
    if config.dataset_config.feature_store is None:
        size += batch.rows * batch.frames * MELS_PER_FRAME * parts.encoder.mels * FLOAT
    return size
