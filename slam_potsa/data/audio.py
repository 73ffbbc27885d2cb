"""Recordings to 16 kHz mono samples, and samples to Whisper's log-mel frames.

Units: a sample is 1/16000 s, a mel frame 10 ms, an encoder frame 20 ms (Whisper's second
convolution has stride 2). Everything here works on one utterance at a time, so that nothing can
depend on what an utterance is batched with.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from slam_potsa.data.archives import read_member, split_reference
from slam_potsa.errors import InputError, placed

SAMPLE_RATE = 16_000  # samples per second
HOP_LENGTH = 160  # samples per mel frame, so 100 frames per second
ENCODER_STRIDE = 2  # mel frames per encoder frame, so 50 encoder frames per second
MAX_SECONDS = 30.0  # what Whisper's position embeddings cover
MAX_FRAMES = 3_000  # mel frames in that
SILENCE_PEAK = 1e-4  # of full scale, -80 dB: below it a recording is taken to be silent

_UNKNOWN_WAV_LENGTHS = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # what programs writing to a pipe put there
_TRUNCATED = "truncated: the header promises {}, found {}; copy it again"
_TOO_LONG = "{:.2f} s long, expected {:g} s or less (Whisper's window); split it into sentences"


def load_audio(
    reference: str, base: str | Path | None = None, *, max_seconds: float | None = MAX_SECONDS
) -> np.ndarray:
    """Decode `reference` to float32 samples in [-1, 1], 16 kHz, channels averaged: [samples].

    Args:
        reference: a path or `archive.tar:member`; relative ones are relative to `base`.
        max_seconds: longer recordings are refused; None: no limit.

    Raises:
        InputError: missing, empty, truncated, silent, too long, or no audio.
    """
    name, member = split_reference(reference)
    path = Path(base or ".", name)
    with open_audio(path, member) as file:
        samples = _decode(file, max_seconds)
        _check_samples(samples)
    return np.ascontiguousarray(samples, dtype=np.float32)


def measure_audio(
    reference: str, base: str | Path | None = None, *, max_seconds: float | None = MAX_SECONDS
) -> float:
    """Seconds of a recording, decoded as for training; raises what `load_audio` would raise."""
    return len(load_audio(reference, base, max_seconds=max_seconds)) / SAMPLE_RATE


def log_mel(audio: np.ndarray, n_mels: int = 80, window: str = "30s") -> torch.Tensor:
    """Whisper's log-mel spectrogram of one utterance: [samples] -> [frames, n_mels] float32.

    window "30s": 3,000 frames, the audio padded with zeros to 30 s (Whisper's own way).
    window "trimmed": the true length, padded with zeros to an even number of frames, so that the
    encoder's second convolution never reads across the end of an utterance in a padded batch.

    Raises InputError for audio above 30 s, which Whisper cannot place.
    """
    if len(audio) > MAX_SECONDS * SAMPLE_RATE:
        raise InputError(_TOO_LONG.format(len(audio) / SAMPLE_RATE, MAX_SECONDS))
    frames = MAX_FRAMES if window == "30s" else ENCODER_STRIDE * encoder_frames(len(audio))
    padded = np.zeros(frames * HOP_LENGTH, dtype=np.float32)
    padded[: len(audio)] = audio
    features = _feature_extractor(n_mels)(
        padded, sampling_rate=SAMPLE_RATE, padding="do_not_pad", truncation=False
    )
    return torch.from_numpy(np.ascontiguousarray(np.asarray(features["input_features"][0]).T))


def encoder_frames(samples: int) -> int:
    """How many of the encoder's output frames hold speech: ceil(ceil(samples / 160) / 2).

    The same number for both windows: "trimmed" has no others, "30s" fills up to 1,500 with frames
    of padding, which are not valid.
    """
    return -(-samples // (HOP_LENGTH * ENCODER_STRIDE))


@lru_cache(maxsize=4)
def _feature_extractor(n_mels: int):
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=n_mels)


def _open(path: Path, member: str | None) -> BinaryIO:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; audio paths are relative to the manifest's folder: check it"
        )
    try:
        return io.BytesIO(read_member(path, member)) if member else open(path, "rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}; check its permissions") from None


def _check_not_cut_off(stream: BinaryIO) -> None:
    """Refuse empty files, and wav and ogg that end early: libsndfile takes what is left silently.

    It compares flac, and mp3 that begins with a Xing or Info header, with the length promised
    there; an mp3 without one promises nothing, and its end cannot be known.
    """
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise InputError("the file is empty; record or download it again")
    stream.seek(0)
    head = stream.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        end = _declared_wav_end(stream)
        if end is not None and end > size:
            raise InputError(_TRUNCATED.format(f"{end} bytes", size))
    elif head[:4] == b"OggS":
        stream.seek(max(0, size - 65_536))  # no page is longer
        tail = stream.read()
        last = tail.rfind(b"OggS")
        if last < 0 or len(tail) < last + 27 or not tail[last + 5] & 4:  # 4: end of stream
            raise InputError(_TRUNCATED.format("an end-of-stream page", "none"))
    stream.seek(0)


def _declared_wav_end(stream: BinaryIO) -> int | None:
    """The byte at which the data chunk should end; None where the header does not know."""
    while len(header := stream.read(8)) == 8:
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return None if length in _UNKNOWN_WAV_LENGTHS else stream.tell() + length
        stream.seek(length + length % 2, os.SEEK_CUR)
    return None


@contextmanager
def open_audio(path: Path, member: str | None = None) -> Iterator[Any]:
    """The soundfile.SoundFile; InputErrors inside begin with its name, those of libsndfile too."""
    import soundfile

    with _open(path, member) as stream, placed(f"{path}:{member}" if member else path):
        _check_not_cut_off(stream)
        try:
            with soundfile.SoundFile(stream) as file:
                yield file
        except soundfile.LibsndfileError as error:
            # libsndfile's own words, without the stream's address.
            reason = getattr(error, "error_string", str(error)).rstrip(".")
            raise InputError(
                f"broken, truncated or no audio ({reason}); copy or download it again, or convert "
                "it to wav, flac, ogg or mp3"
            ) from None


def _decode(file: Any, max_seconds: float | None) -> np.ndarray:
    """[samples] at 16 kHz, channels averaged."""
    import soxr

    declared, rate = file.frames, file.samplerate
    if max_seconds is not None and declared / rate > max_seconds:  # not decoded first
        raise InputError(_TOO_LONG.format(declared / rate, max_seconds))
    samples = file.read(dtype="float32", always_2d=True)
    if len(samples) < declared:
        raise InputError(_TRUNCATED.format(f"{declared} samples", len(samples)))
    mono = samples.mean(axis=1)
    return soxr.resample(mono, rate, SAMPLE_RATE) if rate != SAMPLE_RATE and len(mono) else mono


def _check_samples(samples: np.ndarray) -> None:
    peak = float(np.abs(samples).max(initial=0.0))
    if not len(samples):
        raise InputError("the header is there but no samples; record it again")
    if not np.isfinite(peak):
        raise InputError("has samples that are not finite; convert or record it again")
    if peak < SILENCE_PEAK:
        raise InputError(
            f"silent: its peak is {peak:.1e} of full scale, expected {SILENCE_PEAK:g} or more; "
            f"record it again or leave it out of the manifest"
        )
