"""All stages together: each one's figures, and whether one fits the next.

A plan is a plain mapping, as it is written to JSON: bytes, FLOPs, seconds and hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig
from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GIB, GPUS
from slam_potsa.engine.plan.count import MetaModel, build_on_meta
from slam_potsa.engine.plan.stage import Stage, corpus_of
from slam_potsa.errors import collecting
from slam_potsa.model.checkpoint import State, read_checkpoint, require_fit
from slam_potsa.model.llm import unwrapped
from slam_potsa.text import table


def plan_stages(
    stages: Sequence[tuple[str, PotsaConfig]],
    *,
    name: str = "",
    gpus: int = 1,
    gpu_names: Sequence[str] = (),
    assumptions: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Count what `stages` (name and configuration, in order) hold, need and take.

    Args:
        gpus: data-parallel processes on one machine, one a GPU.
        gpu_names: keys of GPUS that every stage must fit. None: all of GPUS are shown, and a stage
            must fit one of them.
        assumptions: those of ASSUMPTIONS that are to be others.

    What is wrong with a stage stands in `problems`, all of it, and its figures are left out where
    they cannot be counted.
    """
    given = {key: default for key, (default, _) in ASSUMPTIONS.items()} | dict(assumptions or {})
    cards = {key: GPUS[key] for key in gpu_names or GPUS}
    plan = {"name": name, "gpus": gpus, "assumptions": given, "problems": [], "stages": []}
    plan["hardware"] = {key: gpu._asdict() for key, gpu in cards.items()}
    before = None
    for stage, config in stages:
        problems, corpus, built = [], None, None
        with collecting(problems):
            corpus = corpus_of(config, given)
        with collecting(problems):
            built = build_on_meta(config, corpus.languages if corpus else ("en",))
            _require_fit(config, built, before)
        if built and corpus:
            figures = Stage(config, built, corpus, gpus, given).figures(cards)
            problems += _misfits(figures, config, built)
            problems += _too_large(figures, every=bool(gpu_names))
            plan["stages"].append({"name": stage, **figures})
        plan["problems"] += [f"{stage}: {problem}" for problem in dict.fromkeys(problems)]
        if built:  # what one stage trained, those after it pass on
            trained = {n: p for n, p in built.model.named_parameters() if p.requires_grad}
            before = (stage, {**(before[1] if before else {}), **trained})
    return plan


def _require_fit(config: PotsaConfig, built: MetaModel, before: tuple[str, State] | None) -> None:
    """Compare, by name and shape, what stages before trained, or the checkpoint given."""
    if before is not None:
        require_fit(built.model, before[1], f"of stage {before[0]}")
    elif config.ckpt_path is not None and Path(config.ckpt_path).exists():
        require_fit(built.model, read_checkpoint(config.ckpt_path), config.ckpt_path)


def _misfits(figures: Mapping[str, Any], config: PotsaConfig, built: MetaModel) -> Iterator[str]:
    worst, data = figures["worst_batch"], figures["data"]
    llm = unwrapped(built.model.llm).config.get_text_config()
    positions = getattr(llm, "max_position_embeddings", 0) or float("inf")
    if worst["positions"] > positions:
        yield (
            f"a row of {worst['positions']} positions ({config.model_config.query_len} queries, "
            f"{data['prompt']} of the prompt, {worst['answer']} of the answer), and the LLM has "
            f"{positions}; lower model_config.query_len or leave long answers out"
        )
    if not figures["steps"]:
        yield (
            f"{data['items']} items are fewer than one batch of each of {figures['gpus']} GPUs: "
            "lower train_config.batch_size_training"
        )


def _too_large(figures: Mapping[str, Any], every: bool) -> Iterator[str]:
    """A problem a GPU that is too small, if `every` one must do or none does."""
    too_small = [gpu for gpu in figures["on"].values() if not gpu["fits"]]
    if every or len(too_small) == len(figures["on"]):
        for gpu in too_small:
            yield (
                f"needs {figures['peak_bytes'] / GIB:.1f} GiB on an {gpu['label']}, "
                f"{-gpu['free_gib']:.1f} more than it has: lower train_config.batch_size_training "
                "and raise train_config.gradient_accumulation_steps as much, store the features "
                "(dataset_config.feature_store, model_config.load_encoder=false), set "
                "train_config.quantization=true (8 bits), or take a smaller LLM"
            )


# -- for a terminal --------------------------------------------------------------------------------


def text(plan: Mapping[str, Any]) -> str:
    """All of what `plan_stages` returned, for a terminal."""
    from jinja2 import Environment

    template = Path(__file__).with_name("report.txt.j2").read_text(encoding="utf-8")
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
