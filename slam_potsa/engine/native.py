"""The embedded host: Hugging Face's Trainer around the model and dataset that SLAM-LLM would load.

It reads SLAM-LLM's keys and does what SLAM-LLM's loop does (AdamW in one group, warm-up and linear
decay, its sampler's order, `drop_last`), on CPU and CUDA, with one process or many (torchrun), and
adds what that loop lacks: resuming, a checkpoint at the end, a validation that does not leave the
model in evaluation mode.
"""

from __future__ import annotations

import json
import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from slam_potsa.config import PotsaConfig, TrainConfig
from slam_potsa.config.check import check
from slam_potsa.data.dataset import get_speech_dataset
from slam_potsa.data.pairs import set_epoch
from slam_potsa.engine.judge import Judge
from slam_potsa.engine.prepare import prepare_together
from slam_potsa.engine.run_directory import (
    BEST,
    COMPLETE,
    CONTROLLER,
    MODEL,
    TEACHER,
    complete,
    read_state,
    remove_older,
    step_of,
    trained_from,
    validated_on,
)
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.files import atomic_write
from slam_potsa.model.checkpoint import (
    PROJECTOR,
    TRAINED_TABLE,
    apply_checkpoint,
    read_checkpoint,
    save_checkpoint,
    saving,
    write_tensors,
)
from slam_potsa.model.factory import model_factory
from slam_potsa.model.metrics import METRICS, MetricsLog, logged

logger = logging.getLogger(__name__)


def finetune(config: PotsaConfig) -> Path:
    """Train as configured; returns the path of the final `model.pt`.

    Raises InputError before training starts where the configuration, a manifest, a checkpoint or
    the biases are wrong; NonFiniteLoss where a loss is NaN or infinite.
    """
    check(config)
    check_host(config)
    args = _arguments(config)
    resume = prepare_together(config)
    torch.manual_seed(config.train_config.seed)
    model, tokenizer = model_factory(
        config.train_config,
        config.model_config,
        language_bias=config.language_bias,
        alignment=config.alignment,
        decode=config.decode,
        ckpt_path=config.ckpt_path,
        continue_schedule=False,
    )
    model.epochs = None  # Trainer tells them itself
    splits = ("train", "val") if config.train_config.run_validation else ("train",)
    data = {split: get_speech_dataset(config.dataset_config, tokenizer, split) for split in splits}
    check_sizes(config, len(data["train"]), args.world_size)
    trainer = NativeTrainer(config, model, args, data)
    with logged(model.controller, config, writes=trainer.is_world_process_zero()):
        final = trainer.run(resume)
    # Nothing for one process; of many, one that ended while its group still works might abort.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return final


