"""FLEURS in miniature: the raw layout as published, from given recordings.

    build_tree(folder, {"en_us": [Row(1, "Hello.", tone)], "cmn_hans_cn": [Row(1, "你好。")]})
    from_manifest(folder, recordings(tmp_path / "tiny"), sentences=20)

Both return `folder`, which `slam_potsa.data.sources.fleurs.build(source=...)` reads.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from slam_potsa.data.manifest import read_manifest

SAMPLE_RATE = 16_000
LOCALES = {"en": "en_us", "es": "es_419", "ru": "ru_ru", "fr": "fr_fr", "it": "it_it"}
TARGET = "cmn_hans_cn"
SENTENCES = {"train": range(1, 11), "dev": range(11, 14), "test": range(14, 18)}  # of `world`
CHOICE = {"train_languages": "en,es", "zero_shot": "fr", "progress": False, "workers": 2}  # its


@dataclass(frozen=True)
class Row:
    """One line of a TSV and its recording."""

    id: int  # of the sentence
    text: str
    audio: np.ndarray | bytes | None = None  # samples at 16 kHz, a file's bytes, or no recording
    split: str = "train"
    file: str = ""  # "": made from id and place in the list


@dataclass(frozen=True)
class Breakage:
    """What is wrong with a tree."""

    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)  # "en_us/train" -> raw lines
    truncated: Mapping[str, float] = field(default_factory=dict)  # "en_us/train" -> share kept
    damaged: Sequence[str] = ()  # "en_us/train": one byte of the archive is wrong


@cache
def tone(seconds: float, frequency: float = 440.0, seed: int = 0) -> np.ndarray:
    """A sine with a little noise: float32 [samples]."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.01 * noise).astype(np.float32)


def build_tree(
    folder: Path,
    recordings: Mapping[str, Sequence[Row]],
    *,
    packed: bool = True,
    compressed: bool = True,
    breakage: Breakage | None = None,
) -> Path:
    """Write `folder/data/<locale>/...` of every locale, with all three splits that have rows.

    packed: archives, as published; otherwise extracted folders. compressed: .tar.gz, else .tar.
    """
    breakage = breakage or Breakage()
    for locale, rows in recordings.items():
        root = folder / "data" / locale
        (root / "audio").mkdir(parents=True, exist_ok=True)
        for split in dict.fromkeys(row.split for row in rows):
            named = [
                (row.file or f"{10_000_000 + 100 * row.id + place}.wav", row)
                for place, row in enumerate(rows)
                if row.split == split
            ]
            extra = breakage.lines.get(f"{locale}/{split}", ())
            lines = [*(_line(file, row) for file, row in named), *extra]
            text = "".join(f"{line}\n" for line in lines)
            (root / f"{split}.tsv").write_text(text, encoding="utf-8", newline="")
            files = {file: _content(row.audio) for file, row in named if row.audio is not None}
            if not packed:
                _write_folder(root / "audio" / split, files)
                continue
            path = root / "audio" / (f"{split}.tar.gz" if compressed else f"{split}.tar")
            _write_archive(path, split, files)
            _break(path, f"{locale}/{split}", breakage)
    return folder


def from_manifest(
    folder: Path,
    manifest_path: Path | Sequence[Path],
    locales: Mapping[str, str] = LOCALES,
    target: str = TARGET,
    sentences: int | None = None,
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
    **options,
) -> Path:
    """A tree with a manifest's own recordings; the target locale has the targets as its texts.

    Args:
        manifest_path: one or several, of `prepare asterisk` or `tests/support/tiny.py`.
        locales: language -> locale; other languages are left out.
        sentences: only the first of them; None: all.
        shares: of the sentences, for train, dev and test.
        options: of `build_tree`.
    """
    paths = [manifest_path] if isinstance(manifest_path, str | Path) else manifest_path
    utterances = [(Path(path), row) for path in paths for row in read_manifest(path)]
    utterances = [(path, row) for path, row in utterances if row.language in locales]
    names = list(dict.fromkeys(row.sentence_id for _, row in utterances))[:sentences]
    splits = _splits(len(names), shares)
    recordings: dict[str, list[Row]] = {locale: [] for locale in [*locales.values(), target]}
    written = set()
    for path, row in utterances:
        if row.sentence_id not in names:
            continue
        number = names.index(row.sentence_id)
        audio = _as_wav(path.parent / row.audio)
        text = row.transcript or row.target
        recordings[locales[row.language]].append(Row(number, text, audio, splits[number]))
        if number not in written:
            written.add(number)
            recordings[target].append(Row(number, row.target, None, splits[number]))
    return build_tree(folder, {name: rows for name, rows in recordings.items() if rows}, **options)


def _splits(count: int, shares: tuple[float, float, float]) -> list[str]:
    """The split of each sentence; each split has one at least."""
    dev, test = (max(1, round(share * count)) for share in shares[1:])
    return ["train"] * (count - dev - test) + ["dev"] * dev + ["test"] * test


def _line(file: str, row: Row) -> str:
    spoken = row.text.lower()
    characters = " ".join("|".join(spoken.split())) + " |"
    samples = len(row.audio) if isinstance(row.audio, np.ndarray) else 0
    return "\t".join([str(row.id), file, row.text, spoken, characters, str(samples), "FEMALE"])


def _content(audio: np.ndarray | bytes) -> bytes:
    if isinstance(audio, bytes):
        return audio
    stream = io.BytesIO()
    soundfile.write(stream, audio, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def _as_wav(path: Path) -> bytes:
    """A recording of any format and rate as FLEURS has them: wav, 16 kHz, one channel."""
    from slam_potsa.data.audio import load_audio

    return _content(load_audio(str(path)))


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _write_archive(path: Path, split: str, files: Mapping[str, bytes]) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        folder = tarfile.TarInfo(split)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{split}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = plain.getvalue()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)


def _break(path: Path, name: str, breakage: Breakage) -> None:
    content = bytearray(path.read_bytes())
    if name in breakage.truncated:
        path.write_bytes(content[: round(breakage.truncated[name] * len(content))])
    if name in breakage.damaged:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)


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


def texts(numbers: Iterable[int] = range(1, 18)) -> list[Row]:
    """The target side: no recordings. Sentence 3 has a second wording."""
    split_of = {number: split for split, numbers in SENTENCES.items() for number in numbers}
    found = [Row(n, f"第{n}句。", None, split_of[n]) for n in numbers if n in split_of]
    return [*found, Row(3, "另一句。", None, "train")]


def world(**changes: Sequence[Row]) -> dict[str, Sequence[Row]]:
    """Recordings for `build_tree`: 17 sentences in English (twice), Spanish, French and Chinese."""
    locales = {"en_us": rows("en"), "es_419": rows("es", 1), "fr_fr": rows("fr", 1)}
    return locales | {"cmn_hans_cn": texts()} | changes


def lines_of(tree: Path, trained: Sequence[str], unheard: Sequence[str]) -> int:
    """Lines of the TSVs that a build reads for speech: each is kept or dropped."""
    splits = [(locale, split) for locale in trained for split in ("train", "dev", "test")]
    splits += [(locale, "test") for locale in unheard]
    paths = [tree / "data" / locale / f"{split}.tsv" for locale, split in splits]
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
