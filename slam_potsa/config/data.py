"""Manifests, prompts, pairing: `dataset_config`."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import COT_ST, SLAM, option
from slam_potsa.config.templates import TASKS


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
        "text between speech and answer in s2tt; {language}, {target_language} (codes), "
        "{language_name}, {target_language_name} (in English) are filled in",
    )
    tasks: list[str] = option(
        ["s2tt"],
        "asr | s2tt | cot: each item draws one, anew every epoch; listed twice, it weighs double",
        source="asr before s2tt: POTSA 4.1; cot: CoT-ST; asr and s2tt mixed: PART, stage 3",
    )
    test_task: str = option(
        "",
        "what decoding asks for; empty: s2tt if it is in tasks, else cot, else asr",
        choices=("", *TASKS),
    )
    asr_prompt: str = option("<|{language}|>", "prompt of asr, as `prompt`", source=COT_ST)
    cot_prompt: str = option("<|{target_language}|>", "prompt of cot, as `prompt`", source=COT_ST)
    cot_answer: str = option(
        "{transcript}<|{target_language}|>{target}",
        "answer of cot; what stands between {transcript} and {target} is where decoding splits it",
        source=COT_ST,
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
