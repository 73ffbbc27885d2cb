"""Tiny real models and recordings: a whole world that trains in seconds on one core."""

import random
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from slam_potsa.config import PotsaConfig, flat
from slam_potsa.data.manifest import Utterance, write_manifest
from slam_potsa.engine.recipe import literal

WORDS = ["one", "two", "three", "four", "five", "six", "please", "call", "the", "next"]
QUERIES, LAYERS, WIDTH = 4, 4, 32


def tokenizer(folder: Path) -> Path:
    """A word-level tokenizer with <eos>."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {w: i for i, w in enumerate(["<unk>", "<eos>", *WORDS, "USER", "ASSISTANT", ":"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return folder


def llm(folder: Path, seed: int = 0) -> Path:
    """A two-layer Llama of width 32 with the tokenizer above."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {"vocab_size": 24, "hidden_size": WIDTH, "intermediate_size": 64}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    # Larger weights than usual: a frozen random LLM that still reacts.
    config = LlamaConfig(**sizes, **ids, tie_word_embeddings=False, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return tokenizer(folder)


def whisper(folder: Path, seed: int = 0, layers: int = 1) -> Path:
    """A Whisper encoder of width 16 over 80 mel bands."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(seed)
    sizes = {"d_model": 16, "encoder_layers": layers, "encoder_ffn_dim": 32, "num_mel_bins": 80}
    config = WhisperConfig(**sizes, encoder_attention_heads=2, architectures=["WhisperEncoder"])
    WhisperEncoder(config).save_pretrained(folder)
    return folder


def recordings(
    folder: Path, sentences=6, languages=("en", "es", "ru"), seed=0, words: int | None = None
) -> Path:
    """A manifest of noise-like recordings, one of each sentence in each language.

    `words`: how many every sentence has; None: two to four.
    """
    rng, chosen, rows = np.random.default_rng(seed), random.Random(seed), []
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for sentence in range(sentences):
        target = " ".join(chosen.sample(WORDS, words or 2 + sentence % 3))
        for number, language in enumerate(languages):
            key, seconds = f"{language}-{sentence}", 0.3 + 0.1 * sentence + 0.05 * number
            audio, name = f"audio/{key}.wav", f"s{sentence}"
            tone = np.sin(np.arange(int(16000 * seconds)) * (0.01 + 0.004 * sentence))
            sound = 0.1 * tone + (0.02 + 0.03 * number) * rng.standard_normal(tone.shape)
            soundfile.write(folder / audio, sound.astype(np.float32), 16000)
            rows.append(Utterance(key, audio, language, name, target, target, "en", seconds))
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


def world(folder: Path, **recording_options) -> PotsaConfig:
    """Models, recordings and a configuration that trains on them."""
    config = PotsaConfig()
    model, data, train = config.model_config, config.dataset_config, config.train_config
    model.llm_path = str(llm(folder / "llm"))
    model.encoder_path_hf = str(whisper(folder / "whisper"))
    model.encoder_window = data.encoder_window = "trimmed"
    model.query_len = data.fix_length_audio = QUERIES
    model.qformer_layers, model.qformer_dim, model.qformer_heads = LAYERS, 16, 2
    model.qformer_dropout = 0.0
    data.mel_size, data.prompt = 80, "USER : "
    data.train_data_path = str(recordings(folder / "data", **recording_options))
    data.val_data_path = data.train_data_path
    train.output_dir = str(folder / "run")
    config.log_config.log_file = str(folder / "run" / "train.log")
    train.batch_size_training, train.val_batch_size, train.num_epochs = 2, 4, 2
    train.num_workers_dataloader, train.validation_interval = 0, 4
    train.warmup_steps, train.total_steps, train.lr = 2, 100, 1e-3
    config.alignment.terms["ot"].weight, config.alignment.diagnose_interval = 1.0, 2
    config.decode.num_beams, config.decode.max_new_tokens = 2, 6
    return config


def changed(config: PotsaConfig, **given) -> PotsaConfig:
    """A copy with other values: `changed(config, ckpt_path="a.pt", train_config={"lr": 0.1})`."""
    parts = {n: replace(getattr(config, n), **v) for n, v in given.items() if isinstance(v, dict)}
    return replace(deepcopy(config), **given | deepcopy(parts))


FILES = {"ctc": "ai_sta_ctc", "cl": "ai_sta_cl", "kl": "join_kl"}  # of terms named otherwise


def overrides(config: PotsaConfig) -> list[str]:
    """The command line that gives `config`, its terms by files of conf/alignment/."""
    terms = ",".join(FILES.get(name, name) for name in config.alignment.terms) or "none"
    return [f"alignment=[{terms}]", *(f"{k}={literal(v)}" for k, v in flat(config).items())]
