"""The sections that SLAM-LLM knows, with its key names, and ours for decoding and the native host.

Keys that SLAM-LLM reads and this package does not are no options but `SLAM_ONLY`, which is added
where SLAM-LLM is called.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from slam_potsa.config.alignment import AlignmentConfig, LanguageBiasConfig
from slam_potsa.config.option import AI_STA, COT_ST, OURS, SLAM, option, section

NOT_PART = "ours: PART does not give it"

# Transcribe; translate; transcribe, then translate; without audio: translate, follow instructions.
TASKS = ("asr", "s2tt", "cot", "mt", "instruct")
IN_PROMPTS = ("language", "target_language", "language_name", "target_language_name")
IN_TEXT_PROMPTS = ("transcript", *IN_PROMPTS)
IN_ANSWERS = ("target", *IN_TEXT_PROMPTS)
TEMPLATES = {
    "prompt": IN_PROMPTS,
    "asr_prompt": IN_PROMPTS,
    "cot_prompt": IN_PROMPTS,
    "mt_prompt": IN_TEXT_PROMPTS,
    "instruct_prompt": IN_TEXT_PROMPTS,
    "cot_answer": IN_ANSWERS,
}
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# cot_answer in three: what stands before the transcript, the marker, what follows the target.
COT_ANSWER = re.compile(r"(.*?)\{transcript\}(.+?)\{target\}(.*)", re.DOTALL)

SLAM_SWITCHES = ("freeze_encoder", "freeze_llm", "use_peft")  # by train_config.train_parts
PARTS = ("projector", "encoder", "llm", "llm.lora")
ENCODER_PART = re.compile(r"encoder(?:\.last_([1-9]\d*))?")
# Without these keys SLAM-LLM's loops die of an AttributeError. "custom" is the one strategy that
# uses a dataset's own collator and keeps pairs whole. Its loop for a bare model dies at its first
# step, and its FSDP cannot wrap a Q-Former beside a frozen LLM. The rest is harmless.
SLAM_ONLY = {
    "train_config": {
        "enable_ddp": True,
        "enable_fsdp": False,
        "batching_strategy": "custom",
        "save_model": True,
        "low_cpu_fsdp": False,
        "use_fast_kernels": False,
        "run_test_during_validation": False,
    },
    "metric": "acc",  # else its validation dies
    "fsdp_config": {"pure_bf16": False, "use_fp16": False, "optimizer": "AdamW"},
}


@dataclass
class PeftConfig:
    """LoRA on the LLM (llm.lora in train_config.train_parts), SLAM-LLM's key names."""

    r: int = option(8, "rank of the update", low=1, source=SLAM)
    lora_alpha: int = option(32, "scale is lora_alpha / r", low=1, source=SLAM)
    target_modules: list[str] = option(["q_proj", "v_proj"], "LLM modules adapted", source=SLAM)
    bias: str = option("none", "which biases train", source=SLAM)
    lora_dropout: float = option(0.05, "dropout of the update's input", low=0, high=1, source=SLAM)


