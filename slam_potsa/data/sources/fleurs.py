"""Manifests of FLEURS: about ten hours of read speech in each of 102 languages, n-way parallel.

Every recording is kept whose sentence has a text in the target language, joined by FLEURS' `id`
within the split; the raw transcription (capitals and punctuation as written) is the transcript, and
that of the target language the target. Broken recordings are dropped by the rules in
`fleurs_rules.py`, of dev and test only what cannot be decoded or does not fit Whisper's window;
`dropped.jsonl` lists every one with its reason.

The named sets are those of the POTSA paper: trained on en, ja, es, ko, ru, tested without training
on fr, de, kea, ceb, ast, ky, all into Chinese. FLEURS: Conneau et al. 2022 (arXiv 2205.12446),
licence CC BY 4.0.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data import archives
from slam_potsa.data.languages import fleurs_locale, short_code
from slam_potsa.data.manifest import Utterance, mark_checked, write_manifest
from slam_potsa.data.sources import choices, fleurs_files, fleurs_report
from slam_potsa.data.sources.fleurs_audio import default_workers, listen
from slam_potsa.data.sources.fleurs_files import SPLITS, Dropped, Part
from slam_potsa.data.sources.fleurs_rules import Kept, Limits, choose, refuse_if_empty, targets_of
from slam_potsa.errors import InputError
from slam_potsa.files import atomic_write

TRAIN_SETS = {"potsa": ("en", "ja", "es", "ko", "ru")}
ZERO_SHOT_SETS = {"potsa": ("fr", "de", "kea", "ceb", "ast", "ky"), "none": ()}
TARGET = "cmn_hans_cn"
ZERO_SHOT_SPLIT = "test"


@dataclass(frozen=True)
class FleursCorpus:
    """What `build` made. Counts by manifest (train, dev, test, zero_shot), then by language."""

    train: Path
    dev: Path
    test: Path
    zero_shot: Path | None  # the test split of languages that training never hears
    dropped: Path  # one line a recording that was left out
    target_language: str
    recordings: dict[str, dict[str, int]]
    seconds: dict[str, dict[str, float]]
    sentences: dict[str, dict[str, int]]  # distinct ones of each language
    distinct_sentences: dict[str, int]  # of all languages together
    shared: dict[str, dict[str, dict[str, int]]]  # split -> language -> language -> sentences
    dropped_by_reason: dict[str, int]
    left_out: dict[str, dict[str, int]]  # of each manifest's recordings, by reason
    notes: tuple[str, ...]  # what a user should know

    @property
    def summary(self) -> str:
        """Text: languages x manifests x recordings x hours x sentences, then shared sentences."""
        return fleurs_report.text(self)


@dataclass(frozen=True)
class _Languages:
    """Locales: those to train on, those never to be heard, the one to translate into."""

    train: tuple[str, ...]
    zero_shot: tuple[str, ...]
    target: str

    def as_dict(self) -> dict[str, Any]:
        """For summary.json: what another build in the same folder must agree with."""
        return {
            "dataset": "fleurs",
            "train_languages": [short_code(locale) for locale in self.train],
            "zero_shot": [short_code(locale) for locale in self.zero_shot],
            "target_language": short_code(self.target),
        }

    def wanted(self) -> list[tuple[str, str, bool]]:
        """(locale, split, whether its recordings are needed)."""
        audio = {(locale, split): True for locale in self.train for split in SPLITS}
        audio |= {(locale, ZERO_SHOT_SPLIT): True for locale in self.zero_shot}
        text = {(self.target, split): False for split in SPLITS}
        return [(*part, needs) for part, needs in (text | audio).items()]

    def manifests(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """(manifest, split, locales) of every one that is written."""
        found = [(split, split, self.train) for split in SPLITS]
        zero_shot = [("zero_shot", ZERO_SHOT_SPLIT, self.zero_shot)] if self.zero_shot else []
        return found + zero_shot


def build(
    output: str | Path,
    *,
    source: str | Path | None = None,
    hub: bool = False,
    revision: str | None = None,
    train_languages: str | Sequence[str] = "potsa",
    zero_shot: str | Sequence[str] = "potsa",
    target: str = TARGET,
    keep_target_language: bool = False,
    min_seconds: float = Limits.min_seconds,
    max_seconds: float = Limits.max_seconds,
    rate_deviations: float = Limits.rate_deviations,
    allow_truncated: bool = False,
    workers: int | None = None,
    replace: bool = False,
    progress: bool = True,
) -> FleursCorpus:
    """Write train, dev, test and zero_shot.jsonl, dropped.jsonl and summary.json into `output`.

    The manifests are marked as checked: every recording in them was decoded here.
    Interrupted, the same call goes on with the languages and splits that are not yet listened to.

    Args:
        source: the folder of FLEURS, with or without its `data/`, or as the Hugging Face hub's
            cache has it; or
        hub: fetch what is needed from the Hugging Face hub, at `revision`.
        train_languages: "potsa", or codes such as "en,ko,fr_fr".
        zero_shot: "potsa", "none", or codes: their test split goes to zero_shot.jsonl.
        target: the language that is translated into; only its texts are needed.
        keep_target_language: the target language's own recordings are their own translation;
            where it is among the other languages, they are left out unless this is set.
        min_seconds, max_seconds, rate_deviations: what is dropped of train, see
            `fleurs_rules.Limits`.
        allow_truncated: go on with the recordings that a truncated archive still has.
        workers: threads; default: the cores there are.
        replace: take the place of a data set with other languages, target or source in `output`.

    Raises:
        InputError: unknown languages, files that are missing, truncated or not FLEURS', or an
            `output` that was built with other choices.
    """
    limits = Limits(min_seconds, max_seconds, rate_deviations)
    languages, notes = _check(
        train_languages, zero_shot, target, keep_target_language, limits, workers, source, hub
    )
    output = Path(output)
    built_with = languages.as_dict() | _origin(source, revision)
    choices.refuse_another(output, built_with, replace=replace)
    wanted = languages.wanted()
    root = fleurs_files.fetch(wanted, revision) if hub else fleurs_files.find_root(source)
    parts, dropped = fleurs_files.read_parts(Path(os.path.abspath(root)), wanted)
    spoken = [part for part in parts if part.audio is not None]
    heard = listen(
        spoken,
        output / ".listened",
        allow_truncated=allow_truncated,
        workers=workers or default_workers(),
        progress=progress,
    )
    targets = {part.split: targets_of(part) for part in parts if part.locale == languages.target}
    kept, unfit = choose(spoken, heard, targets, limits)
    notes += _notes(spoken, kept)
    return _write(output, languages, kept, dropped + unfit, notes, built_with)


def _origin(source: str | Path | None, revision: str | None) -> dict[str, str]:
    """Where the files come from: a folder, or the hub at a revision."""
    if source:
        return {"source": os.path.realpath(source)}
    return {"source": f"{fleurs_files.REPOSITORY} on the hub, revision {revision or 'newest'}"}


def language_list(text: str | Sequence[str], sets: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Locales of a named set, a list such as `"en, fr_fr"`, or a sequence; each once, in order.

    Raises InputError with every code that is not known.
    """
    names = text.split(",") if isinstance(text, str) else text
    codes: list[str] = []
    for name in (name.strip() for name in names):
        codes += sets.get(name, (name,) if name else ())
    locales, problems = [], []
    for code in codes:
        try:
            locales.append(fleurs_locale(code))
        except InputError as error:
            problems.append(f"{error}; or a named set: {', '.join(sets)}")
    if problems:
        raise InputError(problems)
    return tuple(dict.fromkeys(locales))


