"""Recordings to 16 kHz mono samples, and samples to Whisper's log-mel frames.

Units: a sample is 1/16000 s, a mel frame 10 ms, an encoder frame 20 ms (Whisper's second
convolution has stride 2). Everything here works on one utterance at a time, so that nothing can
depend on what an utterance is batched with.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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

CANCELLED = 0.05  # of a channel's peak: what the channels' mean falls below is lost, not quiet
MIN_SAMPLES = 160  # one mel frame
MAX_CHANNELS, MAX_RATE = 8, 192_000  # what is decoded; samples per second
MAX_REST = 0.5  # seconds that a recording may be longer than its manifest says
MAX_PEAK = 4.0  # times full scale: resampled or lossy speech may exceed 1, 16-bit numbers do by far

_UNKNOWN_WAV_LENGTH = 2_000_000_000  # bytes: what programs that write to a pipe put there, or more
_PROMISED = re.compile(r"(?:data|SSND|Size|size|riff) *: (\d+) \(should be (\d+)\)")
_UNKNOWN_FRAMES, _SLACK = 1 << 40, 8  # samples; bytes that padding may be counted as or not
_KILOBITS = (  # a second, of MPEG-2 and 2.5, of MPEG-1 (ISO/IEC 11172-3, 13818-3)
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_TRUNCATED = "truncated: the header promises {}, found {}; copy it again"
_A_PART = "{:.2f} s long, 'duration' says {:g} s: no part is read; cut it, or mend the duration"
_TOO_LONG = "{:.2f} s long, expected 30 s or less (Whisper's window); split it into sentences"


def load_audio(
    reference: str,
    base: str | Path | None = None,
    *,
    duration: float | None = None,
) -> np.ndarray:
    """Decode `reference` to float32 samples in [-1, 1], 16 kHz, channels averaged: [samples].

    Args:
        reference: a path or `archive.tar:member`; relative ones are relative to `base`.
        duration: the manifest's; what is longer is refused, for the row may mean its beginning.

    Raises:
        InputError: missing, empty, truncated, silent, too long, of channels that cancel each other
            out, beyond full scale, or no audio.
    """
    name, member = split_reference(reference)
    path = Path(base or ".", name)
    with open_audio(path, member) as file:
        samples = _decode(file)
        if len(samples) < MIN_SAMPLES:
            found = f"{len(samples)} samples at 16 kHz, expected {MIN_SAMPLES} or more"
            raise InputError(f"{found}; record it again")
        if duration is not None and (seconds := len(samples) / SAMPLE_RATE) > duration + MAX_REST:
            raise InputError(_A_PART.format(seconds, duration))
        if (peak := float(np.abs(samples).max())) < SILENCE_PEAK:
            raise InputError(
                f"silent: its peak is {peak:.1e} of full scale, expected {SILENCE_PEAK:g} or more; "
                "record it again or leave it out of the manifest"
            )
    return np.ascontiguousarray(samples, dtype=np.float32)


def measure_audio(reference: str, base: str | Path | None = None, **limits: Any) -> float:
    """Seconds of a recording, decoded as for training; raises what `load_audio` would raise."""
    return len(load_audio(reference, base, **limits)) / SAMPLE_RATE


def log_mel(audio: np.ndarray, n_mels: int = 80, window: str = "30s") -> torch.Tensor:
    """Whisper's log-mel spectrogram of one utterance: [samples] -> [frames, n_mels] float32.

    window "30s": 3,000 frames, the audio padded with zeros to 30 s (Whisper's own way).
    window "trimmed": the true length, padded with zeros to an even number of frames, so that the
    encoder's second convolution never reads across the end of an utterance in a padded batch.

    Raises InputError for audio above 30 s, which Whisper cannot place.
    """
    if len(audio) > MAX_SECONDS * SAMPLE_RATE:
        raise InputError(_TOO_LONG.format(len(audio) / SAMPLE_RATE))
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
    try:
        if not path.is_file():
            raise InputError(
                f"{path}: no such file; audio paths are relative to the manifest's folder: check it"
            )
        return _Stream(io.BytesIO(read_member(path, member)) if member else io.FileIO(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}; check its permissions") from None


class _Stream(io.BufferedReader):
    """Sent to before its start by a broken header, it stays where it is, instead of an error inside
    libsndfile's call that would be printed with its traceback."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with suppress(OSError, ValueError):
            return super().seek(offset, whence)
        return self.tell()


def _check_not_cut_off(stream: BinaryIO) -> None:
    """Refuse empty files, and ogg that ends early, which libsndfile takes silently.

    The length that flac promises, or mp3 with a Xing or Info header, is compared when it is there;
    an mp3 without one is decoded to its last frame, which must be whole.
    """
    size = stream.seek(0, os.SEEK_END)
    if not size:
        raise InputError("the file is empty; record or download it again")
    stream.seek(0)
    if stream.read(4) == b"OggS":
        stream.seek(max(0, size - 65_536))  # no page is longer
        tail = stream.read()
        last = tail.rfind(b"OggS")
        if last < 0 or len(tail) < last + 27 or not tail[last + 5] & 4:  # 4: end of stream
            raise InputError(_TRUNCATED.format("an end-of-stream page", "none"))
    stream.seek(0)


@contextmanager
def open_audio(path: Path, member: str | None = None) -> Iterator[Any]:
    """The soundfile.SoundFile; InputErrors inside begin with its name, those of libsndfile too."""
    import soundfile

    with _open(path, member) as stream, placed(f"{path}:{member}" if member else path):
        _check_not_cut_off(stream)
        try:
            with soundfile.SoundFile(stream) as file:
                yield file
        except InputError:
            raise
        except (RuntimeError, ValueError, OSError) as error:  # libsndfile's, soundfile's, FFmpeg's
            # libsndfile's own words, without the stream's address.
            reason = getattr(error, "error_string", "") or str(error)
            reason = reason.partition("\n")[0].rstrip(".")
            raise InputError(
                f"broken, truncated or no audio ({reason}); copy or download it again, or convert "
                "it to wav, flac, ogg or mp3"
            ) from None


def _decode(file: Any) -> np.ndarray:
    """[samples] at 16 kHz, channels averaged."""
    import soxr

    (declared, blocks), rate = decoded(file), file.samplerate
    if declared > MAX_SECONDS * rate:
        raise InputError(_TOO_LONG.format(declared / rate))
    mixed, length = [np.empty(0, np.float32)], 0
    for block in blocks:
        mixed.append(block)
        length += len(block)
        if length > MAX_SECONDS * rate:
            raise InputError(_TOO_LONG.format(length / rate) + " (or more)")
    found = np.concatenate(mixed)
    return soxr.resample(found, rate, SAMPLE_RATE) if rate != SAMPLE_RATE and length else found


def decoded(file: Any) -> tuple[int, Iterator[np.ndarray]]:
    """How many samples there are, 0 where the header does not tell, and all of them: [samples] of
    a second or less at a time, channels averaged. Raises InputError, some at the end, as
    `load_audio` but for the length and silence."""
    _check_as_promised(file)
    declared, rate, stream = file.frames, file.samplerate, file.name
    blocks = _with_libsndfile(file)
    if not 0 < declared < _UNKNOWN_FRAMES or (file.format == "MP3" and not _tells_length(stream)):
        declared, blocks = 0, _with_ffmpeg(stream)
    if file.channels > MAX_CHANNELS or rate > MAX_RATE:
        most = f"{MAX_CHANNELS} channels and {MAX_RATE} Hz at most"
        raise InputError(f"{file.channels} channels at {rate} Hz, expected {most}; convert it")
    return declared, _mixed(blocks, declared)


def _check_as_promised(file: Any) -> None:
    """libsndfile takes what is there, and notes in its log, no more, that the header promises other
    lengths. Programs that write to a pipe promise 0 or far too much: all that is there is taken."""
    for promised, found in _PROMISED.findall(file.extra_info):
        if int(found) + _SLACK < int(promised) < _UNKNOWN_WAV_LENGTH:
            raise InputError(_TRUNCATED.format(f"{promised} bytes", found))
    if file.frames and "Unknown chunk marker" in file.extra_info:
        found = f"the header promises {file.frames} samples, and something else comes after them"
        raise InputError(f"{found}, perhaps more of them; convert it")


def _tells_length(stream: BinaryIO) -> bool:
    """Whether an mp3 has a Xing header, so that its length is no guess from its first frames."""
    place = stream.tell()
    stream.seek(0)
    head = stream.read(10)
    # An ID3v2 tag, whose length is written seven bits a byte, may come before the first frame.
    tag = sum((byte & 127) << 7 * (3 - n) for n, byte in enumerate(head[6:])) + 10
    stream.seek(tag if head[:3] == b"ID3" else 0)
    first = stream.read(200)
    stream.seek(place)
    return b"Xing" in first or b"Info" in first


def _with_libsndfile(file: Any) -> Iterator[np.ndarray]:
    """[samples, channels] of a second at a time, to the end."""
    while len(block := file.read(file.samplerate, dtype="float32", always_2d=True)):
        yield block


def _with_ffmpeg(stream: BinaryIO) -> Iterator[np.ndarray]:
    """[samples, channels] of every frame, each of which must be whole."""
    import av

    stream.seek(0)
    try:
        with av.open(stream) as container:
            for packet in container.demux(audio=0):
                if (length := _mp3_frame_length(bytes(packet)[:4])) > packet.size:
                    raise InputError(
                        _TRUNCATED.format(f"a last frame of {length} bytes", packet.size)
                    )
                for frame in packet.decode():
                    samples = av.AudioResampler("fltp").resample(frame)[0].to_ndarray()
                    yield np.ascontiguousarray(samples.T)
    except av.FFmpegError as error:
        raise ValueError(str(error)) from None


def _mp3_frame_length(frame: bytes) -> int:
    """Bytes of an MPEG audio frame of layer III by its header; 0 for anything else."""
    if len(frame) < 4 or frame[0] != 255 or frame[1] & 0xE6 != 0xE2:
        return 0
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3
    if version == 1 or rate == 3 or frame[2] >> 4 in (0, 15):
        return 0
    kilobits = _KILOBITS[version == 3][(frame[2] >> 4) - 1]
    hertz = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    return (144 if version == 3 else 72) * kilobits * 1000 // hertz + (frame[2] >> 1 & 1)


def _mixed(blocks: Iterable[np.ndarray], declared: int) -> Iterator[np.ndarray]:
    """The mean of the channels [samples], block by block: a small file may hold a lot. Raises
    InputError for what only the channels themselves tell, and for fewer samples than declared."""
    peak, own, length = 0.0, 0.0, 0
    for block in blocks:
        length += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0.0)))  # max() would pass over NaN
        if not np.isfinite(block).all():
            raise InputError("has samples that are not finite; convert or record it again")
        mean = block.mean(axis=1)
        own = max(own, float(np.abs(mean).max(initial=0.0)))
        yield mean
    if peak > MAX_PEAK:
        raise InputError(
            f"its peak is {peak:g} times full scale: floating-point samples are expected in "
            "[-1, 1]; divide them, by 32768 where they are 16-bit numbers"
        )
    if peak >= SILENCE_PEAK and own < CANCELLED * peak:
        levels = f"{peak:.2g} of full scale each, {own:.1e} together"
        raise InputError(f"its channels cancel each other out: {levels}; give one of them")
    if length < declared:
        raise InputError(_TRUNCATED.format(f"{declared} samples", length))
