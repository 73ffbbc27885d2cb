"""Recordings of any length: cut where nobody speaks, and their texts put together with times.

Silero-vad (its weights are in its wheel) gives the probability of speech of each 32 ms; a piece is
at most 30 s of speech without a pause of half a second. One pass, of which a minute is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from slam_potsa.data.audio import MAX_SECONDS, SAMPLE_RATE, measure_audio, open_audio
from slam_potsa.errors import InputError

BLOCK, WINDOW = 60, 512  # seconds read, samples that Silero-vad judges, at once
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

    with open_audio(Path(recording)) as file:
        if file.frames <= MAX_SECONDS * file.samplerate:
            return [Piece(0.0, measure_audio(str(recording)), str(recording))]
        whole = Path(folder, "whole.w64")
        spans = _speech(file, whole, progress)
    pieces = []
    for number, span in enumerate(spans):
        start, end, path = span["start"], span["end"], str(whole.with_name(f"{number:05d}.wav"))
        sound, _ = soundfile.read(whole, start=start, stop=end, dtype="float32")
        soundfile.write(path, sound, SAMPLE_RATE, subtype="FLOAT")
        pieces.append(Piece(start / SAMPLE_RATE, end / SAMPLE_RATE, path))
    whole.unlink()
    return pieces


def _speech(file: Any, whole: Path, progress: bool) -> list[dict[str, int]]:
    """Where speech starts and ends in `whole`, at 16 kHz, which is written from `file`."""
    import soundfile
    import soxr

    threads, seconds = torch.get_num_threads(), file.frames // file.samplerate
    try:
        import silero_vad
    except ImportError:
        remedy = "pip install slam-potsa[long] (silero-vad), which finds the pauses to cut at"
        raise InputError(f"{seconds} s long, above {MAX_SECONDS:g}: {remedy}") from None
    judge, rest, likely = silero_vad.load_silero_vad(), np.zeros(0, np.float32), []
    torch.set_num_threads(threads)  # its import sets 1, for all
    resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, "float32")
    whole.parent.mkdir(parents=True, exist_ok=True)
    out = soundfile.SoundFile(whole, "w", SAMPLE_RATE, 1, subtype="FLOAT", format="W64")
    with out, torch.inference_mode():
        for _ in tqdm(range(0, seconds + 1, BLOCK), "listening", unit="min", disable=not progress):
            sound = file.read(BLOCK * file.samplerate, dtype="float32", always_2d=True).mean(1)
            sound = resampler.resample_chunk(sound, last=file.tell() == file.frames)
            out.write(sound)
            rest = np.concatenate([rest, sound])
            windows = torch.from_numpy(rest[: len(rest) // WINDOW * WINDOW]).view(-1, WINDOW)
            likely += [judge(window, SAMPLE_RATE).item() for window in windows]
            rest = rest[windows.numel() :]
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