@dataclass
class TrainConfig:
    """The trainer's keys. A batch counts dataset items: a parallel pair is one item, two rows."""

    model_name: str = option("potsa", "prefix of checkpoints", affects="nothing", source=SLAM)
    seed: int = option(42, "seed of weights, pairs and the layer schedule", low=0)
    lr: float = option(1e-4, "peak learning rate of AdamW", low=0, source=COT_ST)
    weight_decay: float = option(0.0, "AdamW's decoupled decay", low=0, source=SLAM)
    warmup_steps: int = option(1000, "optimizer steps of linear warm-up", low=0, source=COT_ST)
    total_steps: int = option(
        100000, "optimizer step at which the rate reaches 0 and training stops", low=1
    )
    num_epochs: int = option(10, "passes over the data, at most", affects="outcome", low=1)
    batch_size_training: int = option(4, "items a device a micro-step", low=1)
    val_batch_size: int = option(
        4, "items in validation and decoding", affects="outcome", low=1
    )  # a validation loss is its batches' mean
    gradient_accumulation_steps: int = option(
        1, "micro-steps an optimizer step; DeepSpeed's file says auto and takes this", low=1
    )
    num_workers_dataloader: int = option(2, "processes that read audio", affects="nothing", low=0)
    run_validation: bool = option(
        True, "SLAM-LLM saves only at validations that improve", affects="outcome"
    )
    validation_interval: int = option(1000, "micro-steps between two", affects="outcome", low=1)
    train_parts: list[str] = option(
        ["projector"],
        "what trains: projector, encoder, encoder.last_N (its last N layers and the norm behind "
        "them), llm, llm.lora; the rest stays as it is. SLAM-LLM's freeze_encoder, freeze_llm and "
        "use_peft follow from it",
        source="POTSA 4.1; PART 2.3",
    )
    encoder_lr: float | None = option(
        None, "peak rate of the encoder; null: lr; native host only", low=0, source=NOT_PART
    )
    llm_lr: float | None = option(
        None, "peak rate of the LLM; null: lr; native host only", low=0, source=NOT_PART
    )
    peft_config: PeftConfig = section(PeftConfig)
    quantization: bool = option(
        False,
        "frozen LLM in 8 bits (bitsandbytes' LLM.int8): half the weights' memory, more activations "
        "and a slower step; native host only",
        source=SLAM,
    )
    use_fp16: bool = option(False, "fp16 autocast with loss scaling (CUDA)")
    output_dir: str = option("outputs/potsa", "the run directory", affects="nothing")
    enable_deepspeed: bool = option(
        False, "SLAM-LLM's DeepSpeed loop", affects="nothing", source=SLAM
    )

    # What SLAM-LLM reads in place of train_parts (SLAM_SWITCHES).

    @property
    def freeze_encoder(self) -> bool:
        return self.encoder_layers == 0

    @property
    def freeze_llm(self) -> bool:
        return "llm" not in self.train_parts

    @property
    def use_peft(self) -> bool:
        return "llm.lora" in self.train_parts

    @property
    def encoder_layers(self) -> int | None:
        """How many of the encoder's last layers train; 0: none; None: all of it."""
        found = [match[1] for part in self.train_parts if (match := ENCODER_PART.fullmatch(part))]
        return int(found[0] or 0) or None if found else 0


