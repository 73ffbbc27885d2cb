import tarfile

import numpy as np
import pytest
import soundfile
import torch

from slam_potsa.data.audio import (
    MAX_FRAMES,
    SAMPLE_RATE,
    encoder_frames,
    load_audio,
    log_mel,
    measure_audio,
)
from slam_potsa.errors import InputError

FORMATS = ["a.wav", "a.flac", "a.ogg", "a.mp3"]


@pytest.mark.parametrize("name", FORMATS)
def test_formats(tmp_path, recording, tone, name):
    audio = load_audio(recording(name, 0.5), tmp_path)
    assert audio.dtype == np.float32 and audio.shape == (8000,)
    assert np.corrcoef(audio, tone(0.5))[0, 1] > 0.99


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_16_khz(tmp_path, recording, tone, rate):
    audio = load_audio(recording("a.wav", 1.0, rate), tmp_path)
    assert abs(len(audio) - SAMPLE_RATE) <= 1
    inside = slice(1000, 15_000)
    sine = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.corrcoef(audio[inside], sine[inside])[0, 1] > 0.99
    assert measure_audio("a.wav", tmp_path) == pytest.approx(1.0)


def test_channels_are_averaged(tmp_path, tone):
    left, right = tone(frequency=300), tone(frequency=500)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right, 0 * left], 1), 16_000, "FLOAT")
    np.testing.assert_allclose(load_audio("a.wav", tmp_path), (left + right) / 3, atol=1e-6)


def test_base_and_absolute_paths(tmp_path, recording):
    name = recording("folder/a.wav")
    from_base = load_audio(name, tmp_path)
    np.testing.assert_array_equal(from_base, load_audio(str(tmp_path / name)))
    np.testing.assert_array_equal(from_base, load_audio(str(tmp_path / name), "/elsewhere"))


def test_members_of_an_archive(tmp_path, recording):
    """What reading archives does beyond this is in test_archives.py."""
    with tarfile.open(tmp_path / "speech.tar", "w") as tar:
        for name in ("x/a.wav", "x/b.flac"):
            tar.add(tmp_path / recording(name, seed=len(name)), name)
    for name in ("x/b.flac", "x/a.wav"):
        expected = load_audio(name, tmp_path)
        np.testing.assert_array_equal(load_audio(f"speech.tar:{name}", tmp_path), expected)
        assert measure_audio(f"speech.tar:{name}", tmp_path) == measure_audio(name, tmp_path)
    with pytest.raises(InputError, match="none.tar: no such file"):
        load_audio("none.tar:c.wav", tmp_path)


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * keep)])


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_recordings_are_refused(tmp_path, recording, name):
    recording(name, 2.0)
    load_audio(name, tmp_path)
    cut(tmp_path / name)
    for read in (load_audio, measure_audio):
        with pytest.raises(InputError, match=rf"{name}: .*truncated.*; copy"):
            read(name, tmp_path)


def test_wav_of_a_pipe_has_no_length_and_is_taken(tmp_path, recording):
    path = tmp_path / recording("a.wav")
    content = bytearray(path.read_bytes())
    position = content.index(b"data") + 4
    content[4:8] = content[position : position + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert len(load_audio("a.wav", tmp_path)) == 8000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; audio paths are relative to the manifest's folder"),
        (b"", "the file is empty"),
        (
            b"This is no recording at all. " * 10,
            "broken, truncated or no audio .* convert it to wav, flac, ogg or mp3",
        ),
        (b"RIFF\x00\x00", "broken, truncated or no"),
        (b"\xff\xfb\x94\xc4" + b"no frame" * 90, "broken, truncated or no"),
    ],
)
def test_unusable_files(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(InputError, match=f"a.wav: {message}"):
        load_audio("a.wav", tmp_path)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(8000), "silent: its peak is 0.0e\\+00"),
        (np.full(8000, 5e-5), "silent"),
        (np.zeros(0), "no samples"),
        (np.array([0.5, np.nan]), "not finite"),
        (np.full(16_000 * 31, 0.1), "31.00 s long, expected 30 s or less"),
    ],
)
def test_unusable_samples(tmp_path, samples, message):
    soundfile.write(tmp_path / "a.wav", samples.astype(np.float32), 16_000, "FLOAT")
    with pytest.raises(InputError, match=message):
        load_audio("a.wav", tmp_path)


def test_the_limit_of_30_s_can_be_lifted(tmp_path, recording):
    assert len(load_audio(recording("a.wav", 31.0), tmp_path, max_seconds=None)) == 31 * 16_000
    assert len(load_audio(recording("b.wav", 30.0), tmp_path)) == 30 * 16_000


@pytest.mark.parametrize("n_mels", [80, 128])
def test_log_mel_30s_is_whispers(tone, n_mels):
    from transformers import WhisperFeatureExtractor

    audio = tone(1.234)
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    expected = extractor(audio, sampling_rate=SAMPLE_RATE)["input_features"][0].T
    mel = log_mel(audio, n_mels, "30s")
    assert mel.shape == (MAX_FRAMES, n_mels) and mel.dtype == torch.float32
    np.testing.assert_allclose(mel.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 159, 320, 321, 16_000, 16_001, 16_161])
def test_log_mel_trimmed_has_the_true_length_made_even(tone, samples):
    audio = tone(2.0)[:samples]
    mel = log_mel(audio, window="trimmed")
    frames = -(-samples // 160)
    assert len(mel) == frames + frames % 2 == 2 * encoder_frames(samples)
    assert torch.isfinite(mel).all()
    # The frames in between are those of the 30 s window: the padding only touches the last ones.
    inside = max(0, samples // 160 - 2)
    torch.testing.assert_close(mel[:inside], log_mel(audio)[:inside], atol=1e-4, rtol=0)


def test_log_mel_refuses(tone):
    with pytest.raises(InputError, match="30.5"):
        log_mel(np.ones(488_000, dtype=np.float32), window="trimmed")
    with pytest.raises(InputError, match=r"shape \[samples\], got \[0\]"):
        log_mel(np.zeros(0))
    with pytest.raises(InputError, match=r"got \[2, 8000\]"):
        log_mel(np.zeros((2, 8000)))
    with pytest.raises(InputError, match="window '10s': expected one of 30s, trimmed"):
        log_mel(tone(), window="10s")


def test_encoder_frames():
    assert [encoder_frames(n) for n in (1, 320, 321, 480_000)] == [1, 1, 2, 1500]
