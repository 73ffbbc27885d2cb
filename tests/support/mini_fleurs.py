"""FLEURS in miniature: the raw layout as published, from given recordings.

    build_tree(folder, {"en_us": [Row(1, "Hello.", tone)], "cmn_hans_cn": [Row(1, "你好。")]})
    from_manifest(folder, recordings(tmp_path / "tiny"))

Both return `folder`, which `slam_potsa.data.sources.fleurs.build(source=...)` reads.
"""

import io
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

SAMPLE_RATE = 16_000
TARGET = "cmn_hans_cn"
SENTENCES = {"train": range(1, 11), "dev": range(11, 14), "test": range(14, 18)}  # of `world`
CHOICE = {"train_languages": "en,es", "zero_shot": "fr", "progress": False}  # its


@dataclass(frozen=True)
class Row:
    """One line of a TSV and its recording."""

    id: int  # of the sentence
    text: str
    audio: np.ndarray | bytes | None = None  # samples at 16 kHz, a file's bytes, or no recording
    split: str = "train"
    file: str = ""  # "": made from id and place in the list


@cache
def tone(
    seconds: float = 0.5, frequency: float = 440.0, seed: int = 0, rate: int = SAMPLE_RATE
) -> np.ndarray:
    """A sine with a little noise: float32 [samples]."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * noise).astype(np.float32)


def wav(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def build_tree(folder: Path, recordings: Mapping[str, Sequence[Row]], pack: str = "tar.gz") -> Path:
    """Write `folder/data/<locale>/...` of every locale, with all three splits that have rows.

    pack: "tar.gz" as published, "tar", or "" for extracted folders.
    """
    for locale, rows in recordings.items():
        root = folder / "data" / locale
        for split in dict.fromkeys(row.split for row in rows):
            named = [
                (row.file or f"{10_000_000 + 100 * row.id + place}.wav", row)
                for place, row in enumerate(rows)
                if row.split == split
            ]
            lines = [f"{r.id}\t{file}\t{r.text}\t{r.text.lower()}\tx\t1\tMALE" for file, r in named]
            (root / "audio").mkdir(parents=True, exist_ok=True)
            (root / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            files = {file: row.audio for file, row in named if row.audio is not None}
            _write_audio(root / "audio", split, files, pack)
    return folder


def _write_audio(folder: Path, split: str, files: Mapping[str, np.ndarray | bytes], pack: str):
    (folder / split).mkdir()
    for file, content in files.items():
        content = content if isinstance(content, bytes) else wav(content)
        (folder / split / file).write_bytes(content)
    if pack:
        mode = "w:gz" if pack == "tar.gz" else "w"
        with tarfile.open(folder / f"{split}.{pack}", mode) as archive:
            archive.add(folder / split, split)
        shutil.rmtree(folder / split)


def rows(language: str, takes: int = 2) -> list[Row]:
    """Each sentence `takes` times, its pitch the sentence's, with about 14 characters a second."""
    return [
        Row(
            number,
            f'{language} "sentence" {number:02}',
            tone(1.2 + 0.01 * number, 200 + 20 * number, take),
            split,
        )
        for split, numbers in SENTENCES.items()
        for number in numbers
        for take in range(takes)
    ]


def world(**changes: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """Recordings for `build_tree`: 17 sentences in English (twice), Spanish, French; in Chinese
    only their texts, of sentence 3 with a second wording."""
    texts = [Row(n, f"第{n}句。", None, split) for split, ns in SENTENCES.items() for n in ns]
    locales = {"en_us": rows("en"), "es_419": rows("es", 1), "fr_fr": rows("fr", 1)}
    return locales | {TARGET: [*texts, Row(3, "另一句。", None, "train")]} | changes
