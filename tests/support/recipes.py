"""SLAM-LLM's own recipes on tiny models: their configuration, their datasets, their encoders."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from slam_potsa.data.languages import language_id
from slam_potsa.data.manifest import read_manifest
from tests.support import slam_llm, tiny

SOURCE = slam_llm.source()
RECIPES = {"asr_librispeech": "speech_dataset", "st_covost2": "st_dataset"}
FROZEN = {"freeze_encoder": True, "freeze_llm": True}


def openai_whisper(path: Path) -> Path:
    whisper = pytest.importorskip("whisper")
    audio = {"n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1}
    text = {"n_text_ctx": 8, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1}
    sizes = whisper.model.ModelDimensions(n_mels=80, n_vocab=51864, **audio, **text)
    torch.manual_seed(0)
    state = whisper.model.Whisper(sizes).state_dict()
    torch.save({"dims": vars(sizes), "model_state_dict": state}, path)
    return path


def whole_whisper(folder: Path) -> Path:
    from transformers import WhisperConfig, WhisperModel

    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 64}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    widths = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 80}
    tokens = {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    WhisperModel(WhisperConfig(**sizes, **heads, **widths, **tokens)).save_pretrained(folder)
    return folder


def model_options(parts) -> dict:
    model = {"llm_name": "tiny", "llm_path": parts.llm, "llm_dim": tiny.WIDTH, "encoder_dim": 16}
    return model | {"encoder_name": "whisper", "encoder_path": parts.whisper}


def recipe(name: str, parts, tmp_path, **train):
    """The recipe's own typed configuration, with what its scripts pass on the command line."""
    from omegaconf import OmegaConf

    config = load(SOURCE.parent / "examples" / name / "asr_config.py")
    train = {"output_dir": str(tmp_path / "run"), **FROZEN, **train}
    data = {"train_data_path": str(their_manifest(name, parts, tmp_path)), "input_type": "mel"}
    data |= {"fix_length_audio": 4} | ({"source": "all"} if name == "st_covost2" else {})
    sections = {
        "model_config": (config.ModelConfig, model_options(parts)),
        "train_config": (config.TrainConfig, train),
        "dataset_config": (config.DataConfig, data),
    }
    merged = {
        section: OmegaConf.merge(OmegaConf.structured(kind), given)
        for section, (kind, given) in sections.items()
    }
    return OmegaConf.create(merged)


def load(path: Path):
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def their_manifest(name: str, parts, tmp_path) -> Path:
    """Our recordings as the recipe's JSON Lines."""
    base, path = Path(parts.manifest).parent, tmp_path / f"{name}.jsonl"
    lines = []
    for utterance in read_manifest(parts.manifest):
        audio, target = str(base / utterance.audio), utterance.target
        line = {"key": utterance.key, "source": audio, "target": target}
        if name == "st_covost2":
            line = {"audio": audio, "prompt": "USER : ", "gt": target, "source": "covost"}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines))
    return path


def their_batch(name: str, config, tokenizer, monkeypatch, function=False) -> dict:
    """A batch of the recipe's own dataset (whose ffmpeg is replaced by soundfile)."""
    import whisper

    read = lambda path: soundfile.read(path, dtype="float32")[0]  # noqa: E731
    monkeypatch.setattr(whisper, "load_audio", read)
    folder = SOURCE.parent / "examples" / name / "dataset"
    folder = folder if folder.is_dir() else SOURCE / "slam_llm" / "datasets"
    get = load(folder / f"{RECIPES[name]}.py").get_speech_dataset
    data = get(config.dataset_config, tokenizer, "train")
    batch = data.collator([data[0], data[1], data[4]])
    batch = {key: value for key, value in batch.items() if value is not None}
    return (batch, get) if function else batch


def languages(*codes: str) -> torch.Tensor:
    return torch.tensor([language_id(code) for code in codes])
