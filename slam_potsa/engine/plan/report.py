"""A plan as text: `report.txt.j2` filled in, with its tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GIB
from slam_potsa.text import table


def text(plan: Mapping[str, Any]) -> str:
    """All of what `plan_stages` returned, for a terminal."""
    from jinja2 import Environment

    template = Path(__file__).with_suffix(".txt.j2").read_text(encoding="utf-8")
    page = Environment(trim_blocks=True).from_string(template)
    return page.render(plan, meaning=ASSUMPTIONS, parts=_parts, memory=_memory, cards=_cards)


def _parts(stage: Mapping[str, Any]) -> str:
    head = ("of one GPU", "trainable", "frozen", "TFLOP forward", "TFLOP backward")
    counts = stage["trainable_parameters"], stage["frozen_parameters"]
    rows = [
        [
            part,
            *(f"{n.get(part, 0):,}" for n in counts),
            *(f"{n / 1e12:.4f}" for n in ways.values()),
        ]
        for part, ways in stage["micro_step_flops"].items()
    ]
    return table(head, rows)


def _memory(stage: Mapping[str, Any]) -> str:
    sizes = {**stage["memory_bytes"], "together": stage["peak_bytes"]}
    rows = [(name, f"{size / GIB:.2f}") for name, size in sizes.items()]
    return table(("memory of one GPU at its peak", "GiB"), rows)


def _cards(stage: Mapping[str, Any]) -> str:
    formats = {"free_gib": ".1f", "seconds_a_step": ".2f", "hours": ".1f", "store_hours": ".1f"}
    rows = [
        [
            gpu["label"],
            "yes" if gpu["fits"] else "NO",
            *(f"{gpu[k]:{f}}" for k, f in formats.items()),
        ]
        for gpu in stage["on"].values()
    ]
    return table(("on", "fits", "free GiB", "s a step", "hours", "store, h"), rows)
