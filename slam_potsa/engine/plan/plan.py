"""All stages together: each one's figures, and whether one fits the next.

A plan is a plain mapping, as it is written to JSON: bytes, FLOPs, seconds and hours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.config import PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.data.feature_store import INDEX, FeatureStore
from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GIB, GPUS, Gpu
from slam_potsa.engine.plan.corpus import corpus_of
from slam_potsa.engine.plan.machines import launch_line, on_machines
from slam_potsa.engine.plan.meta import MetaModel, build_on_meta
from slam_potsa.engine.plan.stage import Stage
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.checkpoint import read_checkpoint, require_fit


class Planned(NamedTuple):
    """A stage that the next one goes on from."""

    name: str
    config: PotsaConfig
    built: MetaModel


def plan_stages(
    stages: Sequence[tuple[str, PotsaConfig]],
    *,
    name: str = "",
    gpus: int = 1,
    gpu_names: Sequence[str] = (),
    gpu_memory: float | None = None,
    nodes: int = 1,
    assumptions: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Count what `stages` (name and configuration, in order) hold, need and take.

    Args:
        gpus: data-parallel processes on one machine, one a GPU.
        gpu_names: keys of GPUS that every stage must fit.
        gpu_memory: GiB of a card that is not there, which every stage must fit too; its hours are
            not known. Neither given: all of GPUS are shown, and a stage must fit one of them.
        nodes: machines. With several, a stage accumulates over 1 / nodes of its micro-steps, and
            has a command for SLAM-LLM's loop, if that is what trains it.
        assumptions: those of ASSUMPTIONS that are to be others.

    Raises InputError for arguments that make no sense; what is wrong with a stage stands in
    `problems`, all of it, and its figures are left out where they cannot be counted.
    """
    given = {key: one.default for key, one in ASSUMPTIONS.items()} | dict(assumptions or {})
    numbers = {"gpus": gpus, "nodes": nodes, "gpu_memory": gpu_memory, **given}
    refuse(_senseless(numbers, gpu_names))
    cards = {name: GPUS[name] for name in gpu_names}
    if gpu_memory is not None:
        cards["unlisted"] = Gpu(f"unlisted {gpu_memory:g} GiB GPU", int(gpu_memory * GIB))
    plan = {"name": name, "gpus": gpus, "nodes": nodes, "assumptions": given}
    plan["hardware"] = {name: gpu._asdict() for name, gpu in (cards or GPUS).items()}
    plan |= {"problems": [], "stages": []}
    before = None
    for stage, config in stages:
        problems: list[str] = []
        figures, before = _plan_stage(stage, config, before, plan, problems)
        if figures is not None:
            problems += _too_large(figures, config, every=bool(cards))
            plan["stages"].append(figures | {"problems": problems})
        plan["problems"] += [f"{stage}: {problem}" for problem in dict.fromkeys(problems)]
    return plan


def _plan_stage(
    name: str,
    config: PotsaConfig,
    before: Planned | None,
    plan: Mapping[str, Any],
    problems: list[str],
) -> tuple[dict[str, Any] | None, Planned | None]:
    """A stage's figures and model, None where they cannot be had; what is wrong to `problems`."""
    nodes, corpus, built, launch = 1, None, None, ""
    with collecting(problems):
        check(config)
    with collecting(problems):
        config, nodes = on_machines(config, plan["nodes"]), plan["nodes"]
    with collecting(problems):
        corpus = corpus_of(config, plan["assumptions"])
    with collecting(problems):
        built = build_on_meta(config, corpus.languages if corpus else ("en",))
    if built is None:
        return None, None
    with collecting(problems):
        _require_fit(config, built, before)
    with collecting(problems):
        _require_features(config, built)
    with collecting(problems):
        launch = launch_line(config, nodes, plan["gpus"], _best(before)) if nodes > 1 else ""
    if corpus is None:
        return None, Planned(name, config, built)
    stage = Stage(config, built, corpus, plan["gpus"] * nodes, plan["assumptions"])
    figures = stage.figures({name: Gpu(**gpu) for name, gpu in plan["hardware"].items()})
    problems += _misfits(figures, config, built)
    figures |= {"yet_to_store": _yet_to_store(config), "launch": launch}
    return {"name": name, **figures, "notes": _notes(figures, config)}, Planned(name, config, built)


