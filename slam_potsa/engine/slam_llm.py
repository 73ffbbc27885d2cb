"""The real host: SLAM-LLM's own pipelines, unmodified, loading our model and dataset by path.

The only module of the engine that imports `slam_llm`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import slam_potsa
from slam_potsa import stand_ins
from slam_potsa.config import SLAM_ONLY, SLAM_SWITCHES, PotsaConfig
from slam_potsa.engine import deepspeed
from slam_potsa.engine.preflight import preflight
from slam_potsa.engine.prepare import (
    first_rank_first,
    is_main_process,
    prepare,
    use_bias,
    world_size,
)
from slam_potsa.engine.run_directory import BIAS, MODEL, write_model
from slam_potsa.errors import InputError
from slam_potsa.model.factory import models_built

FACE = {"model": "model_factory", "dataset": "get_speech_dataset"}  # in plugin.py


def plugin_file(which: str) -> str:
    """`path.py:function` for SLAM-LLM's `model_config.file` or `dataset_config.file`."""
    return f"{Path(slam_potsa.__file__).with_name('plugin.py')}:{FACE[which]}"


def finetune(config: PotsaConfig) -> None:
    """`slam_llm.pipeline.finetune.main` (DDP). Raises InputError for what cannot work there."""
    if config.train_config.enable_deepspeed:
        raise InputError(
            "train_config.enable_deepspeed=true: SLAM-LLM has a loop of its own for DeepSpeed; "
            "start examples/potsa/finetune_deepspeed.py"
        )
    _prepare(config)
    from slam_llm.pipeline.finetune import main

    with models_built() as models:
        main(to_slam(config))
        for model in models:
            model.controller.flush()
            if is_main_process():  # upstream keeps only what a validation improved
                write_model(model, Path(config.train_config.output_dir) / MODEL)


def finetune_deepspeed(config: PotsaConfig) -> None:
    """`slam_llm.pipeline.finetune_deepspeed.main`. Raises InputError for what cannot work there."""
    # enable_ddp stays as it is: upstream's loop only takes it for "average the logs over ranks".
    config.train_config.enable_deepspeed = True
    _prepare(config)
    deepspeed.use_settings(config)
    from slam_llm.pipeline.finetune_deepspeed import main

    with models_built() as models:
        main(to_slam(config))
        for model in models:
            model.controller.flush()
            path = Path(config.train_config.output_dir) / MODEL
            deepspeed.save_whole(model, path, writes=is_main_process())


def inference(config: PotsaConfig) -> None:
    """`slam_llm.pipeline.inference_batch.main`: writes `<decode_log>_pred` and `_gt`."""
    if not config.ckpt_path or not config.decode_log:
        raise InputError("inference needs ckpt_path and decode_log")
    if config.decode.num_return_sequences > 1:
        raise InputError(
            "decode.num_return_sequences > 1: SLAM-LLM's decoder writes one text an utterance; "
            "give engine=native"
        )
    config.dataset_config.inference_mode = True
    config.train_config.enable_ddp = False  # upstream decodes in one process
    Path(config.decode_log).parent.mkdir(parents=True, exist_ok=True)
    stand_ins.install()
    from slam_llm.pipeline.inference_batch import main

    main(to_slam(config))


def to_slam(config: PotsaConfig) -> Any:
    """As SLAM-LLM takes it: a plain DictConfig with the keys that only it reads, and our files."""
    from omegaconf import OmegaConf

    config.model_config.file = config.model_config.file or plugin_file("model")
    config.dataset_config.file = config.dataset_config.file or plugin_file("dataset")
    switches = {name: getattr(config.train_config, name) for name in SLAM_SWITCHES}
    own = dataclasses.asdict(config)
    return OmegaConf.merge(own, {"train_config": switches}, SLAM_ONLY)


def _prepare(config: PotsaConfig) -> None:
    """Rank 0 writes the run directory while the others wait; then every rank knows the biases."""
    stand_ins.install()
    folder = Path(config.train_config.output_dir)
    with first_rank_first(folder / BIAS, folder / deepspeed.SETTINGS) as turn:
        if turn.is_first:
            preflight(config, world_size())
            prepare(config, resume=None)
            if config.train_config.enable_deepspeed:
                deepspeed.write_settings(config, world_size())
    use_bias(config)
