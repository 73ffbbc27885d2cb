"""Manifests from and to the files of other projects: `convert`, and FORMATS, the known ones.

`manifest` is ours (slam_potsa/data/manifest.py); `dialects` says what the others are. A format of
your own is a `Format` in FORMATS; a test checks that it holds what it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from slam_potsa.data.archives import split_reference
from slam_potsa.data.convert import dialects
from slam_potsa.data.convert.format import Fill, Format, rebased
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import FIELDS, Utterance, read_manifest, write_manifest
from slam_potsa.errors import InputError, each, refuse


class _Manifest(Format):
    """Ours: nothing is lost; converting one to another folder re-bases it."""

    def read(self, path: Path, fill: Fill) -> list[Utterance]:
        if any(fill):
            raise InputError(
                f"{path}: a manifest says its languages and sentence ids itself: leave the options "
                f"out, or say with --from what format the input is in"
            )
        return read_manifest(path)

    def write(self, path: Path, utterances: Iterable[Utterance], base: Path) -> None:
        moved = (replace(u, audio=rebased(u.audio, base, path.parent, True)) for u in utterances)
        write_manifest(path, moved)


FORMATS: dict[str, Format] = {"manifest": _Manifest(dict, dict, FIELDS), **dialects.FORMATS}


@dataclass(frozen=True)
class Conversion:
    """What `convert` did."""

    output: Path
    utterances: int
    lost: tuple[str, ...]  # manifest fields that were there and that the output cannot hold
    absent: int  # recordings that are not where the paths point

    @property
    def summary(self) -> str:
        text = f"{self.output}: {self.utterances} utterances"
        if self.lost:
            text += f"\nnot in this format: {', '.join(self.lost)}"
        if self.absent:
            text += f"\nwarning: {self.absent} recordings are not where the paths point; relative "
            text += "paths are looked up from the folder of the input, or from --audio-root"
        return text


def convert(
    source: str | Path,
    output: str | Path,
    *,
    source_format: str = "manifest",
    output_format: str = "manifest",
    language: str | None = None,
    target_language: str | None = None,
    sentence_id: str | None = None,
    audio_root: str | Path | None = None,
) -> Conversion:
    """Read `source`, write `output`; the options are those of `slam-potsa prepare convert --help`.

    Where a format has one text and nothing says which, a target language means that it is the
    translation. Relative audio paths are re-based so that they stay right.

    Raises InputError for unknown formats, every bad line of `source`, and what `output` lacks.
    """
    source, output = Path(source), Path(output)
    unknown = [name for name in (source_format, output_format) if name not in FORMATS]
    problems = [f"format {name!r}: expected one of {', '.join(FORMATS)}" for name in unknown]
    same = source.resolve() == output.resolve()
    refuse(problems + [f"{output}: is the input too; give another output"] * same)
    codes = each(short_code, filter(None, (language, target_language)))
    fill = Fill(codes.get(language), codes.get(target_language), sentence_id)
    base = Path(audio_root) if audio_root else source.parent
    try:
        utterances = FORMATS[source_format].read(source, fill)
        FORMATS[output_format].write(output, utterances, base)
    except ModuleNotFoundError as error:
        raise InputError(f"this format needs {error.name}: pip install {error.name}") from None
    absent = sum(not (base / split_reference(u.audio)[0]).is_file() for u in utterances)
    there = [name for name in FIELDS if any(getattr(row, name) is not None for row in utterances)]
    held = FORMATS[output_format]
    only = ["target" if "target" in there else "transcript"] * held.one_text
    lost = tuple(name for name in there if name not in {*held.holds, *only})
    return Conversion(output, len(utterances), lost, absent)
