"""A plan as text and as a dict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from slam_potsa.engine.plan.assumptions import fields
from slam_potsa.engine.plan.hardware import Gpu
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
    lines = [f"plan of {plan.name or 'one configuration'}: {count}, {_machines(plan)}"]
    for number, stage in enumerate(plan.stages, start=1):
        lines += ["", *_stage(number, stage)]
    lines += ["", *_totals(plan)]
    if plan.machines.nodes > 1:
        lines += ["", *_launches(plan)]
    return "\n".join([*lines, "", *_assumed(plan)])


def as_dict(plan: Plan) -> dict[str, Any]:
    """Plain JSON: bytes, FLOPs, seconds and hours, unrounded."""
    return {
        "name": plan.name,
        "gpus": plan.machines.gpus,
        "nodes": plan.machines.nodes,
        "assumptions": dataclasses.asdict(plan.assumptions),
        "hardware": {name: gpu._asdict() for name, gpu in plan.machines.cards.items()},
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
        "gpus": stage.gpus,
        "feature_store_bytes": stage.store_bytes,
        "yet_to_store": stage.store,
        "on": {name: dataclasses.asdict(gpu) for name, gpu in stage.on.items()},
        "launch": stage.launch,
        "one_machine": stage.one_machine,
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
                _number(gpu.seconds_a_step, 2),
                _number(gpu.hours, 1),
                _number(gpu.store_hours, 1),
            )
            for gpu in stage.on.values()
        ],
    )
    unit = "pairs, of two recordings each" if corpus.pairs else "recordings"
    yield (
        f"   (largest batch: {unit}, at once on a GPU; store, h: all recordings through "
        "`slam-potsa features`\n   once, on one GPU)"
    )
    for note in stage.notes:
        yield f"   note: {note}"


def _totals(plan: Plan) -> Iterator[str]:
    gpus = max((stage.gpus for stage in plan.stages), default=plan.machines.gpus)
    for name, card in plan.machines.cards.items():
        if card.half is None:
            yield f"{card.label}: no hours, its speed is not known"
            continue
        hours = sum(stage.on[name].hours for stage in plan.stages)
        gpu_hours = sum(stage.on[name].hours * stage.gpus for stage in plan.stages)
        yield f"{gpus} x {card.label}: {hours:,.1f} h of training, {gpu_hours:,.1f} GPU hours"
        yield from _storing(plan, name)


def _storing(plan: Plan, card: str) -> Iterator[str]:
    """Of every store that is not here yet, the recordings of each manifest once."""
    once = {stage.store: stage for stage in plan.stages if stage.store}
    if once:
        hours = sum(stage.on[card].store_hours for stage in once.values())
        size = sum(stage.store_bytes for stage in once.values())
        yield f"   + {hours:,.1f} h once to store features ({size / GB:,.1f} GB)"


def _launches(plan: Plan) -> Iterator[str]:
    """The commands of several machines; what keeps stages from having one, once."""
    reasons = dict.fromkeys(stage.one_machine for stage in plan.stages if stage.one_machine)
    for reason in reasons:
        names = ", ".join(stage.name for stage in plan.stages if stage.one_machine == reason)
        yield f"on one machine only: {names} ({reason})"
    launched = [stage for stage in plan.stages if stage.launch]
    if launched:
        yield (
            f"on {plan.machines.nodes} machines, with SLAM-LLM's DeepSpeed loop (`hostfile` has a "
            "line a machine, NAME slots=GPUS):"
        )
    for stage in launched:
        yield f"{stage.name}: {stage.launch}"


def _assumed(plan: Plan) -> Iterator[str]:
    counted = all(stage.corpus.counted for stage in plan.stages)
    yield "assumed (each an option of this command):"
    for spec in fields():
        if counted and spec.name not in OF_THE_GPU:
            continue
        option = f"--{spec.name.replace('_', '-')} {getattr(plan.assumptions, spec.name):g}"
        yield f"   {option:34} {spec.metadata['help']} ({spec.metadata['source']})"
    yield from map(_card, plan.machines.cards.values())
    yield (
        "   not counted: validation, reading data, communication between GPUs, kernel launches "
        "(Sinkhorn's sweeps are small products, one after the other)"
    )


def _card(gpu: Gpu) -> str:
    if gpu.half is None:
        return f"   {gpu.label}: its memory as given"
    return (
        f"   {gpu.label}: {gpu.half / 1e12:g} TFLOP/s in 16 bits, {gpu.single / 1e12:g} in "
        f"float32, {gpu.memory / GIB:.1f} GiB, {gpu.bandwidth / GB:,.0f} GB/s (NVIDIA, dense)"
    )


def _machines(plan: Plan) -> str:
    nodes, gpus = plan.machines.nodes, _gpus(plan.machines.gpus)
    return f"{nodes} machines of {gpus}" if nodes > 1 else gpus


def _number(value: float | None, digits: int) -> str:
    return "?" if value is None else f"{value:.{digits}f}"


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Aligned columns, the first to the left."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "   " + "  ".join([first, *rest]).rstrip()
