"""The real host: SLAM-LLM's own pipelines, unmodified, loading our model and dataset by path.

The only module of the engine that imports `slam_llm`. What its training would only find out hours
into a run, or never, `preflight` refuses before it starts: each check names what upstream does with
such a configuration and what to change.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import slam_potsa
from slam_potsa import stand_ins
from slam_potsa.config import (
    SLAM_ONLY,
    SLAM_SWITCHES,
    NativeConfig,
    PotsaConfig,
    TrainConfig,
    flat,
)
from slam_potsa.config.check import native_only
from slam_potsa.data.dataset import read_rows, training_items
from slam_potsa.data.order import ranks
from slam_potsa.engine import deepspeed
from slam_potsa.engine.prepare import (
    first_rank_first,
    is_main_process,
    prepare,
    use_bias,
)
from slam_potsa.engine.run_directory import (
    BIAS,
    MODEL,
    complete_checkpoints,
    saved_folders,
)
from slam_potsa.errors import InputError, refuse
from slam_potsa.model.checkpoint import save_checkpoint
from slam_potsa.model.factory import models_built

FACE = {"model": "model_factory", "dataset": "get_speech_dataset"}  # in plugin.py


def plugin_file(which: str) -> str:
    """`path.py:function` for SLAM-LLM's `model_config.file` or `dataset_config.file`."""
    return f"{Path(slam_potsa.__file__).with_name('plugin.py')}:{FACE[which]}"


def finetune(config: PotsaConfig) -> Path:
    """`slam_llm.pipeline.finetune.main` (DDP) or `finetune_deepspeed.main`; the path of `model.pt`.

    Raises InputError for what cannot work there.
    """
    whole = config.train_config.enable_deepspeed
    _prepare(config)
    if whole:
        deepspeed.use_settings(config)
    loop = import_module(f"slam_llm.pipeline.finetune{'_deepspeed' * whole}")
    path, writes = Path(config.train_config.output_dir) / MODEL, is_main_process()
    with models_built() as models:
        loop.main(to_slam(config))
        for model in models:
            model.controller.flush()
            if whole:
                deepspeed.save_whole(model, path, writes=writes)
            elif writes:  # upstream keeps only what a validation improved
                save_checkpoint(model, path)
    return path


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
    Path(config.decode_log).parent.mkdir(parents=True, exist_ok=True)
    stand_ins.install()
    from slam_llm.pipeline.inference_batch import main

    main(to_slam(config, {"train_config": {"enable_ddp": False}}))  # it decodes in one process


def to_slam(config: PotsaConfig, more: Any = None) -> Any:
    """As SLAM-LLM takes it: a plain DictConfig with the keys that only it reads, and our files."""
    from omegaconf import OmegaConf

    config.model_config.file = config.model_config.file or plugin_file("model")
    config.dataset_config.file = config.dataset_config.file or plugin_file("dataset")
    switches = {name: getattr(config.train_config, name) for name in SLAM_SWITCHES}
    own = dataclasses.asdict(config)
    return OmegaConf.merge(own, {"train_config": switches}, SLAM_ONLY, more or {})


def _prepare(config: PotsaConfig) -> None:
    """Rank 0 writes the run directory while the others wait; then every rank knows the biases."""
    stand_ins.install()
    folder = Path(config.train_config.output_dir)
    with first_rank_first(folder / BIAS, folder / deepspeed.SETTINGS) as turn:
        if turn.is_first:
            preflight(config, ranks())
            prepare(config, resume=None)
            if config.train_config.enable_deepspeed:
                deepspeed.write_settings(config, ranks())
    use_bias(config)


# -- what it cannot train --------------------------------------------------------------------------


def preflight(config: PotsaConfig, world_size: int = 1, *, launched: bool | None = None) -> None:
    """Raise InputError with everything in `config` that SLAM-LLM's training cannot do.

    Args:
        launched: by torchrun or the like; None: whether this process was.
    """
    if launched is None:
        launched = "LOCAL_RANK" in os.environ
    problems = [*_earlier_run(config), *_switches(config, launched)]
    if config.train_config.enable_deepspeed:
        problems += _deepspeed(config, world_size)
    refuse([*problems, *_lengths(config, world_size)])


def _earlier_run(config: PotsaConfig) -> Iterator[str]:
    output_dir = config.train_config.output_dir
    found = [*complete_checkpoints(output_dir), *saved_folders(output_dir)]
    if found and config.native.resume != "never":
        yield (
            f"{output_dir} holds {found[0].name} of an earlier run, and SLAM-LLM cannot resume: "
            f"move it away, and give ckpt_path=<there>/{found[0].name}/model.pt to go on from "
            "those weights with the steps that are left; or give native.resume=never to train anew"
            + "; keep alignment.teacher at the file it was"
            * bool(config.alignment.teacher and not config.alignment.averages)
            + "; alignment.teacher=ema begins anew from them" * config.alignment.averages
        )


def _switches(config: PotsaConfig, launched: bool) -> Iterator[str]:
    train = config.train_config
    yield from native_only(config)
    of = {"affects": ("weights", "outcome")}
    given, usual = flat(config.native, **of).items(), flat(NativeConfig(), **of)
    unread = [f"native.{name}={value}" for name, value in given if value != usual[name]]
    if unread:
        yield f"{', '.join(unread)}: SLAM-LLM never reads it; leave it out, or set engine=native"
    if not launched:
        yield (
            "SLAM-LLM needs a launcher: start with `torchrun --nproc_per_node 1 ...` (also for one "
            "process), or give engine=native"
        )
    if not train.run_validation:
        yield (
            "train_config.run_validation=false: SLAM-LLM saves at validations only, so a run that "
            "is interrupted would leave nothing; set it to true"
        )


