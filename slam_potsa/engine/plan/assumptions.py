"""What a plan takes for granted: options of the command, and the GPUs that it knows."""

from __future__ import annotations

from typing import NamedTuple

GIB = 2**30
OURS = "our estimate, not measured"


class Assumption(NamedTuple):
    """One number, as it is unless the command is told otherwise. None was measured by us."""

    default: float
    low: float
    high: float
    meaning: str
    source: str = OURS


MOST = float("inf")
# Hours and recordings of CoVoST2 are of one set: train with train_covost, which `slam-potsa prepare
# covost2` makes by default. The paper's 364 h is train alone, by a table that says "En 364 (430)".
ASSUMPTIONS = {
    "utilisation": Assumption(0.35, 0.01, 1, "share of the peak FLOP/s that a step reaches"),
    "context_gib": Assumption(0.8, 0, MOST, "GiB that CUDA's context and libraries take"),
    "reserve": Assumption(
        0.1, 0, MOST, "what the allocator loses, as a share of all that comes and goes"
    ),
    "fleurs_languages": Assumption(5, 1, MOST, "languages of a FLEURS manifest", "POTSA 4.1"),
    "fleurs_hours": Assumption(10.0, 0.01, MOST, "hours of speech a language", "POTSA 4.1"),
    "fleurs_recordings": Assumption(
        2500, 1, MOST, "recordings a language, 2,000 to 2,800", "FLEURS"
    ),
    "fleurs_target_tokens": Assumption(32, 1, MOST, "LLM tokens a translation"),
    "fleurs_transcript_tokens": Assumption(40, 1, MOST, "LLM tokens a transcript"),
    "covost2_hours": Assumption(
        430.0, 0.01, MOST, "hours of English speech", "CoVoST 2's table, not verified"
    ),
    "covost2_recordings": Assumption(
        289_430, 1, MOST, "recordings", "CoVoST2's card on the Hugging Face hub, en_zh-CN"
    ),
    "covost2_target_tokens": Assumption(12, 1, MOST, "LLM tokens a translation"),
    "covost2_transcript_tokens": Assumption(13, 1, MOST, "LLM tokens a transcript"),
    "longest_seconds": Assumption(
        30.0, 0.1, 30, "the longest recording: Whisper's window", "Whisper"
    ),
    "longest_answer": Assumption(4.0, 1, MOST, "the longest answer, in mean answers"),
    "batch_spread": Assumption(1.4, 1, MOST, "the longest row of a batch, in mean rows"),
    "tokens_per_letter": Assumption(
        0.27, 0.01, MOST, "LLM tokens a character, where no tokenizer is here"
    ),
    "tokens_per_ideograph": Assumption(0.7, 0.01, MOST, "the same of Chinese, Japanese and Korean"),
}


class Gpu(NamedTuple):
    """One card; None where a speed is not known."""

    label: str
    memory: int  # bytes, as CUDA reports it: a little less than the name says
    half: float | None = None  # FLOP/s of bf16 and fp16 products, dense
    single: float | None = None  # FLOP/s of float32 products; torch leaves TF32 off
    bandwidth: float | None = None  # bytes/s


# The maker's peak figures: Ada whitepaper (bf16 with float32 accumulation), GA102 whitepaper (142
# TFLOP/s would be with float16 accumulation), SXM datasheets.
GPUS = {
    "rtx4090": Gpu("RTX 4090", int(23.6 * GIB), 165.2e12, 82.6e12, 1008e9),
    "rtx3090": Gpu("RTX 3090", int(23.6 * GIB), 71e12, 35.6e12, 936e9),
    "a100": Gpu("A100 80GB", int(79.1 * GIB), 312e12, 19.5e12, 2039e9),
    "h200": Gpu("H200", int(139.8 * GIB), 989.4e12, 66.9e12, 4800e9),
}
