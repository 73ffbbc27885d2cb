"""Recordings inside the page: as they are where they are small, else as MP3, within a budget."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from slam_potsa.data.archives import read_member, split_reference
from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.errors import InputError

AUDIO_BYTES = 3_500_000  # of base64 in one page; with all else it stays below some 6 MB
AS_IT_IS = 120_000  # bytes; a larger file, such as 16 kHz wav above 4 s, is compressed
MEDIA_TYPES = {
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
}


class Players:
    """Players for recordings, as long as the budget lasts; a recording counts once."""

    def __init__(self, budget: int = AUDIO_BYTES):
        self.left = budget
        self._made: dict[tuple[str, Path], str] = {}

    def player(self, key: str, audio: str, base: Path | None) -> str:
        """HTML: a player, or in words why there is none."""
        if base is None:
            return _instead(key, "its manifest was not found")
        if (audio, base) in self._made:
            return _instead(key, "plays above")
        try:
            media_type, data = _playable(audio, base)
        except (InputError, OSError, KeyError):
            return _instead(key, "not found, or not audio")
        encoded = base64.b64encode(data).decode("ascii")
        if len(encoded) > self.left:
            return _instead(key, "left out, the page would be too large")
        self.left -= len(encoded)
        self._made[audio, base] = key
        name = escape(f"recording {key}", quote=True)
        source = f"data:{media_type};base64,{encoded}"
        return f'<audio controls preload="metadata" aria-label="{name}" src="{source}"></audio>'


def _instead(key: str, why: str) -> str:
    return f'<span class="small">recording {escape(key)}: {escape(why)}</span>'


def _playable(audio: str, base: Path) -> tuple[str, bytes]:
    """(media type, bytes) of what every browser plays."""
    archive, member = split_reference(audio)
    path = base / archive
    data = path.read_bytes() if member is None else read_member(path, member)
    media_type = MEDIA_TYPES.get(Path(member or archive).suffix.lower())
    if media_type and len(data) <= AS_IT_IS:
        return media_type, data
    return _compressed(audio, base)


def _compressed(audio: str, base: Path) -> tuple[str, bytes]:
    """MP3 where libsndfile writes it (from 1.1 on), else FLAC."""
    import soundfile

    kind = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"
    stream = io.BytesIO()
    soundfile.write(stream, load_audio(audio, base), SAMPLE_RATE, format=kind)
    return ("audio/mpeg" if kind == "MP3" else "audio/flac"), stream.getvalue()
