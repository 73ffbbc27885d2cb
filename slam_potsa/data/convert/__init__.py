"""Manifests from and to the files of other projects: `convert`, and FORMATS, the known ones.

    format      whose                                       paths are relative to
    manifest    ours (slam_potsa/data/manifest.py)          the file
    slam_llm    SLAM-LLM's recipes                          the working directory
    cot_st      SLAM-LLM's st_covost2 (CoT-ST)              the working directory
    llm_srt     LLM-SRT, a fork of SLAM-LLM                 the file
    nemo        NVIDIA NeMo, Canary                         the file
    ms_swift    ms-swift                                    the working directory
    lhotse      Lhotse, cuts as JSONL (needs lhotse)        the working directory

What each can hold is said in its module and, as `Format.holds`, checked by a test. A format of your
own is a `Format` in FORMATS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.data.archives import split_reference
from slam_potsa.data.convert import (
    cot_st,
    lhotse_cuts,
    llm_srt,
    manifest,
    ms_swift,
    nemo,
    slam_llm,
)
from slam_potsa.data.convert.format import Format
from slam_potsa.data.manifest import FIELDS, Utterance
from slam_potsa.errors import InputError

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        manifest.FORMAT,
        slam_llm.FORMAT,
        cot_st.FORMAT,
        llm_srt.FORMAT,
        nemo.FORMAT,
        ms_swift.FORMAT,
        lhotse_cuts.FORMAT,
    )
}


@dataclass(frozen=True)
class Conversion:
    """What `convert` did."""

    output: Path
    utterances: int
    lost: tuple[str, ...]  # manifest fields that were there and that the output cannot hold
    absent: int  # recordings that are not where the paths point

    @property
    def summary(self) -> str:
        lines = [f"{self.output}: {self.utterances} utterances"]
        if self.lost:
            lines.append(f"not in this format: {', '.join(self.lost)}")
        if self.absent:
            lines.append(
                f"warning: {self.absent} recordings are not where the paths point; relative paths "
                f"are looked up from the folder of the input, or from --audio-root"
            )
        return "\n".join(lines)


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
    """Read `source`, write `output`; relative audio paths are re-based so that they stay right.

    Args:
        language, target_language: for rows that do not say them. Where a format has one text and
            nothing says which, a target language means that it is the translation.
        sentence_id: which field tells sentences apart where the format has no sentence ids:
            "transcript" or "target" (the same text is the same sentence), "audio" (the file's name
            without folder and suffix) or "key" (every row is a sentence of its own).
        audio_root: what relative audio paths are relative to; default the folder of `source`.

    Raises:
        InputError: unknown formats, every bad line of `source`, or what `output` cannot do without.
    """
    source, output = Path(source), Path(output)
    unknown = [name for name in (source_format, output_format) if name not in FORMATS]
    problems = [f"format {name!r}: expected one of {', '.join(FORMATS)}" for name in unknown]
    if source.resolve() == output.resolve():
        problems.append(f"{output}: is the input too; give another output")
    if problems:
        raise InputError(problems)
    utterances = FORMATS[source_format].read(
        source, language=language, target_language=target_language, sentence_id=sentence_id
    )
    base = Path(audio_root) if audio_root else source.parent
    FORMATS[output_format].write(output, utterances, base=base)
    return Conversion(
        output=output,
        utterances=len(utterances),
        lost=_lost(FORMATS[output_format], utterances),
        absent=sum(not _exists(row.audio, base) for row in utterances),
    )


def _lost(format: Format, utterances: Sequence[Utterance]) -> tuple[str, ...]:
    """Fields that are there and that the format cannot hold."""
    there = [name for name in FIELDS if any(getattr(row, name) is not None for row in utterances)]
    text = "target" if "target" in there else "transcript"
    return tuple(
        name
        for name in there
        if name not in format.holds and not (format.one_text and name == text)
    )


def _exists(audio: str, base: Path) -> bool:
    return (base / split_reference(audio)[0]).is_file()
