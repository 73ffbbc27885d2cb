import tarfile

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor

from slam_potsa.data.audio import SAMPLE_RATE, encoder_frames, load_audio, log_mel, measure_audio
from tests.support import refused

FORMATS = ["a.wav", "a.flac", "a.ogg", "a.mp3"]
RATES = [("a.wav", rate) for rate in (8_000, 22_050, 44_100, 48_000)]


@pytest.mark.parametrize(("name", "rate"), [(name, 16_000) for name in FORMATS] + RATES)
def test_any_format_and_rate_becomes_16_khz(tmp_path, recording, name, rate):
    audio = load_audio(recording(name, 1.0, rate), tmp_path)
    assert audio.dtype == np.float32 and abs(len(audio) - SAMPLE_RATE) <= 1
    inside = slice(1000, 15_000)
    sine = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.corrcoef(audio[inside], sine[inside])[0, 1] > 0.99
    assert measure_audio(name, tmp_path) == len(audio) / SAMPLE_RATE


def test_relative_and_absolute_paths_and_members_of_archives(tmp_path, recording):
    expected = load_audio(recording("x/a.flac"), tmp_path)
    with tarfile.open(tmp_path / "speech.tar", "w") as tar:
        tar.add(tmp_path / "x/a.flac", "y/a.flac")
    for name in (str(tmp_path / "x/a.flac"), f"{tmp_path}/speech.tar:y/a.flac"):
        np.testing.assert_array_equal(load_audio(name, "/elsewhere"), expected)
    np.testing.assert_array_equal(load_audio("speech.tar:y/a.flac", tmp_path), expected)


@pytest.mark.parametrize("name", [*FORMATS, "a.aiff", "a.au", "a.w64", "a.rf64"])
def test_truncated_recordings_are_refused(tmp_path, recording, name):
    path = tmp_path / recording(name, 2.0)
    load_audio(name, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * 0.6)])
    refused(rf"{name}: .*truncated.*; copy", load_audio, name, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; audio paths are relative to the manifest's folder"),
        (b"", "the file is empty"),
        (b"This is no recording. " * 10, "broken, truncated or no audio"),
        (b"RIFF\x00\x00", "broken, truncated or no"),
        (b"\xff\xfb\x94\xc4" + b"no frame" * 90, "broken, truncated or no"),
        (np.full(8000, 5e-5), "silent: its peak is 5.0e-05"),
        (np.zeros(0), "0 samples at 16 kHz, expected 160 or more"),
        (np.array([0.5, np.nan]), "has samples that are not finite"),
        (np.full(16_000 * 31, 0.1), "31.00 s long, expected 30 s or less"),
        (np.full(9, 0.1), "9 samples at 16 kHz, expected 160 or more"),
        (np.full((900, 9), 0.1), "9 channels at 16000 Hz, expected 8 channels"),
        (np.full(900, 3e3), "its peak is 3000 times full scale: .*divide them, by 32768"),
        (np.full((900, 2), [0.5, -0.5]), "its channels cancel each other out"),
    ],
)
def test_unusable_recordings(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "a.wav").write_bytes(content)
    elif content is not None:
        soundfile.write(tmp_path / "a.wav", content.astype(np.float32), 16_000, "FLOAT")
    refused(f"a.wav: {message}", load_audio, "a.wav", tmp_path)


def test_what_is_unusual_and_taken(tmp_path, recording, tone):
    assert len(load_audio(recording("b.wav", 30.0), tmp_path)) == 30 * 16_000
    soundfile.write(tmp_path / "c.wav", np.full(8000, 0.1), 16_000, "GSM610")
    assert len(load_audio("c.wav", tmp_path)) == 26 * 320  # its blocks
    refused("30 s or less", load_audio, recording("d.flac", 61.0), tmp_path)
    left, right = tone(frequency=300), tone(frequency=500)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, 0 * left], 1), 16_000, "FLOAT")
    np.testing.assert_allclose(load_audio("a.wav", tmp_path), (left + right) / 3, atol=1e-6)


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0xFFFFFFDB, 2_000_000_000, 9_000, 17_000])
def test_the_length_that_a_wav_promises_is_compared_with_what_is_there(tmp_path, recording, length):
    """Programs that write to a pipe put the first four there."""
    path = tmp_path / recording("a.wav")
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = length.to_bytes(4, "little")
    path.write_bytes(content)
    if length not in (9_000, 17_000):
        assert len(load_audio("a.wav", tmp_path)) == 8000
        return
    refused("the header promises (4500 s|17000 b)", load_audio, "a.wav", tmp_path)


@pytest.mark.parametrize("variable", [False, True])
def test_an_mp3_without_a_length_is_decoded_to_its_end(tmp_path, tone, piped_mp3, variable):
    loud = tone(8.0) + np.pad(np.random.default_rng(0).normal(size=16_000), (0, 112_000)) / 9
    content = piped_mp3(loud, variable)
    (tmp_path / "a.mp3").write_bytes(content)
    assert abs(measure_audio("a.mp3", tmp_path) - 8.0) < 0.15  # frames of 36 ms
    (tmp_path / "a.mp3").write_bytes(content[:-100])
    refused("truncated", load_audio, "a.mp3", tmp_path)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_30s_is_whispers(tone, n_mels):
    audio = tone(1.234)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    expected = extractor(audio, sampling_rate=SAMPLE_RATE)["input_features"][0].T
    mel = log_mel(audio, n_mels, "30s")
    assert mel.shape == (3000, n_mels) and mel.dtype == torch.float32
    np.testing.assert_allclose(mel.numpy(), expected, atol=1e-5)


def test_log_mel_trimmed_has_the_true_length_made_even(tone):
    for samples in (1, 159, 320, 321, 16_000, 16_001, 16_161):
        audio, frames = tone(2.0)[:samples], -(-samples // 160)
        mel = log_mel(audio, window="trimmed")
        assert len(mel) == frames + frames % 2 == 2 * encoder_frames(samples)
        assert torch.isfinite(mel).all()
        # Those in between are of the 30 s window: the padding only touches the last ones.
        inside = max(0, samples // 160 - 2)
        torch.testing.assert_close(mel[:inside], log_mel(audio)[:inside], atol=1e-4, rtol=0)
    refused("30.5", log_mel, np.ones(488_000, dtype=np.float32), window="trimmed")
