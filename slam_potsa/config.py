"""Every option once: typed, ranged, with its unit and its source.

The sections that SLAM-LLM knows (`train_config`, `model_config`, `dataset_config`, `log_config`,
`fsdp_config`) keep its names and key names, so that one Hydra configuration drives both hosts. Ours
(`language_bias`, `alignment`, `decode`, `native`) stand beside them: SLAM-LLM hands every other
top-level key to the model factory. YAML files under `conf/` only choose values; the defaults, their
meaning and their limits are here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slam_potsa.errors import InputError


def option(default: Any, help: str, *, low=None, high=None, choices=None, source: str = "") -> Any:
    """A dataclass field with its meaning, limits (inclusive) and source, for checks and docs."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "source": source}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(kind: type) -> Any:
    return field(default_factory=kind)


NOT_IN_PAPER = "not given by the POTSA paper; ours, see benchmarks"
SLAM = "SLAM-LLM"
COT_ST = "SLAM-LLM st_covost2 (CoT-ST)"


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
    total_steps: int = option(100000, "optimizer step at which the rate reaches 0", low=1)
    num_epochs: int = option(10, "passes over the training items, at most", low=1)
    batch_size_training: int = option(4, "items a device a micro-step", low=1)
    val_batch_size: int = option(4, "items a device in validation and decoding", low=1)
    gradient_accumulation_steps: int = option(
        1, "micro-steps an optimizer step; under DeepSpeed accumulate in its JSON only", low=1
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
    use_fp16: bool = option(False, "fp16 autocast with loss scaling (CUDA)")
    output_dir: str = option("outputs/potsa", "the run directory")
    save_model: bool = option(True, "write checkpoints")
    # Read by SLAM-LLM only; harmless values that keep it from failing on a missing key.
    enable_ddp: bool = option(True, "DistributedDataParallel (also with one process)", source=SLAM)
    enable_deepspeed: bool = option(False, "DeepSpeed launcher", source=SLAM)
    enable_fsdp: bool = option(False, "unusable upstream with a Q-Former", source=SLAM)
    low_cpu_fsdp: bool = option(False, "FSDP only", source=SLAM)
    quantization: bool = option(False, "8-bit LLM", source=SLAM)
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
class ModelConfig:
    """Speech encoder, projector, LLM. Folder or hub names for the two pre-trained parts."""

    file: str = option("", "path.py:function that builds the model; empty: ours", source=SLAM)
    llm_name: str = option("qwen2.5-7b", "a name for logs", source=SLAM)
    llm_path: str = option("Qwen/Qwen2.5-7B", "transformers folder or hub name")
    llm_dim: int = option(0, "width of the LLM's embeddings; 0: read from the LLM", low=0)
    llm_dtype: str = option(
        "auto",
        "precision of the frozen LLM and encoder; auto: bfloat16 on CUDA, float32 elsewhere",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    encoder_name: str = option("whisper", "speech encoder family", choices=("whisper",))
    encoder_path: str = option("", "openai-whisper file, for SLAM-LLM's own loader", source=SLAM)
    encoder_path_hf: str = option("openai/whisper-large-v3", "transformers folder or hub name")
    encoder_dim: int = option(0, "width of the encoder; 0: read from the encoder", low=0)
    encoder_window: str = option(
        "30s",
        "'30s' pads every utterance as Whisper was trained; 'trimmed' encodes its true length, "
        "at a fraction of the cost",
        choices=("30s", "trimmed"),
    )
    load_encoder: bool = option(
        True, "false: keep no encoder in memory; every batch brings stored features"
    )
    whisper_decode: bool = option(False, "read by SLAM-LLM's encoder loader", source=SLAM)
    encoder_projector: str = option("q-former", "projector's registry name", source=SLAM)
    encoder_projector_ds_rate: int = option(5, "linear projectors only", low=1, source=SLAM)
    query_len: int = option(80, "query tokens N an utterance", low=1, source="POTSA 4.1")
    qformer_layers: int = option(8, "Transformer blocks L", low=1, source="POTSA 4.1")
    qformer_dim: int = option(768, "width D of the Q-Former", low=1, source=COT_ST)
    qformer_heads: int = option(12, "attention heads, a divisor of qformer_dim", low=1)
    qformer_dropout: float = option(0.1, "dropout in the Q-Former", low=0, high=1, source=COT_ST)


@dataclass
class DatasetConfig:
    """Manifests, prompt, pairing."""

    dataset: str = option("potsa", "a name for logs", source=SLAM)
    file: str = option("", "path.py:function that builds the dataset; empty: ours", source=SLAM)
    train_data_path: str = option("", "manifest (JSON Lines) of the training set")
    val_data_path: str = option("", "manifest of the validation set")
    test_data_path: str = option("", "manifest to decode")
    input_type: str = option("mel", "what the encoder reads", choices=("mel",), source=SLAM)
    mel_size: int = option(128, "mel bands: 128 for Whisper large-v3, 80 before", low=1)
    fix_length_audio: int = option(80, "audio slots a row = model_config.query_len", low=1)
    encoder_window: str = option("30s", "= model_config.encoder_window", choices=("30s", "trimmed"))
    attend_padding: bool = option(
        False,
        "let the Q-Former see the padding of the 30 s window, as CoT-ST's checkpoints were trained",
        source=COT_ST,
    )
    prompt: str = option(
        "USER: Translate the speech to {target_language}.\n ASSISTANT: ",
        "text between speech and answer; {language} and {target_language} are filled in",
    )
    pairing: str = option(
        "random",
        "'random': two random languages a pair; 'anchor': every pair holds anchor_language; "
        "'none': single utterances",
        choices=("random", "anchor", "none"),
        source="POTSA 4.2, Table 1 (c), (d)",
    )
    anchor_language: str = option("en", "the anchor of pairing=anchor", source="POTSA Table 1")
    check_audio: bool = option(
        True, "decode every recording before training starts, and list all that cannot be used"
    )
    feature_store: str | None = option(None, "folder of stored encoder features, or null")
    inference_mode: bool = option(False, "set by the decoders", source=SLAM)
    seed: int = option(42, "seed of the pairs = train_config.seed", low=0)


@dataclass
class LogConfig:
    """Logging, SLAM-LLM's key names."""

    log_file: str = option("outputs/potsa/train.log", "must contain a '/'", source=SLAM)
    log_interval: int = option(10, "steps between lines of the progress bar", low=1)
    use_wandb: bool = option(False, "log to Weights & Biases", source=SLAM)
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


@dataclass
class LanguageBiasConfig:
    """Eq. 1-2."""

    enabled: bool = option(True, "subtract the language bias from the encoder output")
    path: str | None = option(
        None, "language_bias.safetensors; null: estimated from the training manifest at the start"
    )
    center: str = option(
        "all",
        "'all': subtract b_l (the paper); 'language_only': b_l minus the mean of all b",
        choices=("all", "language_only"),
        source="POTSA eq. 1-2",
    )
    unseen_language: str = option(
        "mean",
        "bias of a language that was never estimated; the paper only says 'inherited from the "
        "training configuration'",
        choices=("mean", "zero", "error"),
        source=NOT_IN_PAPER,
    )


@dataclass
class ScheduleConfig:
    """Eq. 5-7 and the rivals of Table 3."""

    strategy: str = option(
        "ucb",
        "how the aligned layer is chosen",
        choices=("ucb", "random", "single", "multi"),
        source="POTSA 3.3, Table 3",
    )
    candidates: str = option(
        "lower",
        "layers to choose from: 'lower' half, 'all', or a list such as '1,2,4' (numbered from 1)",
        source="POTSA Table 3 (iv), (v); which layers are 'lower' is not said",
    )
    layers: list[int] = option(
        [], "fixed layers of 'single' and 'multi'; empty: the second candidate, all candidates"
    )
    reward_decay: float = option(
        0.9, "gamma of eq. 5, below 1", low=0, high=0.999999, source=NOT_IN_PAPER
    )
    exploration: float = option(0.1, "beta of eq. 6, in units of loss", low=0, source=NOT_IN_PAPER)
    temperature: float = option(
        0.01, "tau of eq. 7, in units of loss", low=1e-12, source=NOT_IN_PAPER
    )


@dataclass
class AlignmentConfig:
    """Eq. 3-4: L = L_CE + weight * mean over layers and pairs of the distance."""

    weight: float = option(
        10.0, "lambda of eq. 4; 0 turns alignment off", low=0, source="POTSA 4.1"
    )
    distance: str = option("ot", "registry name: ot, mse, cosine", source="POTSA Table 2")
    detach_anchor: bool = option(
        False, "no gradient through the anchor's branch", source="POTSA Table 1 (c)"
    )
    include_output: bool = option(
        False, "align the projector's output too (named in POTSA 3.2, not in eq. 4)"
    )
    epsilon: float = option(0.05, "entropic regularisation", low=1e-6, source=NOT_IN_PAPER)
    epsilon_scale: str = option(
        "mean", "epsilon in units of the mean cost, or absolute", choices=("mean", "absolute")
    )
    cost_scale: str = option(
        "dim",
        "divide the squared distance by D ('dim', our deviation), or 'none' (the paper's raw cost)",
        choices=("dim", "none"),
    )
    marginal_penalty: float | None = option(
        None, "rho of soft (KL) marginals; null: hard marginals", low=1e-9, source=NOT_IN_PAPER
    )
    max_iterations: int = option(200, "cap on Sinkhorn iterations", low=1, source=NOT_IN_PAPER)
    tolerance: float = option(1e-4, "stop below this marginal error", low=0, source=NOT_IN_PAPER)
    debias: bool = option(False, "Sinkhorn divergence instead of the plain value")
    diagnose_interval: int = option(
        10, "steps between measurements of matched and mismatched cost; 0: never", low=0
    )
    schedule: ScheduleConfig = section(ScheduleConfig)


@dataclass
class DecodeConfig:
    """Beam search."""

    num_beams: int = option(4, "beam width", low=1, source=SLAM)
    max_new_tokens: int = option(200, "tokens an answer at most", low=1, source=SLAM)
    length_penalty: float = option(1.0, "exponent on the length in beam scores", source=SLAM)
    repetition_penalty: float = option(1.0, "1: none", low=0.01, source=SLAM)
    no_repeat_ngram_size: int = option(0, "forbid repeated n-grams of this size; 0: off", low=0)


@dataclass
class NativeConfig:
    """The embedded host (Hugging Face Trainer); SLAM-LLM never reads these."""

    resume: str = option("auto", "'auto': from the last complete checkpoint; 'never'; or a folder")
    max_steps: int = option(0, "stop after this many optimizer steps; 0: num_epochs decides", low=0)
    save_interval: int = option(
        500, "optimizer steps between resumable checkpoints; 0: at the end only", low=0
    )
    keep_checkpoints: int = option(2, "resumable checkpoints kept", low=1)
    max_grad_norm: float = option(0.0, "gradient clipping; 0: none, as SLAM-LLM", low=0)
    bf16: bool = option(False, "bfloat16 autocast")


@dataclass
class PotsaConfig:
    """The whole configuration."""

    train_config: TrainConfig = section(TrainConfig)
    model_config: ModelConfig = section(ModelConfig)
    dataset_config: DatasetConfig = section(DatasetConfig)
    log_config: LogConfig = section(LogConfig)
    fsdp_config: FsdpConfig = section(FsdpConfig)
    language_bias: LanguageBiasConfig = section(LanguageBiasConfig)
    alignment: AlignmentConfig = section(AlignmentConfig)
    decode: DecodeConfig = section(DecodeConfig)
    native: NativeConfig = section(NativeConfig)
    engine: str = option(
        "auto",
        "which trainer: SLAM-LLM where it is importable and CUDA is there, else the native one",
        choices=("auto", "native", "slam_llm"),
    )
    metric: str = option("acc", "truthy: token accuracy is computed", source=SLAM)
    ckpt_path: str | None = option(None, "model.pt or pytorch_model.bin to start from", source=SLAM)
    peft_ckpt: str | None = option(None, "LoRA adapter folder to start from", source=SLAM)
    deepspeed_config: str | None = option(None, "DeepSpeed JSON, for its launcher", source=SLAM)
    decode_log: str | None = option(None, "prefix of the _pred and _gt files", source=SLAM)
    debug: bool = option(False, "read by SLAM-LLM", source=SLAM)


def defaults(kind: type, given: Any = None) -> Any:
    """An instance of the section `kind` from `given` (None, a mapping or DictConfig).

    SLAM-LLM hands a factory only what the user's configuration holds; what is missing there takes
    its default from this file. Raises InputError on unknown keys.
    """
    return _from_mapping(kind, {} if given is None else _plain(given))


def _plain(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if dataclasses.is_dataclass(given):
        return dataclasses.asdict(given)
    from omegaconf import OmegaConf

    return OmegaConf.to_container(given, resolve=True)


def _from_mapping(kind: type, given: Mapping[str, Any], path: str = "") -> Any:
    known = {spec.name: spec for spec in dataclasses.fields(kind)}
    unknown = [key for key in given if key not in known]
    if unknown:
        raise InputError(
            [f"unknown key {path}{key}: known are {', '.join(sorted(known))}" for key in unknown]
        )
    values = {}
    for key, value in given.items():
        default = known[key].default_factory
        if isinstance(value, Mapping) and isinstance(default, type):
            value = _from_mapping(default, value, f"{path}{key}.")
        values[key] = value
    return kind(**values)
