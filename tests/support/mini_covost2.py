"""A miniature CoVoST2 in the exact raw layout: Common Voice 4's folder and CoVoST2's TSV.

    en/clips/common_voice_en_<n>.mp3    real mp3, some of them broken
    en/validated.tsv                    Common Voice 4's columns
    en/{train,dev,test}.tsv             the same columns, Common Voice's own splits
    covost_v2.en_zh-CN.tsv              path, translation, split

`python -m tests.support.mini_covost2 FOLDER MANIFEST` makes one from real recordings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from slam_potsa.data.audio import SAMPLE_RATE, load_audio
from slam_potsa.data.manifest import Utterance, read_manifest

COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accent")
CYCLE = ("train", "train", "train_covost", "dev", "test")  # splits, in turn
REASONS = {  # what is broken -> why it is dropped
    "missing": "clip missing",
    "truncated": "clip unreadable",
    "no_audio": "clip unreadable",
    "short": "below 0.3 s",
    "long": "above 30 s",
    "untranslated": "translation empty",
    "wordless": "transcript empty",
    "invalidated": "not in validated.tsv",
    "dev_covost": "of no split",
}


@dataclass
class MiniCoVoST2:
    """Where it is and what should come out of it."""

    folder: Path
    good: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # clip: split, texts
    dropped: dict[str, str] = field(default_factory=dict)  # clip: reason

    @property
    def common_voice(self) -> Path:
        return self.folder / "en"

    @property
    def tsv(self) -> Path:
        return self.folder / "covost_v2.en_zh-CN.tsv"

    def split_files(self) -> list[Path]:
        """The files that get_covost_splits.py would write: joined, with `"` escaped."""
        paths = []
        for split in ("train", "dev", "test"):
            lines = ["path\tsentence\ttranslation\tclient_id"]
            for clip, (own, sentence, target) in self.good.items():
                if own == split:
                    lines.append(f"{clip}.mp3\t{sentence}\t{target}\tspeaker".replace('"', '\\"'))
            paths.append(self.folder / f"covost_v2.en_zh-CN.{split}.tsv")
            paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
        return paths


def from_manifest(
    folder: Path,
    manifest: Path,
    *,
    target: Callable[[Utterance], str] = lambda row: f"译文：{row.transcript}",
    broken: bool = True,
) -> MiniCoVoST2:
    """From the recordings of `manifest` that have a transcript, all taken for English.

    `target` gives the Chinese side. With `broken`, one more row of each kind in REASONS.
    """
    mini = MiniCoVoST2(folder)
    (mini.common_voice / "clips").mkdir(parents=True)
    validated, translations, splits = [], [], {"train": [], "dev": [], "test": []}
    rows = [row for row in read_manifest(manifest) if row.transcript]
    for number, row in enumerate(rows):
        clip, split = f"common_voice_en_{number}", CYCLE[number % len(CYCLE)]
        samples = load_audio(row.audio, manifest.parent)
        _write_mp3(mini.common_voice / "clips" / f"{clip}.mp3", samples)
        mini.good[clip] = (split.removesuffix("_covost"), row.transcript, target(row))
        # Some releases of Common Voice have no suffix in their TSVs.
        validated.append(_common_voice_row(f"{clip}.mp3", row.transcript))
        translations.append((f"{clip}.mp3" if number % 2 else clip, target(row), split))
        if split in splits:
            splits[split].append(validated[-1])
    if broken:
        _add_broken(mini, validated, translations)
    _write_tsv(mini.tsv, ("path", "translation", "split"), translations)
    _write_tsv(mini.common_voice / "validated.tsv", COLUMNS, validated)
    for split, part in splits.items():
        _write_tsv(mini.common_voice / f"{split}.tsv", COLUMNS, part)
    return mini


def _add_broken(mini: MiniCoVoST2, validated: list, translations: list) -> None:
    clips = mini.common_voice / "clips"
    time = np.arange(31 * SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.1 * np.sin(2 * np.pi * 300 * time)
    for kind, reason in REASONS.items():
        clip = f"common_voice_en_{kind}"
        seconds = {"short": 0.1, "long": 31.0}.get(kind, 1.0)
        path = clips / f"{clip}.mp3"
        if kind != "missing":
            _write_mp3(path, tone[: int(seconds * SAMPLE_RATE)])
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if kind == "no_audio":
            path.write_text("<html>404 not found</html>" * 50)
        if kind != "invalidated":
            sentence = "" if kind == "wordless" else f"A {kind} clip"
            validated.append(_common_voice_row(f"{clip}.mp3", sentence))
        target = " " if kind == "untranslated" else f"坏的：{kind}"
        split = kind if kind == "dev_covost" else "train"
        translations.append((f"{clip}.mp3", target, split))
        mini.dropped[clip] = reason


def _write_mp3(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, SAMPLE_RATE, format="MP3")


def _common_voice_row(path: str, sentence: str) -> tuple[str, ...]:
    return ("f00d", path, sentence, "2", "0", "", "", "")


def _write_tsv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    made = from_manifest(Path(sys.argv[1]), Path(sys.argv[2]))
    print(made.common_voice, made.tsv)
