"""Recordings of any length: cut where nobody speaks, and their texts put together with times.

Silero-vad (its weights are in its wheel) gives the probability of speech of each 32 ms; a piece is
at most 30 s of speech without a pause of half a second. One pass, of which 30 s are in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from slam_potsa.data.audio import MAX_SECONDS, SAMPLE_RATE, decoded, measure_audio, open_audio
from slam_potsa.errors import InputError

WINDOW = 512  # samples that Silero-vad judges at once
# Ours: Silero's own pause of 0.1 s parts sentences; its padding keeps soft beginnings.
PAUSES = {"min_silence_duration_ms": 500, "speech_pad_ms": 150, "max_speech_duration_s": 29}


@dataclass(frozen=True)
class Piece:
    """Of a recording, in seconds."""

    start: float
    end: float
    audio: str  # the file that holds it alone
    text: str = ""


def cut(recording: str | Path, folder: str | Path, progress: bool = False) -> list[Piece]:
    """The recording itself where 30 s hold it, else its speech as files in `folder`, in order."""
    import soundfile

    pieces, whole, first = [], Path(folder, "whole.w64"), []
    with open_audio(Path(recording)) as file:
        (declared, blocks), rest = decoded(file), MAX_SECONDS * file.samplerate
        while rest >= 0 and (block := next(blocks, None)) is not None:  # no header is believed
            first.append(block)
            rest -= len(block)
        if rest < 0:
            spans = _speech(chain(first, blocks), file.samplerate, declared, whole, progress)
    if rest >= 0:
        return [Piece(0.0, measure_audio(str(recording)), str(recording))]
    for number, span in enumerate(spans):
        start, end, path = span["start"], span["end"], str(whole.with_name(f"{number:05d}.wav"))
        sound, _ = soundfile.read(whole, start=start, stop=end, dtype="float32")
        soundfile.write(path, sound, SAMPLE_RATE, subtype="FLOAT")
        pieces.append(Piece(start / SAMPLE_RATE, end / SAMPLE_RATE, path))
    whole.unlink()
    return pieces


def _speech(
    blocks: Iterable[np.ndarray], rate: int, declared: int, whole: Path, progress: bool
) -> list[dict[str, int]]:
    """Where speech starts and ends in `whole`, at 16 kHz, which is written from `blocks`."""
    import soundfile
    import soxr

    threads = torch.get_num_threads()
    try:
        import silero_vad
    except ImportError:
        remedy = "pip install slam-potsa[long] (silero-vad), which finds the pauses to cut at"
        raise InputError(f"longer than {MAX_SECONDS:g} s: {remedy}") from None
    judge, rest, likely = silero_vad.load_silero_vad(), np.zeros(0, np.float32), []
    torch.set_num_threads(threads)  # its import sets 1, for all
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, "float32")
    whole.parent.mkdir(parents=True, exist_ok=True)
    out = soundfile.SoundFile(whole, "w", SAMPLE_RATE, 1, subtype="FLOAT", format="W64")
    total = declared // rate or None
    bar = tqdm(desc="listening", total=total, unit="s", unit_scale=True, disable=not progress)
    with out, bar, torch.inference_mode():
        for block in chain(filter(len, blocks), [np.zeros(0, np.float32)]):
            sound = resampler.resample_chunk(block, last=not len(block))  # the empty one
            out.write(sound)
            bar.update(len(block) / rate)
            rest = np.concatenate([rest, sound])
            windows = torch.from_numpy(rest[: len(rest) // WINDOW * WINDOW]).view(-1, WINDOW)
            likely += [judge(window, SAMPLE_RATE).item() for window in windows]
            rest = rest[windows.numel() :]
        seconds = out.frames // SAMPLE_RATE
    if not (found := silero_vad.get_speech_timestamps_from_probs(likely, **PAUSES)):
        raise InputError(f"{seconds} s long, and nobody speaks in it")
    return found


def translated(
    spoken: Sequence[Sequence[Piece]], translate: Callable[[list[str]], Sequence[str]]
) -> list[list[Piece]]:
    """Recordings in pieces, with the texts that `translate` finds for all their files at once."""
    texts = iter(translate([piece.audio for pieces in spoken for piece in pieces]))
    return [[replace(piece, text=next(texts)) for piece in pieces] for pieces in spoken]


def written(pieces: Sequence[Piece], form: str) -> str:
    """The texts of a recording, in order, as text, json, srt or vtt."""
    if form == "text":
        return " ".join(piece.text for piece in pieces)
    if form == "json":
        rows = [{"start": p.start, "end": p.end, "text": p.text} for p in pieces]
        return json.dumps(rows, ensure_ascii=False, indent=1)
    mark, cues = {"srt": ",", "vtt": "."}[form], ["WEBVTT"] if form == "vtt" else []
    for number, piece in enumerate(pieces, start=1):
        times = f"{_clock(piece.start, mark)} --> {_clock(piece.end, mark)}"
        cues.append(f"{number}\n{times}\n{piece.text}")
    return "\n\n".join(cues)


def _clock(seconds: float, mark: str) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{mark}{thousandths:03d}"