class NativeTrainer(Trainer):
    """Trainer with SLAM-LLM's optimizer, schedule, sampler and checkpoints."""

    def __init__(self, config: PotsaConfig, model, args: TrainingArguments, data: dict[str, Any]):
        self.potsa, self.data = config, data
        self.made_from = trained_from(config, ["weights"]) if args.should_save else None
        self.judge = Judge(config)
        # What makes two validations comparable.
        self.validated_on = [validated_on(config), self.judge.by, config.native.choose_sample]
        args.max_steps = max_steps(config, len(self._loader("train", args)))
        sets = {"train_dataset": data["train"], "eval_dataset": data.get("val")}
        super().__init__(model=model, args=args, **sets)
        self.controller = model.controller
        self.best, self.stale, self.saved_step = math.inf, 0, -1
        self.remove_callback(PrinterCallback)
        self.add_callback(_Hooks(self))

    def run(self, resume: Path | None) -> Path:
        if resume is not None:
            if self.is_world_process_zero():
                MetricsLog(Path(self.args.output_dir) / METRICS).keep(read_state(resume)["metrics"])
                remove_older(resume, self.potsa.native.keep_checkpoints)  # as it was about to
            logger.info("resuming from %s", resume)
        if resume is not None and (step_of(resume) >= self.args.max_steps or self._gave_up(resume)):
            self._load_from_checkpoint(str(resume))  # finished: Trainer would do one step more
        else:
            self.train(resume_from_checkpoint=None if resume is None else str(resume))
            if self.state.global_step != self.saved_step:
                self._save_checkpoint(self.model, trial=None)
        self.controller.flush()
        final = Path(self.args.output_dir) / MODEL
        if self.args.should_save:
            save_checkpoint(self.model, final)
        self.controller.detach()
        return final

    # -- what SLAM-LLM's loop does -------------------------------------------------------------

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            train = self.potsa.train_config
            groups = parameter_groups(self.model, train, self.potsa.language_bias.lr)
            how = {"lr": train.lr, "weight_decay": train.weight_decay}
            how["fused"] = self.potsa.native.fused or None  # None, not False: torch's fastest other
            self.optimizer = torch.optim.AdamW(groups, **how)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.lr_scheduler is None:
            train, native = self.potsa.train_config, self.potsa.native
            ends = (rate / (train.lr or 1.0) for rate in (native.lr_start, native.lr_end))
            how = train.warmup_steps, train.total_steps, *ends, native.lr_decay
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: learning_rate_factor(step, *how)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader:
        return self._loader("train", self.args)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        return self._loader("val", self.args)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs, _accuracy = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """Mean cross-entropy and token accuracy over batches and ranks, as SLAM-LLM validates."""
        self.model.eval()
        totals = torch.zeros(3, device=self.args.device)
        for inputs in self._loader("val", self.args):
            outputs, accuracy = self.model(**self._prepare_inputs(inputs))
            totals += torch.stack(
                [outputs.loss.float(), accuracy.float(), torch.ones_like(accuracy)]
            )
        if self.args.world_size > 1:
            dist.all_reduce(totals)
        loss, accuracy = (totals[:2] / totals[2]).tolist()
        metrics = {"eval_loss": loss, "eval_accuracy": accuracy}
        number = self.state.global_step // int(self.args.eval_steps)
        value = self.judge.value(metrics, self.model, number)
        self.model.train()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        if value is not None:
            self._keep_best(value)
        return metrics

    def _keep_best(self, value: float) -> None:
        """Lower is better; after `native.patience` values that are not, training stops."""
        self.stale = 0 if value < self.best else self.stale + 1
        if value < self.best:
            self.best = value
            if self.args.should_save:
                save_checkpoint(self.model, Path(self.args.output_dir) / BEST)
        if 0 < self.potsa.native.patience <= self.stale:
            logger.info("step %d: no better validation", self.state.global_step)
            self.control.should_training_stop = True

    def _loader(self, split: str, args: TrainingArguments) -> DataLoader:
        train = self.potsa.train_config
        dataset, training = self.data[split], split == "train"
        return DataLoader(
            dataset,
            batch_size=train.batch_size_training if training else train.val_batch_size,
            # Never told the epoch, as in SLAM-LLM: the dataset itself reshuffles.
            sampler=DistributedSampler(
                dataset, num_replicas=args.world_size, rank=args.process_index, shuffle=training
            ),
            drop_last=training,
            num_workers=train.num_workers_dataloader,
            collate_fn=dataset.collator,
            # Of its own: a loader's start would otherwise draw from the stream that dropout uses.
            generator=torch.Generator().manual_seed(train.seed),
            pin_memory=torch.cuda.is_available(),
        )

    # -- checkpoints ---------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        """Only what is trained, in SLAM-LLM's format; the default writes the frozen LLM too."""
        folder = Path(output_dir or self.args.output_dir)
        state = {
            "controller": self.controller.state_dict(),
            "metrics": MetricsLog(Path(self.args.output_dir) / METRICS).written(),
            "best": self.best,
            "stale": self.stale,
            "validated_on": self.validated_on,
            "world_size": self.args.world_size,
            "made_from": self.made_from,
        }
        if not self.args.should_save:  # Trainer calls this on every rank, and they differ in `ot`
            return
        save_checkpoint(self.model, folder / MODEL)
        if self.potsa.alignment.averages:
            write_tensors(folder / TEACHER, self.model.teacher.state_dict())
        atomic_write(folder / CONTROLLER, json.dumps(state))

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:  # one of this step may be there, from before a resume
            (folder / COMPLETE).unlink(missing_ok=True)
        with saving(folder):
            super()._save_checkpoint(model, trial)
        self.saved_step = self.state.global_step
        if self.args.world_size > 1:
            dist.barrier()  # every rank's random state is there
        if self.args.should_save:
            complete(folder, self.args.world_size)
            # Only now: the one before must stay until this one is whole.
            remove_older(folder, self.potsa.native.keep_checkpoints)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        folder = Path(resume_from_checkpoint)
        apply_checkpoint(self.model, read_checkpoint(folder / MODEL), str(folder))
        if self.potsa.alignment.averages:
            self.model.teacher.load_state_dict(read_checkpoint(folder / TEACHER))
        state = read_state(folder)
        self.controller.load_state_dict(state["controller"])
        if state["validated_on"] == self.validated_on:  # else of other recordings, or otherwise
            self.best, self.stale = state["best"], state["stale"]

    def _gave_up(self, checkpoint: Path) -> bool:
        """Whether `native.patience` had stopped the training there."""
        state = read_state(checkpoint)
        patience = self.potsa.native.patience
        return 0 < patience <= state["stale"] and state["validated_on"] == self.validated_on