def _check(
    train_languages: str | Sequence[str],
    zero_shot: str | Sequence[str],
    target: str,
    keep_target: bool,
    limits: Limits,
    workers: int | None,
    source: str | Path | None,
    hub: bool,
) -> tuple[_Languages, list[str]]:
    """The languages, and what to note about them; InputError with everything that is wrong."""
    problems = limits.check()
    if workers is not None and workers < 1:
        problems.append(f"workers={workers}: expected 1 or more")
    if bool(source) == hub:
        found = "both a folder and --hub" if hub else "neither a folder nor --hub"
        problems.append(f"found {found}, expected one of them: the folder of FLEURS, or --hub")
    lists: dict[str, tuple[str, ...]] = {}
    for name, given, sets in (
        ("train", train_languages, TRAIN_SETS),
        ("zero_shot", zero_shot, ZERO_SHOT_SETS),
        ("target", target, {}),
    ):
        try:
            lists[name] = language_list(given, sets)
        except InputError as error:
            problems += [f"{name}: {problem}" for problem in error.problems]
    if not problems:
        problems += _list_problems(lists)
    if problems:
        raise InputError(problems)
    (goal,) = lists["target"]
    notes = []
    if goal in lists["train"] + lists["zero_shot"] and not keep_target:
        notes.append(
            f"{goal} is the target language, so its recordings are their own translation: they "
            f"are left out; --keep-target-language keeps them"
        )
        lists = {name: tuple(c for c in codes if c != goal) for name, codes in lists.items()}
    if not lists["train"]:
        raise InputError("train_languages: found no language but the target, expected others too")
    return _Languages(lists["train"], lists["zero_shot"], goal), notes