def _lengths(config: PotsaConfig, world_size: int) -> Iterator[str]:
    """SLAM-LLM drops the last incomplete batch of each rank, of the validation set too."""
    train, data = config.train_config, config.dataset_config
    sizes = [("train_data_path", len(training_items(data)), "batch_size_training")]
    if train.run_validation and data.val_data_path:
        rows = read_rows(data, data.val_data_path)
        sizes.append(("val_data_path", len(rows), "val_batch_size"))
    elif train.run_validation:
        yield "dataset_config.val_data_path is not set: SLAM-LLM saves at validations only"
    for name, items, batch_size in sizes:
        share = -(-items // world_size)
        if share < getattr(train, batch_size):
            yield (
                f"dataset_config.{name}: {items} items on {world_size} processes are {share} each, "
                "fewer than one batch, and SLAM-LLM drops incomplete ones; set "
                f"train_config.{batch_size} to {share} or less"
            )
    batches = -(-sizes[0][1] // world_size) // train.batch_size_training
    if train.run_validation and batches:
        yield from _validation_interval(train, batches)


def _validation_interval(train: TrainConfig, batches: int) -> Iterator[str]:
    # Under DeepSpeed its own file accumulates, and the loop is told 1.
    accumulation = 1 if train.enable_deepspeed else train.gradient_accumulation_steps
    counted = (train.num_epochs - 1) * (batches // accumulation) + batches
    first = first_validation(batches, train.num_epochs, train.validation_interval, accumulation)
    if first is None:
        yield (
            f"train_config.validation_interval={train.validation_interval}: SLAM-LLM counts "
            f"{counted} steps in this run ({batches} batches an epoch) and would never validate, "
            f"so never save, and die at the end; set it to {batches} or less"
        )
    elif not train.enable_deepspeed and first >= train.total_steps:
        yield (
            f"train_config.total_steps={train.total_steps}: the rate is 0, and SLAM-LLM stops "
            f"training, before the first validation at optimizer step {first}; lower "
            "train_config.validation_interval or raise total_steps"
        )


def first_validation(batches: int, epochs: int, interval: int, accumulation: int) -> int | None:
    """The optimizer step at which SLAM-LLM's loop first validates, or None.

    It counts micro-steps within an epoch, but epochs in optimizer steps: with accumulation, the
    count starts each epoch from less than it ended with.
    """
    for epoch in range(epochs):
        start = epoch * (batches // accumulation)
        step = interval - start % interval  # micro-steps into this epoch
        if step <= batches:
            per_epoch = -(-batches // accumulation)  # the last batch always ends a step
            return epoch * per_epoch + (per_epoch if step == batches else step // accumulation)
    return None


def _deepspeed(config: PotsaConfig, world_size: int) -> Iterator[str]:
    train = config.train_config
    try:
        given = deepspeed.read_settings(config.deepspeed_config)
    except InputError as error:
        yield from error.problems
        return
    settings = deepspeed.fill_in(given, train, world_size)
    whole = {
        "alignment.teacher=ema": config.alignment.averages,
        "language_bias.trained=true": config.language_bias.trained,
    }
    for name in (name for name, is_set in whole.items() if is_set):
        yield (
            f"{name} needs its weights whole and in float32, which DeepSpeed casts and (ZeRO-3) "
            "splits: start with torchrun (train_config.enable_deepspeed=false), or do without it"
        )
    yield from _deepspeed_file(settings, str(config.deepspeed_config))
    yield from _accumulation(given, train)
    if train.use_fp16:
        yield (
            "train_config.use_fp16=true: under DeepSpeed its file names the precision; set it to "
            'false, and "fp16": {"enabled": true} there'
        )


def _deepspeed_file(settings: dict[str, Any], name: str) -> Iterator[str]:
    if not (settings.get("zero_optimization") or {}).get("stage", 0):
        yield (
            f"{name}: ZeRO stage 0 trains, but dies when SLAM-LLM saves (there are no partitions "
            'to put together); set "zero_optimization": {"stage": 1}, 2 or 3'
        )
    if deepspeed.enabled(settings, "fp16") and deepspeed.enabled(settings, "bf16"):
        yield f"{name}: fp16 and bf16 are both enabled; choose one"
    optimizer = settings.get("optimizer") or {}
    if "lr" not in (optimizer.get("params") or {}):
        yield (
            f"{name}: no optimizer.params.lr; SLAM-LLM takes optimizer and rate from this file "
            'only: give "optimizer": {"type": "AdamW", "params": {"lr": "auto"}}'
        )
    for key in deepspeed.left_auto(settings):
        yield f'{name}: {key}="auto" has no value in train_config; give a number, or remove it'


def _accumulation(given: dict[str, Any], train: TrainConfig) -> Iterator[str]:
    wanted, there = train.gradient_accumulation_steps, given.get("gradient_accumulation_steps")
    needed = wanted > 1 or ("train_batch_size" in given and there is None)
    if needed and there != deepspeed.AUTO:
        yield (
            f"train_config.gradient_accumulation_steps={wanted}, and the DeepSpeed file says "
            f"{there or 'nothing'}: SLAM-LLM divides the loss by the first, DeepSpeed by the "
            'second; write "gradient_accumulation_steps": "auto" there'
        )
