"""The announcements of `make demo` and `make evidence`, from noise in five languages."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from slam_potsa.data.manifest import read_manifest, write_manifest
from tests.support import tiny

HEARD = ("en", "es", "ru")
LANGUAGES = (*HEARD, "fr", "it")
SPLITS = {"train": (0, 5), "pairs": (5, 9), "dev": (9, 10), "test": (10, 12)}


def announcements(folder: Path, **_) -> SimpleNamespace:
    """What `announcements.build` gives: the manifests of the real corpus."""
    rows = read_manifest(tiny.recordings(folder, sentences=12, languages=LANGUAGES))
    for name, (first, end) in SPLITS.items():
        own = [row for row in rows if first <= int(row.sentence_id[1:]) < end]
        if name == "train":
            own = [row for row in own if row.language in HEARD]
        if name == "test":
            write_manifest(folder / "test_new_voices.jsonl", own)
        if name == "pairs":
            write_manifest(folder / "pairs_translated.jsonl", own)
            own = [row if row.language in HEARD else replace(row, target=None) for row in own]
        write_manifest(folder / f"{name}.jsonl", own)
    return SimpleNamespace(path=lambda name: folder / f"{name}.jsonl")
