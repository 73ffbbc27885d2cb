"""`slam-potsa plan`: what a training would need, before anything is downloaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from slam_potsa.engine.plan.assumptions import ASSUMPTIONS, GPUS
from slam_potsa.errors import InputError


def add(commands) -> None:
    plan = commands.add_parser(
        "plan",
        help="parameters, memory, FLOPs and hours of a recipe or configuration; needs no weights",
        description="Build the models at their true sizes without weights, check every shape and "
        "configuration, and count memory, operations and hours. Exit code 2, with every problem, "
        "where something does not fit.",
    )
    plan.add_argument(
        "assignments",
        nargs="*",
        metavar="key=value",
        help="recipe=NAME with overrides as `slam-potsa run` takes them, or those of finetune.py, "
        "such as experiment=table1_ours",
    )
    plan.add_argument(
        "--gpu",
        action="append",
        choices=tuple(GPUS),
        help="the GPU it must fit, may be repeated; default: show all, it must fit one",
    )
    plan.add_argument("--gpus", type=int, help="how many of them; default: the recipe's, else 1")
    plan.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    assumed = plan.add_argument_group("assumptions, where nothing can be read or measured")
    for name, (default, meaning) in ASSUMPTIONS.items():
        option, text = f"--{name.replace('_', '-')}", f"{meaning}; default: {default}"
        assumed.add_argument(option, type=_positive, default=default, metavar="N", help=text)
    plan.set_defaults(command=_plan)


def _positive(text: str) -> float:
    if float(text) <= 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return float(text)


def _plan(args) -> None:
    import json

    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.plan.plan import plan_stages
    from slam_potsa.engine.plan.report import text
    from slam_potsa.files import atomic_write

    quieten()
    name, stages, processes = read_stages(args.assignments)
    gpus = processes if args.gpus is None else args.gpus
    if gpus < 1:
        raise InputError(f"--gpus={gpus}: expected 1 or more")
    assumptions = {name: getattr(args, name) for name in ASSUMPTIONS}
    plan = plan_stages(
        stages, name=name, gpus=gpus, gpu_names=args.gpu or (), assumptions=assumptions
    )
    print(text(plan))
    if args.json:
        atomic_write(args.json, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    if plan["problems"]:
        raise InputError(plan["problems"])


def read_stages(assignments: Sequence[str]):
    """`(name, [(stage, configuration)], processes)` of a recipe, or of one configuration."""
    from slam_potsa.config.compose import compose_config
    from slam_potsa.engine.recipe import load_recipe

    names = [text.removeprefix("recipe=") for text in assignments if text.startswith("recipe=")]
    others = [text for text in assignments if not text.startswith("recipe=")]
    if names:
        recipe = load_recipe(names[-1], others)
        stages = [(stage.name, stage.config) for stage in recipe.stages]
        return f"recipe {recipe.name}", stages, recipe.processes
    config = compose_config(others)
    return " ".join(others), [(config.train_config.model_name, config)], 1
