"""Speech encoder, projector, LLM: `model_config`."""

from __future__ import annotations

from dataclasses import dataclass

from slam_potsa.config.option import COT_ST, SLAM, option


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
