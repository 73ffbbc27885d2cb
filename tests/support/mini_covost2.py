"""A miniature CoVoST2 in the exact raw layout: Common Voice 4's folder and CoVoST2's TSV.

en/clips/common_voice_en_<n>.mp3    real mp3, some of them broken
en/validated.tsv                    Common Voice 4's columns
covost_v2.en_zh-CN.tsv              path, translation, split
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.data.manifest import read_manifest

COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
CYCLE = ("train", "train", "train_covost", "dev", "test")  # splits, in turn
REASONS = {  # what is broken -> why it is left out
    "missing": "clip missing",
    "truncated": "unreadable",
    "no_audio": "unreadable",
    "dangling": "unreadable",
    "long": "longer than 30 s",
    "untranslated": "translation empty",
    "marked": "translation marked REMOVE",
    "quoted": "translation without words",
    "garbled": "not UTF-8",
    "controlled": "malformed",
    "wordless": "transcript empty",
    "invalidated": "not in validated.tsv",
    "dev_covost": "of no split",
}
BROKEN = {
    "untranslated": " ",
    "marked": "REMOVE",
    "quoted": '"',
    "garbled": "坏\udcff",
    "controlled": "坏\a",
}


@dataclass
class MiniCoVoST2:
    """Where it is and what should come out of it."""

    common_voice: Path
    tsv: Path
    good: dict[str, tuple[str, str, str]]  # clip: split, texts
    dropped: dict[str, str]  # clip: reason


def from_manifest(folder: Path, manifest: Path) -> MiniCoVoST2:
    """From the recordings of `manifest` that have a transcript, all taken for English; and one
    more row of each kind in REASONS."""
    mini = MiniCoVoST2(folder / "en", folder / "covost_v2.en_zh-CN.tsv", {}, {})
    clips, validated, translations = mini.common_voice / "clips", [], []
    clips.mkdir(parents=True)
    for number, row in enumerate(row for row in read_manifest(manifest) if row.transcript):
        clip, split = f"common_voice_en_{number}", CYCLE[number % len(CYCLE)]
        write_mp3(clips / f"{clip}.mp3", load_audio(row.audio, manifest.parent))
        target = f"译文：{row.transcript}"
        mini.good[clip] = (split.removesuffix("_covost"), row.transcript, target)
        validated.append(common_voice_row(clip, row.transcript))
        # Some releases of Common Voice have no suffix in their TSVs.
        translations.append((f"{clip}.mp3" if number % 2 else clip, target, split))
    for kind, reason in REASONS.items():
        clip = f"common_voice_en_{kind}"
        mini.dropped[clip] = reason
        _write_broken(clips / f"{clip}.mp3", kind)
        if kind != "invalidated":
            said = "" if kind == "wordless" else f"A {kind} clip"
            validated.append(common_voice_row(clip, said))
        split = kind if kind == "dev_covost" else "train"
        translations.append((f"{clip}.mp3", BROKEN.get(kind, "坏的"), split))
    write_tsv(mini.tsv, ("path", "translation", "split"), translations)
    write_tsv(mini.common_voice / "validated.tsv", COLUMNS, validated)
    return mini


def _write_broken(path: Path, kind: str) -> None:
    samples = int((31.0 if kind == "long" else 1.0) * SAMPLE_RATE)
    if kind == "dangling":
        path.symlink_to("nothing.mp3")
    elif kind != "missing":
        write_mp3(path, 0.1 * np.sin(2 * np.pi * 300 * np.arange(samples) / SAMPLE_RATE))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if kind == "no_audio":
        path.write_text("<html>404 not found</html>" * 50)


def write_mp3(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, SAMPLE_RATE, format="MP3")


def common_voice_row(clip: str, sentence: str) -> tuple[str, ...]:
    return ("f00d", f"{clip}.mp3", sentence, "2", "0", "", "", "")


def write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")