def _list_problems(lists: dict[str, tuple[str, ...]]) -> list[str]:
    problems = []
    if len(lists["target"]) != 1:
        problems.append(f"target: found {len(lists['target'])} languages, expected one")
    if not lists["train"]:
        problems.append("train_languages: found no language, expected 'potsa' or a list")
    both = [locale for locale in lists["train"] if locale in lists["zero_shot"]]
    if both:
        problems.append(
            f"zero_shot: {', '.join(both)} is trained on too; zero-shot languages are those that "
            f"training never hears"
        )
    return problems


def _notes(parts: Sequence[Part], kept: Sequence[Kept]) -> list[str]:
    notes = []
    for part in parts:
        trouble = part.audio.is_file() and archives.index_of(part.audio).trouble
        if trouble:
            notes.append(f"{part.audio} is {trouble}: what it still has is used")
    trained = {recording.row.sentence for recording in kept if recording.split == "train"}
    for split in ("dev", "test"):
        tested = {recording.row.sentence for recording in kept if recording.split == split}
        if trained & tested:
            notes.append(
                f"{len(trained & tested)} of {len(tested)} sentences of {split} are sentences of "
                f"train too (such as id {min(trained & tested)}): scores on them are too good"
            )
    return notes


def _write(
    output: Path,
    languages: _Languages,
    kept: Sequence[Kept],
    dropped: Sequence[Dropped],
    notes: Sequence[str],
    built_with: Mapping[str, Any],
) -> FleursCorpus:
    manifests: dict[str, list[Kept]] = {name: [] for name, _, _ in languages.manifests()}
    for recording in kept:
        trained = recording.locale in languages.train
        manifests[recording.split if trained else "zero_shot"].append(recording)
    refuse_if_empty(manifests, dropped, list(manifests))
    for name, recordings in manifests.items():
        rows = [_utterance(recording, languages.target, output) for recording in recordings]
        write_manifest(output / f"{name}.jsonl", rows)
        mark_checked(output / f"{name}.jsonl")
    if not languages.zero_shot:
        (output / "zero_shot.jsonl").unlink(missing_ok=True)  # of a run with other languages
    lines = [json.dumps(dataclasses.asdict(entry), ensure_ascii=False) for entry in dropped]
    atomic_write(output / "dropped.jsonl", "".join(f"{line}\n" for line in lines))
    corpus = FleursCorpus(
        train=output / "train.jsonl",
        dev=output / "dev.jsonl",
        test=output / "test.jsonl",
        zero_shot=output / "zero_shot.jsonl" if languages.zero_shot else None,
        dropped=output / "dropped.jsonl",
        target_language=short_code(languages.target),
        dropped_by_reason=dict(Counter(entry.reason for entry in dropped).most_common()),
        left_out={
            name: fleurs_report.left_out(dropped, split, locales)
            for name, split, locales in languages.manifests()
        },
        notes=tuple(notes),
        **fleurs_report.counts(manifests, kept),
    )
    atomic_write(output / "summary.json", fleurs_report.as_json(corpus, built_with))
    return corpus


def _utterance(recording: Kept, target: str, output: Path) -> Utterance:
    language, row = short_code(recording.locale), recording.row
    return Utterance(
        key=f"{language}-{recording.split}-{row.sentence}-{Path(row.file).stem}",
        audio=_from(output, recording.audio),
        language=language,
        sentence_id=f"fleurs-{row.sentence}",
        transcript=row.text,
        target=recording.target,
        target_language=short_code(target),
        duration=round(recording.seconds, 4),
    )


def _from(output: Path, reference: str) -> str:
    """The reference in a manifest: relative where both lie in one folder, so that it can move."""
    output = Path(os.path.abspath(output))
    path, member = archives.split_reference(reference)
    if Path(path).is_relative_to(output.parent):
        path = Path(os.path.relpath(path, output)).as_posix()
    return path if member is None else f"{path}:{member}"
