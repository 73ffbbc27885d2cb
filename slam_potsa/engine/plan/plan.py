"""All stages together: each one's figures, and whether one fits the next."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from slam_potsa.config import PotsaConfig
from slam_potsa.config.check import check
from slam_potsa.engine.plan import report
from slam_potsa.engine.plan.assumptions import Assumptions
from slam_potsa.engine.plan.assumptions import problems as assumption_problems
from slam_potsa.engine.plan.corpus import corpus_of
from slam_potsa.engine.plan.hardware import GPUS, UNLISTED, Gpu, unlisted
from slam_potsa.engine.plan.launch_line import launch_line, on_machines, why_one_machine
from slam_potsa.engine.plan.parts import Parts, build_on_meta
from slam_potsa.engine.plan.stage import StagePlan, make_stage, stage_problems, step_notes
from slam_potsa.errors import InputError
from slam_potsa.model.checkpoint import apply_checkpoint, read_checkpoint


@dataclass(frozen=True)
class Machines:
    """What is planned for.

    Attributes:
        gpus: of one machine, a data-parallel process each.
        cards: kinds of GPU to show, by name.
        asked: whether a stage must fit all of `cards`; else one of them will do.
    """

    nodes: int
    gpus: int
    cards: dict[str, Gpu]
    asked: bool


@dataclass(frozen=True)
class Plan:
    """The stages that could be planned, and every problem of all of them."""

    name: str
    stages: tuple[StagePlan, ...]
    problems: tuple[str, ...]
    machines: Machines
    assumptions: Assumptions

    def text(self) -> str:
        """For a terminal."""
        return report.text(self)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: plain numbers, bytes, FLOPs, seconds and hours."""
        return report.as_dict(self)


def plan_stages(
    stages: Sequence[tuple[str, PotsaConfig]],
    *,
    name: str = "",
    gpus: int = 1,
    gpu_names: Sequence[str] | None = None,
    gpu_memory: float | None = None,
    nodes: int = 1,
    assumptions: Assumptions | None = None,
) -> Plan:
    """Count what `stages` (name and configuration, in order) hold, need and take.

    Args:
        gpus: data-parallel processes on one machine, one a GPU.
        gpu_names: keys of `hardware.GPUS` that every stage must fit.
        gpu_memory: GiB of a card that is not there, which every stage must fit too; its hours are
            not known. Neither given: all of `GPUS` are shown, and a stage must fit one of them.
        nodes: machines. With several, a stage accumulates over 1 / nodes of its micro-steps, and
            has a command for SLAM-LLM's loop, if that is what trains it.
        assumptions: stands in for data that are not here; see there.

    Raises InputError for arguments that make no sense; what is wrong with a stage stands in
    `problems`, all of it, and its figures are left out where they cannot be counted.
    """
    assumptions = assumptions or Assumptions()
    _check_arguments(gpus, gpu_names, gpu_memory, nodes, assumptions)
    cards = {name: GPUS[name] for name in gpu_names or ()}
    if gpu_memory is not None:
        cards[UNLISTED] = unlisted(gpu_memory)
    machines = Machines(nodes, gpus, cards or GPUS, asked=bool(cards))
    planned, problems = [], []
    before: tuple[str, PotsaConfig, Parts] | None = None
    for stage, config in stages:
        found: list[str] = []
        plan, parts = _plan_stage(stage, config, before, found, machines, assumptions)
        problems += [f"{stage}: {problem}" for problem in found]
        if plan is not None:
            planned.append(replace(plan, problems=tuple(found)))
        before = (stage, config, parts) if parts is not None else None
    return Plan(name, tuple(planned), tuple(problems), machines, assumptions)


def _plan_stage(
    stage: str,
    config: PotsaConfig,
    before: tuple[str, PotsaConfig, Parts] | None,
    problems: list[str],
    machines: Machines,
    assumptions: Assumptions,
) -> tuple[StagePlan | None, Parts | None]:
    """A stage's figures and model; what is wrong is added to `problems`."""
    _try(problems, check, config)
    nodes = 1 if why_one_machine(config) else machines.nodes
    shared = _try(problems, on_machines, config, nodes)
    nodes, config = (1, config) if shared is None else (nodes, shared)
    corpus = _try(problems, corpus_of, config, assumptions)
    languages = corpus.languages if corpus else ("en",)
    parts = _try(problems, build_on_meta, config, languages)
    if parts is None:
        return None, None
    notes = _checkpoint_notes(config, before, parts, problems)
    store_notes = _store_notes(config, parts, problems)
    notes += store_notes
    if corpus is None:
        return None, parts
    ckpt_path = f"{before[1].train_config.output_dir}/best/model.pt" if before else None
    plan = _try(
        problems,
        make_stage,
        stage,
        config,
        parts,
        corpus,
        gpus=machines.gpus * nodes,
        cards=machines.cards,
        assumptions=assumptions,
        store=_yet_to_store(config) if store_notes else None,
        launch=launch_line(config, nodes, machines.gpus, ckpt_path) if nodes > 1 else "",
        one_machine=why_one_machine(config) if machines.nodes > 1 else "",
    )
    if plan is None:
        return None, parts
    problems += stage_problems(plan, config, parts)
    problems += _too_large(plan, config, machines.asked)
    return replace(plan, notes=(*notes, *step_notes(plan, config))), parts


