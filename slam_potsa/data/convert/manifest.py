"""Our own manifests as a format: nothing is lost; converting one to another folder re-bases it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from slam_potsa.data.convert.format import Format, paths_from
from slam_potsa.data.manifest import FIELDS, Utterance, read_manifest, write_manifest
from slam_potsa.errors import InputError


def read(path: str | Path, **options: str | None) -> list[Utterance]:
    """Manifests say everything themselves: options are refused, not ignored."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InputError(
            f"{path}: a manifest says these itself: {', '.join(given)}; leave the options out, or "
            f"say with --from what format the input is in"
        )
    return read_manifest(path)


def write(
    path: str | Path, utterances: Iterable[Utterance], *, base: str | Path | None = None
) -> None:
    folder = Path(path).parent
    place = paths_from(Path(base or folder), folder, relative=True)
    write_manifest(path, [dataclasses.replace(row, audio=place(row.audio)) for row in utterances])


FORMAT = Format("manifest", "ours", read, write, frozenset(FIELDS))
