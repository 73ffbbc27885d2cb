"""CoVoST2's TSVs as rows: which clip says what, in which split, and which rows cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slam_potsa.data.languages import short_code
from slam_potsa.data.sources import common_voice
from slam_potsa.errors import InputError

SPLITS = ("train", "dev", "test")
# What becomes train. train_covost: clips that Common Voice has outside its own splits. CoVoST2's
# script takes both, and leaves dev_covost and test_covost out.
TRAIN_SPLITS = ("train", "train_covost")
OTHER = "other"  # the split of rows that belong to none
EXPECTED = (
    "expected CoVoST2's covost_v2.{src}_{tgt}.tsv, or the covost_v2.{src}_{tgt}.{split}.tsv that "
    "its get_covost_splits.py writes"
)
_FILE_NAME = re.compile(
    r"covost(_v2)?\.(?P<source>[A-Za-z-]+)_(?P<target>[A-Za-z-]+)(\.(?P<split>train|dev|test))?\.tsv"
)


@dataclass(frozen=True)
class Row:
    """One row of the TSVs; `drop` says why it cannot be used."""

    split: str
    clip: str  # without suffix
    transcript: str
    target: str | None
    place: str  # file:line
    file: str = ""  # name in the folder of clips
    seconds: float | None = None
    drop: str = ""
    detail: str = ""


def direction(
    tables: Sequence[Path], common_voice_dir: Path, language: str | None, target: str | None
) -> tuple[str, str | None]:
    """(spoken, target language) as the files write them, such as ("en", "zh-CN")."""
    found = {
        match.group("source", "target")
        for match in (_FILE_NAME.fullmatch(path.name) for path in tables)
        if match
    }
    if len(found) > 1:
        names = ", ".join(sorted("_".join(pair) for pair in found))
        raise InputError(f"the TSVs are of several directions ({names}); give one at a time")
    named_source, named_target = found.pop() if found else (None, None)
    if not tables and not language:
        named_source = _language_of_folder(common_voice_dir)
    language = language or named_source
    if language is None:
        raise InputError(f"the spoken language is not known: give --language; {EXPECTED}")
    return language, target or named_target


def _language_of_folder(folder: Path) -> str | None:
    """Common Voice names its folders by language: `cv-corpus-4/en`."""
    try:
        short_code(folder.resolve().name)
    except InputError:
        return None
    return folder.resolve().name


def read_rows(
    tables: Sequence[Path],
    release: Path,
    view: str,
    train_splits: Sequence[str] = TRAIN_SPLITS,
) -> list[Row]:
    """Rows of all TSVs. Problems of all of them are raised together.

    Without `tables` they are Common Voice's own, which have no train_covost.
    """
    own = not tables
    if not tables:
        tables = [release / f"{split}.tsv" for split in SPLITS]
    parts, problems = [], []
    for table in tables:
        try:
            parts.append(list(_read_table(table, release, view, train_splits, own)))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return _without_repetitions(row for part in parts for row in part)


def _read_table(
    table: Path, release: Path, view: str, train_splits: Sequence[str], own: bool
) -> Iterable[Row]:
    header = common_voice.read_header(table)
    if "split" in header:
        yield from _released(table, release / "validated.tsv", view, train_splits)
        return
    # Common Voice's own files are `train`; those of CoVoST2's script have both in one.
    if not ("train" in train_splits if own else set(train_splits) == set(TRAIN_SPLITS)):
        raise InputError(
            f"{table}: does not tell train from train_covost, so --train-splits "
            f"{','.join(train_splits)} cannot be chosen; give the released file with its column "
            "'split', or leave --train-splits out"
        )
    match = _FILE_NAME.fullmatch(table.name)
    split = match["split"] if match else table.name.removesuffix(".tsv").rsplit(".")[-1]
    if split not in SPLITS:
        raise InputError(f"{table}: has no column 'split' and its name no split; {EXPECTED}")
    columns = ["path", "sentence"] + ["translation"] * (view == "s2tt")
    for line, (path, sentence, *target) in common_voice.read_tsv(table, columns):
        place = f"{table}:{line}"
        yield _checked(
            Row(split, common_voice.clip_name(path), sentence, *(target or [None]), place)
        )


def _released(
    table: Path, validated: Path, view: str, train_splits: Sequence[str]
) -> Iterable[Row]:
    """CoVoST2's released file, joined with Common Voice's transcripts by the name of the clip."""
    wanted = list(common_voice.read_tsv(table, ["path", "translation", "split"]))
    split_of = dict.fromkeys(train_splits, "train") | {"dev": "dev", "test": "test"}
    names = {common_voice.clip_name(path) for _, (path, _, _) in wanted}
    sentences = {}
    for _, (path, sentence) in common_voice.read_tsv(validated, ["path", "sentence"]):
        name = common_voice.clip_name(path)
        if name in names:
            sentences[name] = sentence
    for line, (path, target, split) in wanted:
        name = common_voice.clip_name(path)
        row = Row(
            split=split_of.get(split, OTHER),
            clip=name,
            transcript=sentences.get(name, ""),
            target=target if view == "s2tt" else None,
            place=f"{table}:{line}",
        )
        if split not in split_of:
            yield replace(row, drop="of no split", detail=f"split {split!r}")
        elif name not in sentences:
            yield replace(row, drop="not in validated.tsv")
        else:
            yield _checked(row)


def _checked(row: Row) -> Row:
    if not row.transcript:
        return replace(row, drop="transcript empty")
    if row.target == "":
        return replace(row, drop="translation empty")
    return row


def _without_repetitions(rows: Iterable[Row]) -> list[Row]:
    """The first usable row of a clip stays: keys are unique over all splits."""
    kept, first = [], {}
    for row in rows:
        if not row.drop and row.clip in first:
            row = replace(row, drop="clip repeated", detail=f"first in {first[row.clip]}")
        elif not row.drop:
            first[row.clip] = row.place
        kept.append(row)
    return kept
