"""Recordings and translations as HTML: players within a budget, and marks on differing words."""

from __future__ import annotations

import base64
import io
import re
from difflib import SequenceMatcher
from pathlib import Path

import soundfile
from markupsafe import Markup, escape

from slam_potsa.data.archives import read_member, split_reference
from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.errors import InputError

AUDIO_BYTES = 3_500_000  # of base64 in one page; with all else it stays below some 6 MB
AS_IT_IS = 120_000  # bytes; a larger file, such as 16 kHz wav above 4 s, is compressed
PLAYED = {".flac": "flac", ".ogg": "ogg", ".opus": "ogg", ".wav": "wav", ".mp3": "mpeg"}
# Kana, Han, Thai and Lao, Burmese, Khmer: compared sign by sign, since words are not written apart.
SIGNS = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
TOKEN = re.compile(rf"[{SIGNS}]|[^\W{SIGNS}]+(?:['’][^\W{SIGNS}]+)*|\s+|.", re.DOTALL)
GAP = "[…]"  # stands where words of the reference are left out


class Players:
    """Players for recordings, as long as the budget lasts; a recording counts once."""

    def __init__(self, budget: int = AUDIO_BYTES):
        self.left = budget
        self._made: set[tuple[str, Path]] = set()

    def player(self, key: str, audio: str, manifest: Path | None) -> Markup:
        """A player, or in words why there is none; `audio` is relative to the manifest's folder."""
        why, encoded = "", ""
        if manifest is None:
            why = "its manifest was not found"
        elif (audio, manifest) in self._made:
            why = "plays above"
        else:
            try:
                media_type, data = _playable(audio, manifest.parent)
                encoded = base64.b64encode(data).decode("ascii")
                why = "" if len(encoded) <= self.left else "left out, the page would be too large"
            except (InputError, OSError):
                why = "not found, or not audio"
        if why:
            return Markup('<span class="small">recording {}: {}</span>').format(key, why)
        self.left -= len(encoded)
        self._made.add((audio, manifest))
        html = '<audio controls preload="metadata" aria-label="recording {}" src="{}"></audio>'
        return Markup(html).format(key, f"data:audio/{media_type};base64,{encoded}")


def _playable(audio: str, base: Path) -> tuple[str, bytes]:
    """(media type, bytes) of what every browser plays: as it is, else MP3 or FLAC."""
    archive, member = split_reference(audio)
    data = read_member(base / archive, member) if member else (base / archive).read_bytes()
    media_type = PLAYED.get(Path(member or archive).suffix.lower())
    if media_type and len(data) <= AS_IT_IS:
        return media_type, data
    kind = "MP3" if "MP3" in soundfile.available_formats() else "FLAC"  # libsndfile 1.1 on
    stream = io.BytesIO()
    soundfile.write(stream, load_audio(audio, base), SAMPLE_RATE, format=kind)
    return ("mpeg" if kind == "MP3" else "flac"), stream.getvalue()


def marked(text: str | None, reference: str | None) -> Markup:
    """`text` with <mark> around what is not in `reference`, and at what is missing of it.

    >>> print(marked("Press the star key.", "Press the pound key."))
    Press the <mark>star</mark> key.
    """
    if text is None or reference is None:
        return escape(text or "")
    tokens = TOKEN.findall(text)
    places = [place for place, token in enumerate(tokens) if _is_word(token)]
    written = [tokens[place].casefold() for place in places]
    expected = [token.casefold() for token in TOKEN.findall(reference) if _is_word(token)]
    html = [escape(token) for token in tokens] + [Markup("")]
    for kind, i, j, k, m in SequenceMatcher(None, expected, written, autojunk=False).get_opcodes():
        if kind in ("replace", "insert"):
            html[places[k]] = Markup("<mark>") + html[places[k]]
            html[places[m - 1]] += Markup("</mark>")
        elif kind == "delete":
            gap = Markup('<mark class="gap" title="left out: {}">{}</mark>')
            gap = gap.format(" ".join(expected[i:j]), GAP)
            place = places[k] if k < len(places) else len(tokens)
            html[place] = gap + " " + html[place] if place < len(tokens) else " " + gap
    return Markup("").join(html)


def _is_word(token: str) -> bool:
    return any(character.isalnum() for character in token)