class _Hooks(ProgressCallback):
    """The epoch clock, and a progress bar with the quantities of eq. 3-7."""

    def __init__(self, trainer: NativeTrainer):
        super().__init__()
        self.trainer = trainer
        if trainer.is_world_process_zero():
            trainer.controller.listeners.append(self._show)

    def on_epoch_begin(self, args, state, control, **_):
        set_epoch(int(state.epoch or 0))

    def _show(self, record: dict[str, Any]) -> None:
        if record["step"] % self.trainer.potsa.log_config.log_interval or not self.training_bar:
            return
        terms = [term.name for term in self.trainer.controller.objective.terms]
        shown = {name: f"{record[name]:.3f}" for name in ("ce", *terms) if name in record}
        if record["layers"]:
            shown["layer"] = ",".join(map(str, record["layers"]))
        shown["tok/s"] = f"{record['tokens'] / max(record['seconds'], 1e-9):.0f}"
        self.training_bar.set_postfix(shown, refresh=False)


def parameter_groups(
    model: torch.nn.Module, train: TrainConfig, bias_lr: float | None = None
) -> list[dict[str, Any]]:
    """One group of all that trains, as SLAM-LLM has it; one a part where parts have their rates.

    The projector's is the first, whose rate is logged; `bias_lr`: of a trained bias table.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if train.encoder_lr is None and train.llm_lr is None and bias_lr is None:
        return [{"params": [p for _, p in trained]}]
    rates = {
        PROJECTOR: None,
        TRAINED_TABLE: bias_lr,
        "encoder.": train.encoder_lr,
        "llm.": train.llm_lr,
    }
    groups = {
        part: {"params": [], "lr": train.lr if rate is None else rate}
        for part, rate in rates.items()
    }
    for name, parameter in trained:
        part = max((part for part in rates if name.startswith(part)), key=len)
        groups[part]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


def learning_rate_factor(
    step: int, warmup: int, total: int, start: float = 0.0, end: float = 0.0, decay: str = "linear"
) -> float:
    """Of the peak: from `start` to 1 over `warmup` steps, then to `end`; by default SLAM-LLM's,
    whose very first optimizer step has rate 0 when there is a warm-up."""
    if step < warmup:
        return start + (1 - start) * step / warmup
    left = max(0.0, 1 - (step - warmup) / (total - warmup))
    return end + (1 - end) * (left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


def _arguments(config: PotsaConfig) -> TrainingArguments:
    train, native = config.train_config, config.native
    args = TrainingArguments(
        output_dir=train.output_dir,
        seed=train.seed,
        per_device_train_batch_size=train.batch_size_training,
        gradient_accumulation_steps=train.gradient_accumulation_steps,
        max_grad_norm=native.max_grad_norm,
        fp16=train.use_fp16,
        bf16=native.bf16,
        eval_strategy="steps" if train.run_validation else "no",
        # SLAM-LLM counts the interval in micro-steps, Trainer in optimizer steps.
        eval_steps=max(1, train.validation_interval // train.gradient_accumulation_steps),
        save_strategy="steps" if native.save_interval else "no",
        save_steps=native.save_interval or 1,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # would wait for the device at every step
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,
        use_cpu=not torch.cuda.is_available(),
    )
    if args.n_gpu > 1:
        # Trainer would split batches over the cards itself, and pairs apart from their rows.
        logger.warning("using one of %d GPUs; torchrun --nproc_per_node uses them all", args.n_gpu)
        args._n_gpu = 1
    return args


def check_host(config: PotsaConfig) -> None:
    """Raise InputError for options that this host does not have."""
    train = config.train_config
    problems = []
    if train.enable_deepspeed:
        problems.append("train_config.enable_deepspeed needs engine=slam_llm")
    if train.use_fp16 and not torch.cuda.is_available():
        problems.append("train_config.use_fp16=true needs CUDA")
    if config.log_config.use_wandb and find_spec("wandb") is None:
        problems.append("log_config.use_wandb=true needs it: pip install wandb")
    with collecting(problems):
        Judge(config).try_out()
    refuse(problems)


def max_steps(config: PotsaConfig, batches: int) -> int:
    """Optimizer steps: `native.max_steps`, else the epochs', at most until the rate is 0."""
    train = config.train_config
    epochs = train.num_epochs * math.ceil(batches / train.gradient_accumulation_steps)
    return config.native.max_steps or min(epochs, train.total_steps)


def check_sizes(config: PotsaConfig, items: int, world_size: int) -> None:
    """Raise InputError where `items` do not make one batch."""
    if items < config.train_config.batch_size_training * world_size:
        raise InputError(
            f"the training manifest has {items} items, fewer than one batch of "
            f"{config.train_config.batch_size_training} on {world_size} processes: lower "
            "train_config.batch_size_training"
        )