def _try(problems: list[str], function, *arguments, **options) -> Any:
    """The function's result; None, and its problems added, where it raises InputError."""
    try:
        return function(*arguments, **options)
    except InputError as error:
        problems += [p for p in error.problems if p not in problems]
        return None


def _checkpoint_notes(
    config: PotsaConfig,
    before: tuple[str, PotsaConfig, Parts] | None,
    parts: Parts,
    problems: list[str],
) -> list[str]:
    """Load, by name and shape, what the stage before will have trained, or the checkpoint given."""
    if before is not None:
        trained = {
            name: parameter
            for name, parameter in before[2].model.named_parameters()
            if parameter.requires_grad
        }
        _try(problems, _fit, parts, trained, f"of stage {before[0]}")
        return []
    path = config.ckpt_path
    if path is None:
        return []
    if not Path(path).exists():
        return [f"ckpt_path={path} is not here yet: its names and shapes were not compared"]
    state = _try(problems, read_checkpoint, path)
    if state is not None:
        _try(problems, _fit, parts, {k: t.to("meta") for k, t in state.items()}, path)
    return []


def _fit(parts: Parts, state: dict[str, torch.Tensor], source: str) -> None:
    """`apply_checkpoint` without the carried biases and schedule, which fit any model."""
    logger = logging.getLogger("slam_potsa.model.checkpoint")
    level = logger.level
    logger.setLevel(logging.ERROR)  # nothing is loaded: what it would say of that is not news
    try:
        shapes = {name: tensor for name, tensor in state.items() if ".as_" not in name}
        apply_checkpoint(parts.model, shapes, source)
    finally:
        logger.setLevel(level)


def _store_notes(config: PotsaConfig, parts: Parts, problems: list[str]) -> list[str]:
    from slam_potsa.data.feature_store import INDEX, FeatureStore

    folder = config.dataset_config.feature_store
    if folder is None:
        return []
    if not (Path(folder) / INDEX).is_file():
        return [
            f"dataset_config.feature_store={folder} is not here yet: slam-potsa features MANIFESTS "
            f"--encoder {config.model_config.encoder_path_hf} --window "
            f"{config.model_config.encoder_window} --output {folder}"
        ]
    store = _try(problems, FeatureStore.open, folder)
    if store is not None and store.width != parts.encoder.width:
        problems.append(
            f"dataset_config.feature_store={folder}: features are {store.width} wide, "
            f"{config.model_config.encoder_path_hf} makes {parts.encoder.width}; use another folder"
        )
    return []


def _yet_to_store(config: PotsaConfig) -> tuple[str, str]:
    data = config.dataset_config
    return str(data.feature_store), str(data.train_data_path)


def _too_large(plan: StagePlan, config: PotsaConfig, asked: bool) -> list[str]:
    """One problem a GPU that was asked for; without a question, one where no GPU will do."""
    too_small = [gpu for gpu in plan.on.values() if not gpu.fits]
    if not asked and len(too_small) < len(plan.on):
        return []
    return [
        f"needs {plan.peak_gib:.1f} GiB on an {gpu.label}, "
        f"{-gpu.free_gib:.1f} more than it has: {_remedy(plan, config, gpu.largest_batch)}"
        for gpu in too_small
    ]


def _remedy(plan: StagePlan, config: PotsaConfig, largest: int) -> str:
    train = config.train_config
    if largest:
        micro = -(-train.batch_size_training * train.gradient_accumulation_steps // largest)
        return (
            f"set train_config.batch_size_training={largest} and "
            f"train_config.gradient_accumulation_steps={micro}"
        )
    ways = []
    if config.model_config.load_encoder and train.freeze_encoder:
        ways.append(
            "store the features (dataset_config.feature_store, model_config.load_encoder=false)"
        )
    if config.model_config.llm_dtype == "float32":
        ways.append("model_config.llm_dtype=bfloat16")
    if not train.quantization:
        ways.append("train_config.quantization=true (8 bits)")
    return "not even one item fits; " + ", ".join([*ways, "or take a smaller LLM"])


def _check_arguments(
    gpus: int,
    gpu_names: Sequence[str] | None,
    gpu_memory: float | None,
    nodes: int,
    assumptions: Assumptions,
) -> None:
    problems = assumption_problems(assumptions)
    for option, value in (("--gpus", gpus), ("--nodes", nodes)):
        if value < 1:
            problems.append(f"{option}={value}: expected 1 or more")
    if gpu_memory is not None and not 0 < gpu_memory < float("inf"):
        problems.append(f"--gpu-memory={gpu_memory}: expected GiB, above 0")
    for gpu in gpu_names or ():
        if gpu not in GPUS:
            problems.append(f"--gpu={gpu}: expected one of {', '.join(GPUS)}")
    if problems:
        raise InputError(problems)
