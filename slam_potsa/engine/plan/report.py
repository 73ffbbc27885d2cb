"""A plan as text: stage by stage, then what was assumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import indent
from typing import Any

from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GIB, Gpu
from slam_potsa.text import table

GB, TERA = 1e9, 1e12
OF_THE_GPU = ("utilisation", "context_gib", "reserve")  # the other assumptions stand for data
MARGIN = "   "


def text(plan: Mapping[str, Any]) -> str:
    """All of what `plan_stages` returned, for a terminal."""
    stages, nodes = plan["stages"], plan["nodes"]
    count = f"{len(stages)} stage{'s' * (len(stages) != 1)}"
    machines = f"{nodes} machines of " * (nodes > 1) + _gpus(plan["gpus"])
    lines = [f"plan of {plan['name'] or 'one configuration'}: {count}, {machines}"]
    for number, stage in enumerate(stages, start=1):
        lines += ["", f"{number}. {stage['name']}: {' -> '.join(stage['models'].values())}"]
        lines += [indent(part, MARGIN) for part in _stage(stage)]
    lines += ["", *_totals(plan)]
    if launched := [stage for stage in stages if stage["launch"]]:
        where = f"on {nodes} machines, with SLAM-LLM's DeepSpeed loop"
        lines += ["", f"{where} (`hostfile` has a line a machine, NAME slots=GPUS):"]
        lines += [f"{stage['name']}: {stage['launch']}" for stage in launched]
    lines += ["", "assumed (each an option of this command):"]
    return "\n".join(lines + [indent(line, MARGIN) for line in _assumed(plan)])


def _stage(stage: Mapping[str, Any]) -> Iterator[str]:
    data, worst, mean = stage["data"], stage["worst_batch"], stage["mean_batch"]
    pairs = f", {data['pairs']:,} of them pairs" if data["pairs"] else ""
    yield f"data: {data['source']}"
    yield (
        f"{data['hours']:,.1f} h in {data['recordings']:,} recordings, {data['items']:,} items an "
        f"epoch{pairs}; their features: {stage['feature_store_bytes'] / GB:,.1f} GB\n"
    )
    counts = stage["trainable_parameters"], stage["frozen_parameters"]
    rows = [(part, *(f"{count[part]:,}" for count in counts)) for part in counts[0]]
    yield table(("parameters", "trainable", "frozen"), rows) + "\n"
    memory = {**stage["memory_bytes"], "together": stage["peak_bytes"]}
    rows = [(name, f"{size / GIB:.2f}") for name, size in memory.items()]
    yield table(("memory of one GPU at its peak", "GiB"), rows)
    yield (
        f"(a micro-step of {worst['rows']} rows, {worst['frames']} encoder frames and "
        f"{worst['positions']} positions each, the longest there are)\n"
    )
    flops = stage["micro_step_flops"].items()
    rows = [(part, *(f"{count / TERA:.4f}" for count in ways.values())) for part, ways in flops]
    yield table(("TFLOP of a micro-step on one GPU", "forward", "backward"), rows)
    yield (
        f"(on average {mean['rows']} rows, {mean['pairs']} pairs, {mean['frames']} frames and "
        f"{mean['positions']} positions each)\n"
        f"an optimizer step: {_gpus(stage['gpus'])} x {stage['accumulation']} micro-steps, "
        f"{stage['step_tokens']:,} LLM tokens, {stage['step_flops'] / TERA:,.1f} TFLOP; "
        f"{stage['steps']:,} steps\n"
    )
    head = ("on", "fits", "free GiB", "largest batch", "s a step", "hours", "store, h")
    yield table(head, [_on_gpu(gpu) for gpu in stage["on"].values()])
    unit = "pairs, of two recordings each" if data["pairs"] else "recordings"
    yield (
        f"(largest batch: {unit}, at once on a GPU; store, h: all recordings through "
        "`slam-potsa features`\nonce, on one GPU)"
    )
    yield from (f"note: {note}" for note in stage["notes"])


def _on_gpu(gpu: Mapping[str, Any]) -> tuple[str, ...]:
    times = (("seconds_a_step", 2), ("hours", 1), ("store_hours", 1))
    fits = "yes" if gpu["fits"] else "NO", f"{gpu['free_gib']:.1f}", str(gpu["largest_batch"])
    cells = ("?" if gpu[name] is None else f"{gpu[name]:.{digits}f}" for name, digits in times)
    return gpu["label"], *fits, *cells


def _totals(plan: Mapping[str, Any]) -> Iterator[str]:
    stages = plan["stages"]
    gpus = max((stage["gpus"] for stage in stages), default=plan["gpus"])
    # Of every store that is not here yet, the recordings of each manifest once.
    once = {stage["yet_to_store"]: stage for stage in stages if stage["yet_to_store"]}.values()
    for name, card in plan["hardware"].items():
        if card["half"] is None:
            yield f"{card['label']}: no hours, its speed is not known"
            continue
        hours = sum(stage["on"][name]["hours"] for stage in stages)
        all_gpus = sum(stage["on"][name]["hours"] * stage["gpus"] for stage in stages)
        yield f"{gpus} x {card['label']}: {hours:,.1f} h of training, {all_gpus:,.1f} GPU hours"
        if once:
            hours = sum(stage["on"][name]["store_hours"] for stage in once)
            size = sum(stage["feature_store_bytes"] for stage in once)
            yield f"{MARGIN}+ {hours:,.1f} h once to store features ({size / GB:,.1f} GB)"


def _assumed(plan: Mapping[str, Any]) -> Iterator[str]:
    counted = all(stage["data"]["counted"] for stage in plan["stages"])
    for name, value in plan["assumptions"].items():
        if not counted or name in OF_THE_GPU:
            option, one = f"--{name.replace('_', '-')} {value:g}", ASSUMPTIONS[name]
            yield f"{option:34} {one.meaning} ({one.source})"
    yield from (_card(Gpu(**card)) for card in plan["hardware"].values())
    yield (
        "not counted: validation, reading data, communication between GPUs, kernel launches "
        "(Sinkhorn's sweeps are small products, one after the other)"
    )


def _card(gpu: Gpu) -> str:
    if gpu.half is None:
        return f"{gpu.label}: its memory as given"
    return (
        f"{gpu.label}: {gpu.half / TERA:g} TFLOP/s in 16 bits, {gpu.single / TERA:g} in "
        f"float32, {gpu.memory / GIB:.1f} GiB, {gpu.bandwidth / GB:,.0f} GB/s (NVIDIA, dense)"
    )


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count != 1)}"
