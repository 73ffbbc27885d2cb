"""Small recordings and a real, tiny tokenizer, made on the spot."""

import numpy as np
import pytest
import soundfile

from slam_potsa.data.manifest import Utterance


@pytest.fixture
def tone():
    """A sine with a little noise: `tone(seconds, rate)` -> float32 [samples]."""

    def make(seconds=0.5, rate=16_000, seed=0, frequency=440.0):
        time = np.arange(round(seconds * rate)) / rate
        noise = np.random.default_rng(seed).normal(size=len(time))
        return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * noise).astype(np.float32)

    return make


@pytest.fixture
def recording(tmp_path, tone):
    """Write a tone below tmp_path and return its name: `recording("a.wav", seconds=1.0)`."""

    def make(name="a.wav", seconds=0.5, rate=16_000, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, rate, **options), rate)
        return name

    return make


@pytest.fixture
def utterance():
    """`utterance("en", "s1")`: an Utterance with every field derived from these two."""

    def make(language, sentence, take=0, **fields):
        key = f"{language}-{sentence}-{take}"
        defaults = {"audio": f"{key}.wav", "target": f"text of {sentence}"}
        return Utterance(key, language=language, sentence_id=sentence, **{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE of a few sentences, with an eos and no pad token, as Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["Translate the speech to English:", "Hello world."], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")