def _require_fit(config: PotsaConfig, built: MetaModel, before: Planned | None) -> None:
    """Compare, by name and shape, what the stage before trains, or the checkpoint given."""
    if before is not None:
        require_fit(built.model, before.built.trained, f"of stage {before.name}")
    elif config.ckpt_path is not None and Path(config.ckpt_path).exists():
        require_fit(built.model, read_checkpoint(config.ckpt_path), config.ckpt_path)


def _best(before: Planned | None) -> str | None:
    return before and f"{before.config.train_config.output_dir}/best/model.pt"


def _require_features(config: PotsaConfig, built: MetaModel) -> None:
    folder = config.dataset_config.feature_store
    if folder and not _yet_to_store(config):
        width = FeatureStore.open(folder).width
        if width != built.encoder.width:
            raise InputError(
                f"dataset_config.feature_store={folder}: features are {width} wide, the encoder "
                f"makes {built.encoder.width}; use another folder"
            )


def _yet_to_store(config: PotsaConfig) -> tuple[str, str] | None:
    """Folder and manifest of features that are not there yet."""
    folder = config.dataset_config.feature_store
    absent = folder is not None and not (Path(folder) / INDEX).is_file()
    return (folder, config.dataset_config.train_data_path) if absent else None


def _misfits(figures: Mapping[str, Any], config: PotsaConfig, built: MetaModel) -> Iterator[str]:
    worst, data = figures["worst_batch"], figures["data"]
    if worst["positions"] > built.positions:
        yield (
            f"a row of {worst['positions']} positions ({config.model_config.query_len} queries, "
            f"{data['prompt']} of the prompt, {worst['answer']} of the answer), and the LLM has "
            f"{built.positions}; lower model_config.query_len or leave long answers out"
        )
    if not figures["steps"]:
        yield (
            f"{data['items']} items are fewer than one batch of each of {figures['gpus']} GPUs: "
            "lower train_config.batch_size_training"
        )


def _notes(figures: Mapping[str, Any], config: PotsaConfig) -> list[str]:
    """What is not here yet, and where training would end, seen from its schedule."""
    train, steps, notes = config.train_config, figures["steps"], []
    if config.ckpt_path is not None and not Path(config.ckpt_path).exists():
        notes.append(f"ckpt_path={config.ckpt_path} is not here yet: it was not compared")
    if steps < train.total_steps:
        left = (train.total_steps - steps) / (train.total_steps - train.warmup_steps)
        where = f"at {left:.0%} of the peak rate" if left < 1 else "before the end of its warm-up"
        notes.append(f"ends at step {steps} of total_steps={train.total_steps}, {where}")
    return notes


def _too_large(figures: Mapping[str, Any], config: PotsaConfig, every: bool) -> Iterator[str]:
    """A problem a GPU that is too small, if `every` one must do or none does."""
    too_small = [gpu for gpu in figures["on"].values() if not gpu["fits"]]
    if every or len(too_small) == len(figures["on"]):
        for gpu in too_small:
            yield (
                f"needs {figures['peak_bytes'] / GIB:.1f} GiB on an {gpu['label']}, "
                f"{-gpu['free_gib']:.1f} more than it has: "
                f"{_remedy(config, gpu['largest_batch'])}"
            )


def _remedy(config: PotsaConfig, largest: int) -> str:
    train = config.train_config
    if not largest:
        return (
            "not even one item fits; store the features (dataset_config.feature_store, "
            "model_config.load_encoder=false), set train_config.quantization=true (8 bits), or "
            "take a smaller LLM"
        )
    micro = -(-train.batch_size_training * train.gradient_accumulation_steps // largest)
    return (
        f"set train_config.batch_size_training={largest} and "
        f"train_config.gradient_accumulation_steps={micro}"
    )


def _senseless(options: Mapping[str, float | None], gpu_names: Sequence[str]) -> Iterator[str]:
    for name in set(gpu_names) - GPUS.keys():
        yield f"--gpu={name}: expected one of {', '.join(GPUS)}"
    limits = {name: (one.low, one.high) for name, one in ASSUMPTIONS.items()}
    for name, value in options.items():
        low, high = limits.get(name, (1, float("inf")))
        if value is not None and not low <= value <= high:
            expected = f"{low} to {high}" if high < float("inf") else f"{low} or more"
            yield f"--{name.replace('_', '-')}={value}: expected {expected}"
