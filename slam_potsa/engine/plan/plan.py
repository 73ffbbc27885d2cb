"""All stages together: each one's figures, and whether one fits the next.

A plan is a plain mapping, as it is written to JSON: bytes, FLOPs, seconds and hours. `report.text`
prints it.
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
from slam_potsa.engine.plan.machines import launch_line, on_machines, why_one_machine
from slam_potsa.engine.plan.meta import MetaModel, build_on_meta
from slam_potsa.engine.plan.stage import Stage
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.model.checkpoint import read_checkpoint, require_fit


class Planned(NamedTuple):
    """A stage that the next one goes on from."""

    name: str
    config: PotsaConfig
    built: MetaModel

    @property
    def best(self) -> str:
        return f"{self.config.train_config.output_dir}/best/model.pt"


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
    refuse(_senseless(gpus, gpu_names, gpu_memory, nodes, given))
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
    nodes, gpus, given = plan["nodes"], plan["gpus"], plan["assumptions"]
    one_machine = why_one_machine(config) if nodes > 1 else ""
    shared = corpus = built = to_store = None
    launch, notes = "", []
    with collecting(problems):
        check(config)
    with collecting(problems):
        shared = on_machines(config, 1 if one_machine else nodes)
    nodes, config = (1, config) if one_machine or shared is None else (nodes, shared)
    with collecting(problems):
        corpus = corpus_of(config, given)
    with collecting(problems):
        built = build_on_meta(config, corpus.languages if corpus else ("en",))
    if built is None:
        return None, None
    with collecting(problems):
        notes += _checkpoint(config, built, before)
    with collecting(problems):
        to_store = _to_store(config, built)
    if to_store:
        notes.append(_how_to_store(config))
    if nodes > 1:
        with collecting(problems):
            launch = launch_line(config, nodes, gpus, before.best if before else None)
    planned = Planned(name, config, built)
    if corpus is None:
        return None, planned
    cards = {name: Gpu(**gpu) for name, gpu in plan["hardware"].items()}
    figures = {"name": name, **Stage(config, built, corpus, gpus * nodes, given).figures(cards)}
    problems += _sizes(figures, config, built)
    notes += _notes(figures, config)
    figures |= {"yet_to_store": to_store, "launch": launch, "one_machine": one_machine}
    return figures | {"notes": notes}, planned


def _checkpoint(config: PotsaConfig, built: MetaModel, before: Planned | None) -> list[str]:
    """Notes. Raises InputError where what the stage before trains, or `ckpt_path`, does not fit."""
    path = config.ckpt_path
    if before is not None:
        require_fit(built.model, before.built.trained(), f"of stage {before.name}")
    elif path is not None and not Path(path).exists():
        return [f"ckpt_path={path} is not here yet: its names and shapes were not compared"]
    elif path is not None:
        require_fit(built.model, read_checkpoint(path), path)
    return []


def _to_store(config: PotsaConfig, built: MetaModel) -> tuple[str, str] | None:
    """Folder and manifest of features that are not there yet. Raises InputError for others'."""
    folder = config.dataset_config.feature_store
    if folder is None:
        return None
    if not (Path(folder) / INDEX).is_file():
        return folder, config.dataset_config.train_data_path
    width = FeatureStore.open(folder).width
    if width != built.encoder.width:
        raise InputError(
            f"dataset_config.feature_store={folder}: features are {width} wide, "
            f"{config.model_config.encoder_path_hf} makes {built.encoder.width}; use another folder"
        )
    return None


def _how_to_store(config: PotsaConfig) -> str:
    folder, model = config.dataset_config.feature_store, config.model_config
    return (
        f"dataset_config.feature_store={folder} is not here yet: slam-potsa features MANIFESTS "
        f"--encoder {model.encoder_path_hf} --window {model.encoder_window} --output {folder}"
    )


def _sizes(figures: Mapping[str, Any], config: PotsaConfig, built: MetaModel) -> Iterator[str]:
    """Positions, batches and steps that do not work out."""
    worst, corpus = figures["worst_batch"], figures["data"]
    if built.positions and worst["positions"] > built.positions:
        yield (
            f"a row of {worst['positions']} positions ({config.model_config.query_len} queries, "
            f"{corpus['prompt']} of the prompt, {worst['answer']} of the answer): "
            f"{figures['models']['llm']} has {built.positions}; lower model_config.query_len or "
            "leave long answers out"
        )
    if not figures["steps"]:
        yield (
            f"{corpus['items']} items are fewer than one batch of "
            f"{config.train_config.batch_size_training} on {figures['gpus']} GPUs: lower "
            "train_config.batch_size_training"
        )


def _notes(figures: Mapping[str, Any], config: PotsaConfig) -> Iterator[str]:
    """Where training would end, seen from its schedule, and what is slow."""
    train, steps = config.train_config, figures["steps"]
    if steps and steps <= train.warmup_steps:
        yield f"ends at step {steps}, inside the warm-up of {train.warmup_steps} steps"
    elif 0 < steps < train.total_steps:
        left = 1 - (steps - train.warmup_steps) / (train.total_steps - train.warmup_steps)
        yield (
            f"ends at step {steps} of total_steps={train.total_steps}, at {left:.0%} of the peak "
            "rate"
        )
    if not (config.native.bf16 or train.use_fp16 or train.enable_deepspeed):
        yield "the projector computes in float32, without tensor cores; native.bf16=true casts it"
    if train.quantization:
        yield (
            "8 bits: bitsandbytes keeps the inputs of its matrices, which is counted; how much "
            "slower its products are is not"
        )


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
    if largest:
        micro = -(-train.batch_size_training * train.gradient_accumulation_steps // largest)
        return (
            f"set train_config.batch_size_training={largest} and "
            f"train_config.gradient_accumulation_steps={micro}"
        )
    ways = {
        "store the features (dataset_config.feature_store, model_config.load_encoder=false)": (
            config.model_config.load_encoder and train.freeze_encoder
        ),
        "model_config.llm_dtype=bfloat16": config.model_config.llm_dtype == "float32",
        "train_config.quantization=true (8 bits)": not train.quantization,
        "or take a smaller LLM": True,
    }
    return "not even one item fits; " + ", ".join(way for way, helps in ways.items() if helps)


def _senseless(
    gpus: int,
    gpu_names: Sequence[str],
    gpu_memory: float | None,
    nodes: int,
    given: Mapping[str, float],
) -> Iterator[str]:
    for option, value in (("--gpus", gpus), ("--nodes", nodes)):
        if value < 1:
            yield f"{option}={value}: expected 1 or more"
    if gpu_memory is not None and not 0 < gpu_memory < float("inf"):
        yield f"--gpu-memory={gpu_memory}: expected GiB, above 0"
    for name in gpu_names:
        if name not in GPUS:
            yield f"--gpu={name}: expected one of {', '.join(GPUS)}"
    for name, value in given.items():
        low, high = ASSUMPTIONS[name].low, ASSUMPTIONS[name].high
        if not low <= value <= high:
            yield f"--{name.replace('_', '-')}={value}: expected {low} to {high}"
