"""From a command line to a host: Hydra configuration, choice of engine, errors a user can read."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
from slam_potsa.errors import InputError, told
from slam_potsa.files import alone
from slam_potsa.model.checkpoint import read_checkpoint, write_tensors
from slam_potsa.model.controller import NonFiniteLoss
from slam_potsa.provenance import write_record

EXIT_INPUT = 2  # the user's input is wrong; nothing was started


def run_with_hydra(job: Callable[[PotsaConfig], Any]) -> None:
    """Compose the configuration of sys.argv and run `job`; wrong input exits with code 2."""
    import hydra

    register_schema()

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def main(composed) -> None:
        with _errors_as_messages():
            config = defaults(PotsaConfig, composed)
            check(config)
            job(config)

    quieten()
    # The `deepspeed` launcher appends --local_rank, which Hydra would refuse.
    sys.argv[1:] = [a for a in sys.argv[1:] if not a.startswith("--local_rank")]
    words = [word for word in sys.argv[1:] if "=" in word and not word.startswith("-")]
    with _errors_as_messages():
        compose_config(words, checked=False)  # Hydra's own messages would not say what to do
    main()


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    try:
        yield
    except (InputError, NonFiniteLoss) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_INPUT if isinstance(error, InputError) else 1)
    except OSError as error:
        sys.exit(f"error: {told(error)}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


# -- by whom it is done ----------------------------------------------------------------------------


def choose_engine(wanted: str) -> tuple[str, str]:
    """`(engine, why)`: "auto" takes SLAM-LLM where it is importable and CUDA is there."""
    import torch

    if wanted != "auto":
        return wanted, "as configured"
    if importlib.util.find_spec("slam_llm") is None:
        return "native", "slam_llm is not importable"
    if not torch.cuda.is_available():
        return "native", "SLAM-LLM trains on CUDA only, and there is none"
    return "slam_llm", "slam_llm is importable and CUDA is there"


def _announced_engine(config: PotsaConfig) -> str:
    config.engine, why = choose_engine(config.engine)
    if is_main_process():
        print(f"engine: {config.engine} ({why})", flush=True)
    return config.engine


def train_stage(config: PotsaConfig) -> None:
    """A recipe's stage; its best model becomes `best/model.pt`, whoever trained it."""
    made_from = trained_from(config)  # before the training: of what it reads
    train = _finetune_deepspeed if config.train_config.enable_deepspeed else _finetune
    folder = Path(config.train_config.output_dir)
    with _alone(config):
        train(config)
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
    engine = _announced_engine(config)
    with _alone(config):
        if engine == "slam_llm":
            from slam_potsa.engine import slam_llm

            return slam_llm.finetune(config)
        from slam_potsa.engine import native

        final = native.finetune(config)
        if is_main_process():
            print(f"trained: {final}")


def _finetune_deepspeed(config: PotsaConfig) -> None:
    """SLAM-LLM's loop only: the native host has no need of another entry."""
    missing = [name for name in ("slam_llm", "deepspeed") if importlib.util.find_spec(name) is None]
    if missing or config.engine == "native":
        why = f"not importable: {', '.join(missing)}" if missing else "engine=native"
        raise InputError(
            f"{why}; finetune_deepspeed.py is for SLAM-LLM's DeepSpeed loop. Without it, start "
            "examples/potsa/finetune.py"
        )
    from slam_potsa.engine import slam_llm

    config.engine = "slam_llm"
    with _alone(config):
        slam_llm.finetune_deepspeed(config)


def _inference(config: PotsaConfig) -> None:
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
    with _errors_as_messages():
        train_stage(read_config(sys.argv[-1], STAGE))
