"""The report's table of samples: recordings that play, and what each system made of them."""

from __future__ import annotations

import base64
import tarfile
from collections.abc import Sequence
from html import escape
from pathlib import Path

from slam_potsa.evaluation.summary import Sample

AUDIO_BYTES = 3_500_000  # of base64 in one page; keeps it below 5 MB with all else
MEDIA_TYPES = {
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
}


def samples_section(samples: Sequence[Sample], names: Sequence[str]) -> str:
    if not samples:
        return ""
    heads = ("language", "recording", "transcript", "reference", *names)
    head = "".join(
        f"<th>{escape(name)}</th>"
        if name == "recording"
        else f'<th><button type="button">{escape(name)}</button></th>'
        for name in heads
    )
    left, body = AUDIO_BYTES, []
    for sample in samples:
        player, size = _player(sample, left)
        left -= size
        texts = [sample.transcript, sample.reference]
        texts += [sample.predictions.get(name) for name in names]
        shown = [escape(sample.language), player, *[escape(text or "–") for text in texts]]
        cells = "".join(
            f'<td data-label="{escape(label, quote=True)}"><div>{cell}</div></td>'
            for label, cell in zip(heads, shown, strict=True)
        )
        body.append(f"<tr>{cells}</tr>")
    return (
        "<section><h2>Samples</h2><p>Select a column’s name to sort by it.</p>"
        f'<div class="wide"><table class="sortable samples"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div></section>"
    )


def _player(sample: Sample, budget: int) -> tuple[str, int]:
    """(HTML, base64 characters used): a player, or in words why there is none."""
    name = escape(f"recording {sample.key}", quote=True)
    media_type = MEDIA_TYPES.get(Path(str(sample.audio)).suffix.lower())
    if media_type is None:
        return f'<span class="small">{name}: not a format that browsers play</span>', 0
    try:
        data = _audio_bytes(str(sample.audio))
    except (OSError, KeyError, tarfile.TarError):
        return f'<span class="small">{name}: not found</span>', 0
    encoded = base64.b64encode(data).decode("ascii")
    if len(encoded) > budget:
        return f'<span class="small">{name}: left out, the page would be too large</span>', 0
    source = f"data:{media_type};base64,{encoded}"
    player = f'<audio controls preload="metadata" aria-label="{name}" src="{source}"></audio>'
    return player, len(encoded)


def _audio_bytes(reference: str) -> bytes:
    archive, separator, member = reference.rpartition(".tar:")
    if not separator:
        return Path(reference).read_bytes()
    with tarfile.open(f"{archive}.tar") as opened:
        stream = opened.extractfile(member)
        if stream is None:
            raise KeyError(member)
        return stream.read()