@dataclass
class ModelConfig:
    """Speech encoder, projector, LLM. Folder or hub names for the two pre-trained parts."""

    file: str = option("", "path.py:function that builds the model; empty: ours", source=SLAM)
    llm_path: str = option("Qwen/Qwen2.5-7B", "transformers folder, hub name, or its NAME@REVISION")
    llm_dtype: str = option(
        "auto",
        "precision of the frozen LLM and encoder; auto: bfloat16 on CUDA, float32 elsewhere",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    encoder_path_hf: str = option(
        "openai/whisper-large-v3", "transformers folder, hub name, or its NAME@REVISION"
    )
    encoder_window: str = option(
        "30s",
        "'30s' pads every utterance as Whisper was trained; 'trimmed' encodes its true length, "
        "at a fraction of the cost",
        choices=("30s", "trimmed"),
    )
    load_encoder: bool = option(
        True, "false: none in memory; every batch brings stored features", affects="nothing"
    )
    encoder_projector: str = option(
        "q-former", "projector's registry name; PART's adapter: transformer-cnn", source=SLAM
    )
    query_len: int = option(80, "speech tokens N, at most", low=1, source="POTSA 4.1")
    frames_per_token: int = option(
        0,
        "encoder frames (20 ms) a token of transformer-cnn, window-q-former; q-former: 0",
        low=0,
        source=NOT_PART,
    )
    qformer_layers: int = option(8, "Transformer blocks L", low=1, source="POTSA 4.1")
    qformer_dim: int = option(768, "width D of the Q-Former", low=1, source=COT_ST)
    qformer_heads: int = option(12, "attention heads, a divisor of qformer_dim", low=1)
    qformer_dropout: float = option(0.1, "dropout in the Q-Former", low=0, high=1, source=COT_ST)


@dataclass
class DatasetConfig:
    """Manifests, prompt, pairing."""

    file: str = option("", "path.py:function that builds the dataset; empty: ours", source=SLAM)
    train_data_path: str = option("", "manifest (JSON Lines) of the training set")
    val_data_path: str = option("", "manifest of the validation set", affects="outcome")
    test_data_path: str = option("", "manifest to decode", affects="nothing")
    mel_size: int = option(128, "mel bands: 128 for Whisper large-v3, 80 before", low=1)
    fix_length_audio: int = option(
        80, "audio slots a row = model_config.query_len", affects="nothing", low=1
    )
    frames_per_token: int = option(0, "= model_config.frames_per_token", affects="nothing", low=0)
    encoder_window: str = option(
        "30s", "= model_config.encoder_window", affects="nothing", choices=("30s", "trimmed")
    )
    attend_padding: bool = option(
        False,
        "let the Q-Former see the padding of the 30 s window, as CoT-ST's checkpoints were trained",
        source=COT_ST,
    )
    prompt: str = option(
        "USER: Translate the speech to {target_language}.\n ASSISTANT: ",
        "text between speech and answer in s2tt; {language}, {target_language} (codes), "
        "{language_name}, {target_language_name} (in English) are filled in",
    )
    tasks: list[str] = option(
        ["s2tt"],
        "asr | s2tt | cot | mt | instruct (the last two without audio): each item draws one, anew "
        "every epoch; listed twice, it weighs double",
        source="asr before s2tt: POTSA 4.1; cot: CoT-ST; asr, s2tt, text-based tasks mixed: PART",
    )
    task_shares: list[float] = option(
        [],
        "of an epoch's items, up to a factor, for each of tasks: rows then serve in turn the tasks "
        "whose fields they have, and may lack audio; []: every row serves every task",
        source=NOT_PART,
    )
    test_task: str = option(
        "",
        "what decoding asks for; empty: s2tt if it is in tasks, else cot, else asr",
        affects="answers",
        choices=("", *TASKS),
    )
    asr_prompt: str = option("<|{language}|>", "prompt of asr, as `prompt`", source=COT_ST)
    cot_prompt: str = option("<|{target_language}|>", "prompt of cot, as `prompt`", source=COT_ST)
    cot_answer: str = option(
        "{transcript}<|{target_language}|>{target}",
        "answer of cot; what stands between {transcript} and {target} is where decoding splits it",
        source=COT_ST,
    )
    mt_prompt: str = option(
        "USER: Translate to {target_language_name}: {transcript}\n ASSISTANT: ",
        "prompt of mt, translation of the transcript without audio, as `prompt`",
        source=NOT_PART,
    )
    instruct_prompt: str = option(
        "USER: {transcript}\n ASSISTANT: ", "of instruct, as mt_prompt", source=NOT_PART
    )
    pairing: str = option(
        "random",
        "'random': two random languages a pair; 'anchor': every pair holds anchor_language; "
        "'partner': each utterance, and one of another language for alignment only, to which "
        "nothing is answered (the LLM reads it where a term compares its layers); "
        "'joining': only what joins is paired; 'none': single utterances",
        choices=("random", "anchor", "partner", "joining", "none"),
        source="POTSA 4.2, Table 1 (c), (d); partner and joining are ours",
        row=True,
    )
    bucket: int = option(
        0,
        "items a batch, = train_config.batch_size_training, that are to be about as long: less "
        "padding, and batches that are less random, since long recordings meet long ones; 0: any. "
        "Not with joining or task_shares, which order items themselves",
        low=0,
        source="ours, not in the papers: docs/performance.md",
    )
    anchor_language: str = option("en", "that of pairing=anchor", source="POTSA Table 1", row=True)
    joining: list[str] = option(
        [],
        "languages that join with speech alone: their rows have no target and take part in "
        "alignment, as the first of a pair with a translated recording of the sentence",
        source=OURS,
        row=True,
    )
    joining_share: float = option(
        0.0,
        "share of the items, of every batch too (rounded down), that are pairs with a joining "
        "language: its recordings take turns as often as that needs; 0: each once an epoch",
        low=0,
        high=0.9,
        source=OURS,
        row=True,
    )
    check_audio: bool = option(
        True,
        "decode every recording before training starts, and list all that cannot be used; false: "
        "nor is it noticed where others lie at the same paths",
        affects="nothing",
    )
    feature_store: str | None = option(None, "folder of stored encoder features, or null")
    inference_mode: bool = option(False, "set by the decoders", affects="nothing", source=SLAM)
    seed: int = option(42, "seed of the pairs = train_config.seed", low=0)


@dataclass
class LogConfig:
    """Logging, SLAM-LLM's key names."""

    log_file: str = option(
        "outputs/potsa/train.log", "must contain a '/'", affects="nothing", source=SLAM
    )
    log_interval: int = option(10, "steps between lines of progress", affects="nothing", low=1)
    use_wandb: bool = option(False, "Weights & Biases; needs wandb", affects="nothing", source=SLAM)
    wandb_dir: str = option("outputs/wandb", "its folder", affects="nothing", source=SLAM)
    wandb_entity_name: str = option("", "its entity", affects="nothing", source=SLAM)
    wandb_project_name: str = option("slam_potsa", "its project", affects="nothing", source=SLAM)
    wandb_exp_name: str = option("potsa", "its run", affects="nothing", source=SLAM)


@dataclass
class DecodeConfig:
    """Beam search."""

    num_beams: int = option(4, "beam width", affects="answers", low=1, source=SLAM)
    max_new_tokens: int = option(200, "tokens an answer", affects="answers", low=1, source=SLAM)
    length_penalty: float = option(
        1.0, "exponent on the length in beam scores", affects="answers", source=SLAM
    )
    repetition_penalty: float = option(1.0, "1: none", affects="answers", low=0.01, source=SLAM)
    no_repeat_ngram_size: int = option(
        0, "forbid repeated n-grams of this size; 0: off", affects="answers", low=0
    )
    cross_entropy: bool = option(
        True,
        "also measure the cross-entropy of each true answer, where there is one: a forward pass of "
        "the LLM",
        affects="answers",
    )
    num_return_sequences: int = option(
        1, "the n best answers, with scores; <= num_beams", affects="answers", low=1
    )


@dataclass
class NativeConfig:
    """The embedded host (Hugging Face Trainer); SLAM-LLM never reads these."""

    resume: str = option(
        "auto",
        "'auto': from the last complete checkpoint; 'never': what is there is replaced",
        affects="nothing",
        choices=("auto", "never"),
    )
    max_steps: int = option(
        0, "stop after this many optimizer steps; 0: num_epochs decides", affects="outcome", low=0
    )
    save_interval: int = option(
        500, "steps between resumable checkpoints; 0: at the end only", affects="nothing", low=0
    )
    keep_checkpoints: int = option(2, "resumable checkpoints kept", affects="nothing", low=1)
    choose_by: str = option(
        "ce",
        "what the best checkpoint is best in: ce, accuracy (of tokens), or, of greedy translations "
        "of a sample of the validation set, bleu, chrf, or what registry.SCORES has",
        affects="outcome",
        source=OURS,
    )
    choose_sample: int = option(200, "recordings of that sample; 0: all", affects="outcome", low=0)
    choose_interval: int = option(1, "every n-th validation chooses", affects="outcome", low=1)
    patience: int = option(0, "stop after so many without a better", affects="outcome", low=0)
    lr_decay: str = option(
        "linear",
        "of the rate from train_config.lr to lr_end at total_steps, after a linear warm-up from "
        "lr_start: 'linear', or 'cosine'",
        choices=("linear", "cosine"),
        source=f"linear, from and to 0: SLAM-LLM; cosine, 1e-6 to 3e-5 to 1e-5: {AI_STA} A.1",
    )
    lr_start: float = option(0.0, "rate of the first step", low=0)
    lr_end: float = option(0.0, "rate of the last", low=0)
    max_grad_norm: float = option(0.0, "gradient clipping; 0: none, as SLAM-LLM", low=0)
    bf16: bool = option(False, "bfloat16 autocast")
    fused: bool = option(False, "AdamW in one kernel: faster, rounds in another order")


@dataclass
class PotsaConfig:
    """The whole configuration."""

    train_config: TrainConfig = section(TrainConfig)
    model_config: ModelConfig = section(ModelConfig)
    dataset_config: DatasetConfig = section(DatasetConfig)
    log_config: LogConfig = section(LogConfig)
    language_bias: LanguageBiasConfig = section(LanguageBiasConfig)
    alignment: AlignmentConfig = section(AlignmentConfig)
    decode: DecodeConfig = section(DecodeConfig)
    native: NativeConfig = section(NativeConfig)
    engine: str = option(
        "auto",
        "which trainer: SLAM-LLM where it is importable and CUDA is there, else the native one",
        affects="nothing",
        choices=("auto", "native", "slam_llm"),
    )
    ckpt_path: str | None = option(None, "model.pt or pytorch_model.bin to start from", source=SLAM)
    deepspeed_config: str | None = option(None, "JSON for SLAM-LLM's DeepSpeed loop", source=SLAM)
    decode_log: str | None = option(
        None, "prefix of the _pred and _gt files", affects="nothing", source=SLAM
    )
