"""Tar archives as other projects lay them out, read where they lie.

webdataset: `a/7.flac` with `a/7.json`, an object with fields of a manifest, or `a/7.txt`.
Lhotse's shar: `cuts.000000.jsonl.gz` and `recording.000000.tar`, members named after the cuts.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from slam_potsa.data.archives import index_of, read_member
from slam_potsa.data.jsonl import Problems, Row, json_object
from slam_potsa.errors import InputError

AUDIO = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")
PATTERNS = {"webdataset": "*.tar", "lhotse": "cuts.*.jsonl*"}  # of a folder's shards


def shards(source: Path, name: str) -> list[Path]:
    """`source` itself, or its shards in order. Raises InputError for a folder without any."""
    pattern = PATTERNS.get(name, "")
    found = sorted(source.glob(pattern or "-")) if source.is_dir() else [source]
    if not found:
        raise InputError(f"{source}: a folder; --from {name} reads {pattern or 'one file'}")
    return found


def samples(tar: Path, problems: Problems) -> list[Row]:
    """A row for each sample of a WebDataset tar: key, `audio` as archive:member, its texts."""
    rows = []
    for number, (key, members) in enumerate(_by_stem(tar).items(), start=1):
        row = {"key": f"{tar.stem}/{key}", "audio": _audio(tar, members)}
        try:
            if ".txt" in members:
                row["text"] = read_member(tar, members[".txt"]).decode()
            if ".json" in members:
                row = {**json_object(read_member(tar, members[".json"]).decode("utf-8-sig")), **row}
        except ValueError as error:  # UnicodeDecodeError is one
            problems.add(number, f"{key}: {error}; expected a text in UTF-8, or a JSON object")
        rows.append(Row(number, row))
    return rows


def shar_audio(cuts: Path, cut: str) -> str:
    """The audio of a cut of a shar's shard, as archive:member."""
    tar = cuts.with_name(f"recording.{cuts.name.split('.')[1]}.tar")
    if not tar.is_file() or not (audio := _audio(tar, _by_stem(tar).get(cut, {}))):
        raise InputError(f"no audio of cut {cut!r} in {tar.name} beside {cuts.name}")
    return audio


def _audio(tar: Path, members: dict[str, str]) -> str | None:
    return next((f"{tar.name}:{members[kind]}" for kind in AUDIO if kind in members), None)


@lru_cache(maxsize=1)
def _by_stem(tar: Path) -> dict[str, dict[str, Any]]:
    """Members without their suffix -> suffix -> member."""
    found: dict[str, dict[str, str]] = {}
    for name in index_of(tar):
        member = PurePosixPath(name)
        found.setdefault(str(member.with_suffix("")), {})[member.suffix.lower()] = name
    return found
