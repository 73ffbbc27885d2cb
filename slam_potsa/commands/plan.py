"""`slam-potsa plan`: what a training would need, before anything is downloaded."""

from __future__ import annotations

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
    plan.add_argument(
        "--gpu-memory",
        type=float,
        metavar="GIB",
        help="it must fit so much, on a GPU that --gpu does not know (CUDA reports some 0.4 GiB "
        "less than its name says)",
    )
    plan.add_argument("--gpus", type=int, help="GPUs of a machine; default: the recipe's, else 1")
    plan.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="machines; with several, their share of the accumulation and the command for "
        "SLAM-LLM's loop; default: 1",
    )
    plan.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    assumed = plan.add_argument_group("assumptions, where nothing can be read or measured")
    for name, one in ASSUMPTIONS.items():
        option, kind = f"--{name.replace('_', '-')}", type(one.default)
        text = f"{one.meaning} ({one.source}); default: {one.default}"
        assumed.add_argument(option, type=kind, default=one.default, metavar="N", help=text)
    plan.set_defaults(command=_plan)


def _plan(args) -> None:
    import json

    from slam_potsa.engine.launch import quieten
    from slam_potsa.engine.plan.plan import plan_stages
    from slam_potsa.engine.plan.report import text
    from slam_potsa.files import atomic_write

    quieten()
    name, stages, processes = read_stages(args.assignments)
    plan = plan_stages(
        stages,
        name=name,
        gpus=processes if args.gpus is None else args.gpus,
        gpu_names=args.gpu or (),
        gpu_memory=args.gpu_memory,
        nodes=args.nodes,
        assumptions={name: getattr(args, name) for name in ASSUMPTIONS},
    )
    if plan["stages"]:
        print(text(plan))
    if args.json:
        atomic_write(args.json, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")
    if plan["problems"]:
        raise InputError(plan["problems"])


def read_stages(assignments: Sequence[str]):
    """`(name, [(stage, configuration)], processes)` of a recipe, or of one configuration.

    A single configuration is not checked yet: the plan says all that is wrong with it at once.
    """
    from slam_potsa.config.compose import compose_config
    from slam_potsa.engine.recipe import load_recipe

    named = [text for text in assignments if text.startswith("recipe=")]
    others = [text for text in assignments if not text.startswith("recipe=")]
    if len(named) > 1:
        raise InputError(f"expected one recipe=NAME, got {', '.join(named)}")
    if named:
        recipe = load_recipe(named[0].removeprefix("recipe="), others)
        stages = [(stage.name, stage.config) for stage in recipe.stages]
        return f"recipe {recipe.name}", stages, recipe.processes
    config = compose_config(others, checked=False)
    return " ".join(others), [(config.train_config.model_name, config)], 1
