"""A plan as text and as a dict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slam_potsa.engine.plan.assumptions import fields
from slam_potsa.engine.plan.hardware import GPUS
from slam_potsa.engine.plan.parts import PARTS
from slam_potsa.engine.plan.sizes import GIB
from slam_potsa.engine.plan.stage import StagePlan

if TYPE_CHECKING:
    from slam_potsa.engine.plan.plan import Plan

GB = 1e9
OF_THE_GPU = ("utilisation", "context_gib", "reserve")  # the other assumptions stand for data


def text(plan: Plan) -> str:
    """Everything, stage by stage, then what was assumed."""
    count = f"{len(plan.stages)} stage{'s' * (len(plan.stages) != 1)}"
    lines = [f"plan of {plan.name or 'one configuration'}: {count}, {_gpus(plan.gpus)}"]
    for number, stage in enumerate(plan.stages, start=1):
        lines += ["", *_stage(number, stage)]
    lines += ["", *_totals(plan), "", *_launches(plan), "", *_assumed(plan)]
    return "\n".join(lines)


def as_dict(plan: Plan) -> dict[str, Any]:
    """Plain JSON: bytes, FLOPs, seconds and hours, unrounded."""
    return {
        "name": plan.name,
        "gpus": plan.gpus,
        "assumptions": dataclasses.asdict(plan.assumptions),
        "hardware": {name: gpu._asdict() for name, gpu in GPUS.items()},
        "problems": list(plan.problems),
        "stages": [_stage_dict(stage) for stage in plan.stages],
    }


def _stage_dict(stage: StagePlan) -> dict[str, Any]:
    corpus = dataclasses.asdict(stage.corpus)
    for lengths in (corpus["seconds"], corpus["answers"]):
        del lengths["values"]  # one number a recording
    return {
        "name": stage.name,
        "models": stage.models,
        "data": {**corpus, "languages": list(stage.corpus.languages)},
        "trainable_parameters": stage.trainable,
        "frozen_parameters": stage.frozen,
        "memory_bytes": stage.memory,
        "peak_bytes": sum(stage.memory.values()),
        "mean_batch": stage.batch._asdict(),
        "worst_batch": stage.worst._asdict(),
        "micro_step_flops": {part: flops._asdict() for part, flops in stage.flops.items()},
        "step_flops": stage.step_flops,
        "step_tokens": stage.step_tokens,
        "accumulation": stage.accumulation,
        "steps": stage.steps,
        "feature_store_bytes": stage.store_bytes,
        "on": {name: dataclasses.asdict(gpu) for name, gpu in stage.on.items()},
        "launch": stage.launch,
        "notes": list(stage.notes),
        "problems": list(stage.problems),
    }


def _stage(number: int, stage: StagePlan) -> Iterator[str]:
    corpus, batch = stage.corpus, stage.batch
    yield f"{number}. {stage.name}: {' -> '.join(stage.models.values())}"
    yield f"   data: {corpus.source}"
    pairs = f", {corpus.pairs:,} of them pairs" if corpus.pairs else ""
    yield (
        f"   {corpus.hours:,.1f} h in {corpus.recordings:,} recordings, {corpus.items:,} items an "
        f"epoch{pairs}; their features: {stage.store_bytes / GB:,.1f} GB"
    )
    yield ""
    yield from _table(
        ("parameters", "trainable", "frozen"),
        [(part, f"{stage.trainable[part]:,}", f"{stage.frozen[part]:,}") for part in PARTS],
    )
    yield ""
    worst = stage.worst
    yield from _table(
        ("memory of one GPU at its peak", "GiB"),
        [
            *((name, f"{size / GIB:.2f}") for name, size in stage.memory.items()),
            ("together", f"{stage.peak_gib:.2f}"),
        ],
    )
    yield (
        f"   (a micro-step of {worst.rows} rows, {worst.frames} encoder frames and "
        f"{worst.positions} positions each, the longest there are)"
    )
    yield ""
    yield from _table(
        ("TFLOP of a micro-step on one GPU", "forward", "backward"),
        [
            (part, f"{flops.forward / 1e12:.4f}", f"{flops.backward / 1e12:.4f}")
            for part, flops in stage.flops.items()
        ],
    )
    yield (
        f"   (on average {batch.rows} rows, {batch.pairs} pairs, {batch.frames} frames and "
        f"{batch.positions} positions each)"
    )
    yield (
        f"   an optimizer step: {_gpus(stage.gpus)} x {stage.accumulation} micro-steps, "
        f"{stage.step_tokens:,} LLM tokens, {stage.step_flops / 1e12:,.1f} TFLOP; "
        f"{stage.steps:,} steps"
    )
    yield ""
    yield from _table(
        ("on", "fits", "free GiB", "largest batch", "s a step", "hours", "store, h"),
        [
            (
                gpu.label,
                "yes" if gpu.fits else "NO",
                f"{gpu.free_gib:.1f}",
                str(gpu.largest_batch),
                f"{gpu.seconds_a_step:.2f}",
                f"{gpu.hours:.1f}",
                f"{gpu.store_hours:.1f}",
            )
            for gpu in stage.on.values()
        ],
    )
    for note in stage.notes:
        yield f"   note: {note}"


def _totals(plan: Plan) -> Iterator[str]:
    names = dict.fromkeys(name for stage in plan.stages for name in stage.on)
    for name in names:
        hours = sum(stage.on[name].hours for stage in plan.stages)
        label = plan.stages[0].on[name].label
        yield (
            f"{plan.gpus} x {label}: {hours:,.1f} h of training, {hours * plan.gpus:,.1f} GPU hours"
        )


def _launches(plan: Plan) -> Iterator[str]:
    yield (
        "on several machines, with SLAM-LLM's DeepSpeed loop (`hostfile` has a line a machine, "
        "NAME slots=GPUS):"
    )
    for stage in plan.stages:
        yield f"{stage.name}: {stage.launch}"


def _assumed(plan: Plan) -> Iterator[str]:
    counted = all(stage.corpus.counted for stage in plan.stages)
    yield "assumed (each an option of this command):"
    for spec in fields():
        if counted and spec.name not in OF_THE_GPU:
            continue
        option = f"--{spec.name.replace('_', '-')} {getattr(plan.assumptions, spec.name):g}"
        yield f"   {option:34} {spec.metadata['help']} ({spec.metadata['source']})"
    for gpu in GPUS.values():
        yield (
            f"   {gpu.label}: {gpu.half / 1e12:g} TFLOP/s in 16 bits, {gpu.single / 1e12:g} in "
            f"float32, {gpu.memory / GIB:.1f} GiB, {gpu.bandwidth / GB:,.0f} GB/s (NVIDIA, dense)"
        )
    yield (
        "   not counted: validation, reading data, communication between GPUs, kernel launches "
        "(Sinkhorn's sweeps are small products, one after the other)"
    )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "   " + "  ".join([first, *rest]).rstrip()
