"""Recordings and translations as HTML: players within a budget, and marks on differing words."""

from __future__ import annotations

import base64
import io
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import soundfile
from markupsafe import Markup, escape

from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.errors import InputError

AUDIO_BYTES = 3_500_000  # of base64 in one page; with all else it stays below some 6 MB
# Kana, Han, Thai and Lao, Burmese, Khmer: compared sign by sign, since words are not written apart.
SIGNS = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
TOKEN = re.compile(rf"[{SIGNS}]|[^\W{SIGNS}]+(?:['’][^\W{SIGNS}]+)*|\s+|.", re.DOTALL)


class Players:
    """Players for recordings, as long as the budget lasts; a recording counts once."""

    def __init__(self, budget: int = AUDIO_BYTES):
        self.left = budget
        self._made: set[tuple[str, Path]] = set()

    def player(self, key: str, audio: str, manifest: Path | None) -> Markup:
        """A player, or in words why there is none; `audio` is relative to the manifest's folder."""
        why = Markup('<span class="small">recording {}: {}</span>').format
        if manifest is None:
            return why(key, "its manifest was not found")
        if (audio, manifest) in self._made:
            return why(key, "plays above")
        try:
            encoded = base64.b64encode(_mp3(load_audio(audio, manifest.parent))).decode("ascii")
        except (InputError, OSError):
            return why(key, "not found, or not audio")
        if len(encoded) > self.left:
            return why(key, "left out, the page would be too large")
        self.left -= len(encoded)
        self._made.add((audio, manifest))
        html = '<audio controls preload="metadata" aria-label="recording {}" src="{}"></audio>'
        return Markup(html).format(key, f"data:audio/mpeg;base64,{encoded}")


def _mp3(samples: Any) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="MP3")
    return stream.getvalue()


def marked(text: str | None, reference: str | None) -> Markup:
    """`text` with <mark> around each word that is not in its place in `reference`.

    >>> print(marked("Press the star key.", "Press the pound key."))
    Press the <mark>star</mark> key.
    """
    if text is None or reference is None:
        return escape(text or "")
    tokens = TOKEN.findall(text)
    places = [place for place, token in enumerate(tokens) if _is_word(token)]
    written = [tokens[place].casefold() for place in places]
    expected = [token.casefold() for token in TOKEN.findall(reference) if _is_word(token)]
    found = SequenceMatcher(None, written, expected, autojunk=False).get_matching_blocks()
    right = {place for k, _, size in found for place in places[k : k + size]}
    mark = Markup("<mark>{}</mark>").format
    wrong = {*places} - right
    return Markup("").join((mark if n in wrong else escape)(t) for n, t in enumerate(tokens))


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token)
