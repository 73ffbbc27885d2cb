"""SLAM-LLM's trainer: `train_config`, `log_config`, `fsdp_config`."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import COT_ST, SLAM, option, section


@dataclass
class PeftConfig:
    """LoRA on the LLM (train_config.use_peft), SLAM-LLM's key names."""

    peft_method: str = option("lora", "adapter kind", choices=("lora",), source=SLAM)
    r: int = option(8, "rank of the update", low=1, source=SLAM)
    lora_alpha: int = option(32, "scale is lora_alpha / r", low=1, source=SLAM)
    target_modules: list[str] = option(["q_proj", "v_proj"], "LLM modules adapted", source=SLAM)
    bias: str = option("none", "which biases train", source=SLAM)
    task_type: str = option("CAUSAL_LM", "peft's task type", source=SLAM)
    lora_dropout: float = option(0.05, "dropout of the update's input", low=0, high=1, source=SLAM)
    inference_mode: bool = option(False, "load the adapter frozen", source=SLAM)


@dataclass
class TrainConfig:
    """The trainer's keys. A batch counts dataset items: a parallel pair is one item, two rows."""

    model_name: str = option("potsa", "prefix of checkpoint folders", source=SLAM)
    seed: int = option(42, "seed of weights, pairs and the layer schedule", low=0)
    lr: float = option(1e-4, "peak learning rate of AdamW", low=0, source=COT_ST)
    weight_decay: float = option(0.0, "AdamW's decoupled decay", low=0, source=SLAM)
    warmup_steps: int = option(1000, "optimizer steps of linear warm-up", low=0, source=COT_ST)
    total_steps: int = option(
        100000, "optimizer step at which the rate reaches 0 and training stops", low=1
    )
    num_epochs: int = option(10, "passes over the training items, at most", low=1)
    batch_size_training: int = option(4, "items a device a micro-step", low=1)
    val_batch_size: int = option(4, "items a device in validation and decoding", low=1)
    gradient_accumulation_steps: int = option(
        1, "micro-steps an optimizer step; DeepSpeed's file says auto and takes this", low=1
    )
    batching_strategy: str = option(
        "custom",
        "how SLAM-LLM batches; only 'custom' uses a dataset's own collator and keeps pairs whole",
        choices=("custom",),
        source=SLAM,
    )
    num_workers_dataloader: int = option(2, "processes that read audio", low=0)
    run_validation: bool = option(True, "SLAM-LLM saves only at validations that improve")
    validation_interval: int = option(1000, "micro-steps between validations", low=1)
    freeze_encoder: bool = option(True, "keep the speech encoder fixed", source="POTSA 4.1")
    freeze_llm: bool = option(True, "keep the LLM fixed", source="POTSA 4.1")
    use_peft: bool = option(False, "LoRA on the LLM")
    peft_config: PeftConfig = section(PeftConfig)
    quantization: bool = option(
        False,
        "frozen LLM in 8 bits (bitsandbytes' LLM.int8): half the weights' memory, more activations "
        "and a slower step; native host only",
        source=SLAM,
    )
    use_fp16: bool = option(False, "fp16 autocast with loss scaling (CUDA)")
    output_dir: str = option("outputs/potsa", "the run directory")
    save_model: bool = option(True, "write checkpoints")
    # Read by SLAM-LLM only; harmless values that keep it from failing on a missing key.
    enable_ddp: bool = option(True, "DistributedDataParallel (also with one process)", source=SLAM)
    enable_deepspeed: bool = option(False, "DeepSpeed launcher", source=SLAM)
    enable_fsdp: bool = option(False, "unusable upstream with a Q-Former", source=SLAM)
    low_cpu_fsdp: bool = option(False, "FSDP only", source=SLAM)
    use_fast_kernels: bool = option(False, "attention is SDPA already", source=SLAM)
    freeze_layers: bool = option(False, "FSDP only", source=SLAM)
    num_freeze_layers: int = option(1, "FSDP only", source=SLAM)
    save_optimizer: bool = option(False, "FSDP only", source=SLAM)
    dist_checkpoint_root_folder: str = option("", "FSDP only", source=SLAM)
    dist_checkpoint_folder: str = option("", "FSDP only", source=SLAM)
    context_length: int = option(4096, "packing only", source=SLAM)
    run_test_during_validation: bool = option(False, "runs at every step upstream: keep off")
    run_test_during_validation_file: str = option("", "see above", source=SLAM)
    run_test_during_validation_prompt: str = option("", "see above", source=SLAM)


@dataclass
class LogConfig:
    """Logging, SLAM-LLM's key names."""

    log_file: str = option("outputs/potsa/train.log", "must contain a '/'", source=SLAM)
    log_interval: int = option(10, "steps between lines of the progress bar", low=1)
    use_tensorboard: bool = option(
        False, "write <output_dir>/tensorboard; the native host only, needs tensorboard"
    )
    use_wandb: bool = option(False, "log to Weights & Biases; needs wandb", source=SLAM)
    wandb_dir: str = option("outputs/wandb", "its folder", source=SLAM)
    wandb_entity_name: str = option("", "its entity", source=SLAM)
    wandb_project_name: str = option("slam_potsa", "its project", source=SLAM)
    wandb_exp_name: str = option("potsa", "its run", source=SLAM)


@dataclass
class FsdpConfig:
    """Must exist for SLAM-LLM, which writes use_fp16 into it."""

    pure_bf16: bool = option(False, "cast the whole model to bfloat16", source=SLAM)
    use_fp16: bool = option(False, "set by SLAM-LLM", source=SLAM)
    optimizer: str = option("AdamW", "with pure_bf16", source=SLAM)
