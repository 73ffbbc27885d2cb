"""From a command line to a host: Hydra configuration, choice of engine, errors a user can read."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.config.check import check
from slam_potsa.config.compose import compose_config, conf_dir, register_schema
from slam_potsa.engine.prepare import is_main_process, quieten
from slam_potsa.engine.run_directory import (
    BEST,
    DONE,
    STAGE,
    best_checkpoint,
    read_config,
    trained_from,
)
from slam_potsa.errors import as_messages, refuse
from slam_potsa.files import alone
from slam_potsa.model.checkpoint import read_checkpoint, write_tensors
from slam_potsa.provenance import write_record


def run_with_hydra(job: Callable[[PotsaConfig], Any]) -> None:
    """Compose the configuration of sys.argv and run `job`; wrong input exits with code 2."""
    import hydra

    register_schema()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def main(composed) -> None:
        with as_messages():
            config = defaults(PotsaConfig, composed)
            check(config)
            job(config)

    quieten()
    # The `deepspeed` launcher appends --local_rank, which Hydra would refuse.
    sys.argv[1:] = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    with as_messages():
        compose_config(words, checked=False)  # Hydra's own messages would not say what to do
    main()


# -- by whom it is done ----------------------------------------------------------------------------


def choose_engine(config: PotsaConfig) -> tuple[str, str]:
    """`(engine, why)`: "auto" takes SLAM-LLM where it is importable and CUDA is there.

    Raises InputError where what the engine needs is not installed.
    """
    import torch

    deep, there = config.train_config.enable_deepspeed, importlib.util.find_spec
    if config.engine != "auto":
        engine, why = config.engine, "as configured"
    elif deep:
        engine, why = "slam_llm", "train_config.enable_deepspeed"
    elif there("slam_llm") is None:
        engine, why = "native", "slam_llm is not importable"
    elif not torch.cuda.is_available():
        engine, why = "native", "SLAM-LLM trains on CUDA only, and there is none"
    else:
        engine, why = "slam_llm", "slam_llm is importable and CUDA is there"
    needed = ["slam_llm", *["deepspeed"] * deep] if engine == "slam_llm" else []
    missing = ", ".join(name for name in needed if there(name) is None)
    told = f"not importable: {missing}, which engine={engine} ({why}) needs"
    refuse([f"{told}: see README, Inside SLAM-LLM, or take engine=native"] * bool(missing))
    return engine, why


def _announced_engine(config: PotsaConfig) -> str:
    config.engine, why = choose_engine(config)
    if is_main_process():
        print(f"engine: {config.engine} ({why})", flush=True)
    return config.engine


def train_stage(config: PotsaConfig) -> None:
    """A recipe's stage; its best model becomes `best/model.pt`, whoever trained it."""
    made_from = trained_from(config)  # before the training: of what it reads
    folder = Path(config.train_config.output_dir)
    with _alone(config):
        _finetune(config)
        if is_main_process():
            found = best_checkpoint(folder)
            if found != folder / BEST:
                _pass_on(found, config.ckpt_path, folder / BEST)
            write_record(folder / DONE, made_from, [folder / BEST])


def _alone(config: PotsaConfig) -> AbstractContextManager:
    """The first process holds the run directory for all of them."""
    return alone(config.train_config.output_dir) if is_main_process() else nullcontext()


def _pass_on(found: Path, before: str | None, path: Path) -> None:
    """Write what SLAM-LLM saved, which is what trains, with what stages `before` have trained."""
    state, earlier = read_checkpoint(found), read_checkpoint(before) if before else {}
    lacking = {n: t for n, t in earlier.items() if n not in state and ".as_" not in n}
    write_tensors(path, {**lacking, **state})


def _finetune(config: PotsaConfig) -> None:
    if _announced_engine(config) == "slam_llm":
        from slam_potsa.engine import slam_llm as host
    else:
        from slam_potsa.engine import native as host
    with _alone(config):
        final = host.finetune(config)
    if is_main_process():
        print(f"trained: {final}")


def _finetune_deepspeed(config: PotsaConfig) -> None:
    config.train_config.enable_deepspeed = True
    _finetune(config)


def _inference(config: PotsaConfig) -> None:
    config.train_config.enable_deepspeed = False  # of the training alone
    if _announced_engine(config) == "slam_llm":
        from slam_potsa.engine import slam_llm

        slam_llm.inference(config)
    else:
        from slam_potsa.engine.decode import decode

        decode(config)
    if is_main_process():
        print(f"decoded: {config.decode_log}_pred")


finetune = partial(run_with_hydra, _finetune)  # examples/potsa/finetune.py
finetune_deepspeed = partial(run_with_hydra, _finetune_deepspeed)  # …/finetune_deepspeed.py
inference = partial(run_with_hydra, _inference)  # examples/potsa/inference.py

if __name__ == "__main__":  # how a recipe starts its stages; DeepSpeed puts --local_rank first
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    quieten()
    with as_messages():
        train_stage(read_config(sys.argv[-1], STAGE))
