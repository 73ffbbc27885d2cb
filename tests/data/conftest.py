"""Small recordings and a real, tiny tokenizer, made on the spot."""

import io

import av
import pytest
import soundfile

from slam_potsa.data.manifest import Utterance
from tests.support import mini_fleurs


@pytest.fixture
def tone():
    return mini_fleurs.tone


@pytest.fixture
def recording(tmp_path, tone):
    """Write a tone below tmp_path and return its name: `recording("a.wav", seconds=1.0)`."""

    def make(name="a.wav", seconds=0.5, rate=16_000, **options):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, rate=rate, **options), rate)
        return name

    return make


@pytest.fixture
def piped_mp3():
    """An mp3 of samples at 16 kHz as a pipe gets it: libsndfile guesses its length from the first
    frames."""

    def make(sound, variable=True):
        content = io.BytesIO()
        with av.open(content, "w", format="mp3", options={"write_xing": "0"}) as file:
            stream = file.add_stream("libmp3lame", rate=16_000, layout="mono")
            if variable:
                stream.codec_context.flags |= av.codec.context.Flags.qscale
                stream.codec_context.global_quality = 118 * 5
            frame = av.AudioFrame.from_ndarray(sound[None].astype("f4"), "fltp", "mono")
            frame.sample_rate = 16_000
            file.mux([*stream.encode(frame), *stream.encode(None)])
        return content.getvalue()

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
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    texts, ends = ["Translate the speech to English:", "Hello world."], ["<s>", "</s>"]
    bpe.train_from_iterator(texts, 320, special_tokens=ends, show_progress=False)
    ends = {"bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **ends)
