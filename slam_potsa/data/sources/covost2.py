"""CoVoST2: speech of Common Voice 4 with translations, English to 15 languages and 21 to English.

Its TSVs hold names of clips, translations and splits; speech and transcripts are Common Voice's.
Two layouts are understood:

    covost_v2.{src}_{tgt}.tsv              as released: path, translation, split; the transcripts
                                           come from Common Voice's validated.tsv
    covost_v2.{src}_{tgt}.{split}.tsv      as CoVoST2's get_covost_splits.py writes them: path,
                                           sentence, translation, client_id

`train_covost` (clips that Common Voice has outside its own splits) belongs to train unless
`train_splits` leaves it out; `dev_covost` and `test_covost` are left out, as that script does. The
view `asr` needs no translations and also works from Common Voice's own train.tsv, dev.tsv and
test.tsv.

Source: Wang, Wu, Pino: CoVoST 2 and Massively Multilingual Speech-to-Text Translation (2020).
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slam_potsa.data.audio import MAX_SECONDS
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance, mark_checked, write_manifest
from slam_potsa.data.sentence_ids import text_sentence_id
from slam_potsa.data.sources import choices, common_voice
from slam_potsa.data.sources.covost2_tables import (
    EXPECTED,
    SPLITS,
    TRAIN_SPLITS,
    Row,
    direction,
    read_rows,
)
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

VIEWS = ("s2tt", "asr")  # with a target, without
AUDIO_CHECKS = ("full", "none")
SECONDS = (0.3, MAX_SECONDS)  # the lower bound is ours: shorter clips hold no sentence


@dataclass(frozen=True)
class CoVoST2Corpus:
    """What `build` made; everything by split."""

    manifests: dict[str, Path]  # only of splits that have recordings
    recordings: dict[str, int]
    seconds: dict[str, float | None]  # None: not measured
    sentences: dict[str, int]  # distinct sentence_ids
    dropped: dict[str, dict[str, int]]  # split, or "other" -> reason -> recordings
    dropped_list: Path  # dropped.jsonl: one line for each of them
    warnings: tuple[str, ...]

    @property
    def summary(self) -> str:
        """Text: split x recordings x hours x sentences x dropped, the reasons, the warnings."""
        lines = [f"{'split':<8}{'recordings':>11}{'hours':>9}{'sentences':>11}{'dropped':>9}"]
        for split in dict.fromkeys([*self.recordings, *self.dropped]):
            seconds = self.seconds.get(split)
            hours = "-" if seconds is None else f"{seconds / 3600:.2f}"
            lines.append(
                f"{split:<8}{self.recordings.get(split, 0):>11}{hours:>9}"
                f"{self.sentences.get(split, 0):>11}{sum(self.dropped.get(split, {}).values()):>9}"
            )
        reasons = Counter()
        for part in self.dropped.values():
            reasons.update(part)
        if reasons:
            text = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            lines.append(f"dropped: {text}; listed in {self.dropped_list}")
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def build(
    output: str | Path,
    *,
    common_voice_dir: str | Path,
    tsv: Sequence[str | Path] = (),
    view: str = "s2tt",
    language: str | None = None,
    target_language: str | None = None,
    clips: str | Path | None = None,
    train_splits: Sequence[str] = TRAIN_SPLITS,
    check_audio: str = "full",
    replace: bool = False,
    progress: bool = True,
) -> CoVoST2Corpus:
    """Write `output`/{train,dev,test}.jsonl, dropped.jsonl and summary.json.

    With every clip decoded, the manifests are marked as checked.

    Args:
        common_voice_dir: Common Voice's folder of the spoken language (with `clips/` and
            `validated.tsv`), or the folder above it.
        tsv: CoVoST2's file, or its split files. Empty: Common Voice's own splits, view "asr" only.
        view: "s2tt" (transcript and target) or "asr" (transcript).
        language, target_language: where the names of the TSVs do not say them.
        clips: the folder of recordings, where it is not `clips/` (such as one of converted wav).
        train_splits: which of CoVoST2's splits become train: train, train_covost, or both.
        check_audio: "full" decodes every clip (once: measurements.jsonl keeps what was found),
            "none" only looks whether it is there; then durations are absent.
        replace: take the place of a data set with another language, target, view, splits or source
            in `output`.

    Raises:
        InputError: files or options that do not fit, an `output` that was built with other choices,
            every malformed row of the TSVs, or no clip.
    """
    output, tables = Path(output), [Path(path) for path in tsv]
    _check_options(tables, view, check_audio, train_splits)
    source, target = direction(tables, Path(common_voice_dir), language, target_language)
    if view == "s2tt" and target is None:
        raise InputError(f"the target language is not known: give --target-language; {EXPECTED}")
    codes = short_code(source), short_code(target) if target and view == "s2tt" else None
    release = _release_folder(Path(common_voice_dir), source, clips)
    folder = Path(clips) if clips else release / "clips"
    built_with = {
        "dataset": "covost2",
        "language": codes[0],
        "target_language": codes[1],
        "view": view,
        "train_splits": list(train_splits),
        "source": [os.path.realpath(path) for path in (release, *tables)],
    }
    choices.refuse_another(output, built_with, replace=replace)
    rows = _find_clips(read_rows(tables, release, view, train_splits), folder)
    if check_audio == "full":
        rows = _measure(rows, folder, output / "measurements.jsonl", progress)
    how = {"view": view, "train_splits": list(train_splits), "check_audio": check_audio}
    how[choices.BUILT_WITH] = built_with
    return _write(output, rows, folder, codes, how)


def _check_options(
    tables: Sequence[Path], view: str, check_audio: str, train_splits: Sequence[str]
) -> None:
    problems = []
    if not train_splits or not set(train_splits) <= set(TRAIN_SPLITS):
        problems.append(
            f"train_splits {', '.join(train_splits) or 'empty'}: expected train, train_covost, or "
            "both"
        )
    if view not in VIEWS:
        problems.append(f"view {view!r}: expected one of {', '.join(VIEWS)}")
    if check_audio not in AUDIO_CHECKS:
        problems.append(f"check_audio {check_audio!r}: expected one of {', '.join(AUDIO_CHECKS)}")
    if view == "s2tt" and not tables:
        problems.append(f"view 's2tt' needs translations: give --tsv; {EXPECTED}")
    if problems:
        raise InputError(problems)


def _release_folder(folder: Path, source: str, clips: str | Path | None) -> Path:
    candidates = [folder / source, folder]
    for candidate in candidates:
        if (candidate / "clips").is_dir() or (clips and (candidate / "validated.tsv").is_file()):
            break
    else:
        if not clips:
            raise InputError(
                f"{folder}: found no folder 'clips' in it, nor in {candidates[0]}; expected Common "
                f"Voice's folder of the spoken language, unpacked, with clips/ and validated.tsv"
            )
        candidate = folder
    if clips and not Path(clips).is_dir():
        raise InputError(f"{clips}: no such folder of clips")
    return candidate


def _find_clips(rows: list[Row], folder: Path) -> list[Row]:
    files = common_voice.list_clips(folder)
    found = []
    for row in rows:
        if not row.drop:
            name = files.get(row.clip)
            row = replace(row, file=name) if name else replace(row, drop="clip missing")
        found.append(row)
    missing = [row for row in found if row.drop == "clip missing"]
    if missing and all(row.drop for row in found):
        raise InputError(
            f"{folder}: none of the {len(missing)} clips of the TSVs is there (the first is "
            f"{missing[0].clip}.mp3); the folder has {len(files)} recordings; CoVoST2 belongs to "
            f"Common Voice 4: check --common-voice"
        )
    return found


def _measure(rows: list[Row], folder: Path, cache: Path, progress: bool) -> list[Row]:
    files = [row.file for row in rows if not row.drop]
    measured = common_voice.measure_clips(folder, files, cache, progress=progress)
    return [row if row.drop else _with_length(row, measured[row.file]) for row in rows]


def _with_length(row: Row, seconds: float | str) -> Row:
    if isinstance(seconds, str):
        return replace(row, drop="clip unreadable", detail=seconds)
    shortest, longest = SECONDS
    if seconds < shortest:
        return replace(row, drop=f"below {shortest:g} s", detail=f"{seconds:.2f} s")
    if seconds > longest:
        return replace(row, drop=f"above {longest:g} s", detail=f"{seconds:.2f} s")
    return replace(row, seconds=round(seconds, 3))


def _write(
    output: Path,
    rows: list[Row],
    folder: Path,
    codes: tuple[str, str | None],
    how: dict[str, Any],
) -> CoVoST2Corpus:
    base = _as_seen_from(folder, output)
    splits: dict[str, list[Utterance]] = {
        split: [] for split in SPLITS if any(row.split == split for row in rows)
    }
    for row in rows:
        if not row.drop:
            splits[row.split].append(_utterance(row, base, codes))
    if not any(splits.values()):
        reasons = Counter(row.drop for row in rows)
        raise InputError(f"no recording is left: {dict(reasons)}; check the TSVs and the clips")
    manifests = {split: output / f"{split}.jsonl" for split in SPLITS}
    for split, path in manifests.items():
        if splits.get(split):
            write_manifest(path, splits[split])
            if how["check_audio"] == "full":
                mark_checked(path)
        else:
            path.unlink(missing_ok=True)  # of an earlier call: it would pass for this one's
    dropped = [row for row in rows if row.drop]
    atomic_write(output / "dropped.jsonl", "".join(map(_dropped_line, dropped)))
    corpus = _describe(output, splits, dropped, measured=how["check_audio"] == "full")
    atomic_write(output / "summary.json", _as_json(corpus, codes, how))
    return corpus


def _as_seen_from(folder: Path, output: Path) -> str:
    """Manifests hold paths relative to themselves, unless the user gave an absolute one."""
    if folder.is_absolute():
        return str(folder)
    return os.path.relpath(folder.resolve(), output.resolve())


def _utterance(row: Row, base: str, codes: tuple[str, str | None]) -> Utterance:
    language, target_language = codes
    return Utterance(
        key=row.clip,
        audio=f"{base}/{row.file}",
        language=language,
        sentence_id=text_sentence_id(row.transcript, language),
        transcript=row.transcript,
        target=row.target,
        target_language=target_language,
        duration=row.seconds,
    )


def _dropped_line(row: Row) -> str:
    fields = {"split": row.split, "clip": row.clip, "reason": row.drop, "row": row.place}
    if row.detail:
        fields["detail"] = row.detail
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _describe(
    output: Path, splits: dict[str, list[Utterance]], dropped: list[Row], measured: bool
) -> CoVoST2Corpus:
    reasons: dict[str, Counter] = defaultdict(Counter)
    for row in dropped:
        reasons[row.split][row.drop] += 1
    sentences = {split: {row.sentence_id for row in part} for split, part in splits.items()}
    return CoVoST2Corpus(
        manifests={split: output / f"{split}.jsonl" for split, part in splits.items() if part},
        recordings={split: len(part) for split, part in splits.items()},
        seconds={
            split: round(sum(row.duration for row in part), 3) if measured else None
            for split, part in splits.items()
        },
        sentences={split: len(part) for split, part in sentences.items()},
        dropped={split: dict(part) for split, part in reasons.items()},
        dropped_list=output / "dropped.jsonl",
        warnings=tuple(
            f"{len(shared)} of {len(sentences[split])} sentences of {split} are in train too"
            for split in ("dev", "test")
            if (shared := sentences.get(split, set()) & sentences.get("train", set()))
        ),
    )


def _as_json(corpus: CoVoST2Corpus, codes: tuple[str, str | None], how: dict[str, Any]) -> str:
    fields = {
        "language": codes[0],
        "target_language": codes[1],
        **how,
        "recordings": corpus.recordings,
        "seconds": corpus.seconds,
        "sentences": corpus.sentences,
        "dropped": corpus.dropped,
        "warnings": corpus.warnings,
    }
    return json.dumps(fields, ensure_ascii=False, indent=2) + "\n"
