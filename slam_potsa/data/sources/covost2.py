r"""CoVoST2: speech of Common Voice 4 with translations, English to 15 languages and 21 to English.

Its TSVs hold names of clips, translations and splits; speech and transcripts are Common Voice's.
Two layouts are understood:

    covost_v2.{src}_{tgt}.tsv              as released: path, translation, split; the transcripts
                                           come from Common Voice's validated.tsv
    covost_v2.{src}_{tgt}.{split}.tsv      as CoVoST2's get_covost_splits.py writes them: path,
                                           sentence, translation, client_id

`train_covost` (clips that Common Voice has outside its own splits) belongs to train unless
`train_splits` leaves it out; `dev_covost` and `test_covost` are left out, as that script does. The
view `asr` needs no translations and also works from Common Voice's own three TSVs. They are read as
that script reads them: quotation marks are ordinary characters, a backslash escapes the next.

Source: Wang, Wu, Pino: CoVoST 2 and Massively Multilingual Speech-to-Text Translation (2020).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from slam_potsa.data.audio import MAX_SECONDS
from slam_potsa.data.jsonl import Problems
from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance, text_sentence_id
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError, each

SECONDS = (0.3, MAX_SECONDS)  # the lower bound is ours: shorter clips hold no sentence
SPLITS = ("train", "dev", "test")
TRAIN_SPLITS = ("train", "train_covost")  # of CoVoST2: what its own script makes train of
OTHER = "other"  # the manifest of rows that belong to none
SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus")  # Common Voice's first, then conversions
EXPECTED = (
    "expected CoVoST2's covost_v2.{src}_{tgt}.tsv, or the covost_v2.{src}_{tgt}.{split}.tsv that "
    "its get_covost_splits.py writes"
)
_DIRECTION = re.compile(r"covost(?:_v2)?\.([A-Za-z-]+)_([A-Za-z-]+)(?:\.[a-z]+)?\.tsv")


class Row(NamedTuple):
    """One row of the TSVs."""

    place: str  # file:line
    clip: str  # without suffix
    split: str
    transcript: str | None  # None: Common Voice has no such clip
    target: str | None = None


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
) -> Corpus:
    """Write `output`/{train,dev,test}.jsonl, dropped.jsonl and summary.json.

    The options are those of `slam-potsa prepare covost2 --help`; `common_voice_dir` may also be the
    folder above the spoken language's.

    Raises InputError for files or options that do not fit, an `output` that was built with other
    choices, every malformed row of the TSVs, or no clip.
    """
    output, tables = Path(output), [Path(path) for path in tsv]
    if not train_splits or not set(train_splits) <= set(TRAIN_SPLITS):
        found = ", ".join(train_splits) or "none"
        raise InputError(f"train_splits {found}: expected train, train_covost, or both")
    source, target = direction(tables, Path(common_voice_dir), language, target_language)
    if view == "s2tt" and not (tables and target):
        option = "--target-language" if tables else "--tsv"
        raise InputError(f"view 's2tt' needs translations: give {option}; {EXPECTED}")
    codes = short_code(source), short_code(target) if view == "s2tt" else None
    release = _release_folder(Path(common_voice_dir), source, clips)
    folder = (Path(clips) if clips else release / "clips").resolve()
    choices = {
        "dataset": "covost2",
        "language": codes[0],
        "target_language": codes[1],
        "view": view,
        "train_splits": sorted(train_splits),
        "source": [os.path.realpath(path) for path in (release, *sorted(tables))],
    }
    corpus.refuse_another(output, choices, replace)
    files = list_clips(folder)
    rows = _read_tables(tables, release, view, train_splits)
    found = [_recording(row, codes, folder, files) for row in rows]
    corpus.keep_first(found)
    if check_audio == "full":
        corpus.measure(found, output, progress=progress)
        corpus.keep_length(found, *SECONDS)
    return corpus.write(output, found, choices, checked=check_audio == "full")


def direction(
    tables: Sequence[Path], common_voice_dir: Path, language: str | None, target: str | None
) -> tuple[str, str | None]:
    """(spoken, target language) as the files write them, such as ("en", "zh-CN")."""
    found = {match.groups() for path in tables if (match := _DIRECTION.fullmatch(path.name))}
    if len(found) > 1:
        names = ", ".join(sorted("_".join(pair) for pair in found))
        raise InputError(f"the TSVs are of several directions ({names}); give one at a time")
    # Common Voice names its folders by language: cv-corpus-4/en.
    named = (None if tables else common_voice_dir.resolve().name, None)
    source, named_target = next(iter(found), named)
    if not (language or source):
        raise InputError(f"the spoken language is not known: give --language; {EXPECTED}")
    return language or source, target or named_target


def _release_folder(folder: Path, source: str, clips: str | Path | None) -> Path:
    """Where clips/ is, or, with clips elsewhere, validated.tsv."""
    if clips and not Path(clips).is_dir():
        raise InputError(f"{clips}: no such folder of clips")
    sign = "validated.tsv" if clips else "clips"
    for candidate in (folder / source, folder):
        if (candidate / sign).exists():
            return candidate
    raise InputError(
        f"{folder}: found no {sign!r} in it, nor in {folder / source}; expected Common Voice's "
        f"folder of the spoken language, unpacked, with clips/ and validated.tsv"
    )


def _read_tables(
    tables: Sequence[Path], release: Path, view: str, train_splits: Sequence[str]
) -> list[Row]:
    """Rows of all TSVs. Without `tables` they are Common Voice's own, without train_covost."""
    together = TRAIN_SPLITS if tables else ("train",)  # in one file
    split_of = dict.fromkeys(train_splits, "train") | {"dev": "dev", "test": "test"}

    def read(table: Path) -> list[Row]:
        split, rows = table.name.removesuffix(".tsv").rsplit(".")[-1], []
        released = split not in SPLITS  # else its name says the split, and it has transcripts
        if not released and not set(train_splits) >= set(together):
            raise InputError(
                f"{table}: does not tell train from train_covost, so --train-splits "
                f"{','.join(train_splits)} cannot be chosen; give the released file with its "
                "column 'split', or leave --train-splits out"
            )
        columns = ["path", "split" if released else "sentence"]
        columns += ["translation"] * (view == "s2tt")
        for place, (path, second, *target) in read_tsv(table, columns):
            told = (split_of.get(second, OTHER), None) if released else (split, second)
            rows.append(Row(place, clip_name(path), *told, *target))
        return rows

    files = tables or [release / f"{split}.tsv" for split in SPLITS]
    rows = [row for part in each(read, files).values() for row in part]
    wanted = {row.clip for row in rows if row.transcript is None}
    names = ["path", "sentence"]
    validated = read_tsv(release / "validated.tsv", names) if wanted else ()
    said = {clip: text for _, (path, text) in validated if (clip := clip_name(path)) in wanted}
    return [r._replace(transcript=said.get(r.clip)) if r.clip in wanted else r for r in rows]


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(file:line, values of `columns`) of every row; runs of white space become one space.

    Raises InputError for a file that cannot be read or lacks a column, at once; for every malformed
    row, at the end. Rows may lack columns at their end that are not asked for.
    """
    problems = Problems(path)
    try:
        # replace: a byte that is not UTF-8 spoils its row and not the whole file.
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
            absent = [name for name in columns if name not in (rows.fieldnames or ())]
            if absent:
                raise InputError(f"{path}:1: found no column {', '.join(absent)}; {EXPECTED}")
            for row in rows:
                values = [row[name] for name in columns]
                if None in values or None in row:
                    problems.add(rows.line_num, f"expected {len(rows.fieldnames)} fields")
                elif "\ufffd" in "".join(values):
                    problems.add(rows.line_num, "found bytes that are not UTF-8")
                else:
                    place = f"{path}:{rows.line_num}"
                    yield place, [" ".join(value.split()) for value in values]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    except csv.Error as error:  # such as a field of more than 128 KiB: nothing after it is read
        problems.add(rows.line_num, str(error))
    problems.check()


def clip_name(path: str) -> str:
    """`common_voice_en_1.mp3`, `clips/common_voice_en_1` -> `common_voice_en_1`."""
    name = PurePosixPath(path)
    return name.stem if name.suffix.lower() in SUFFIXES else name.name


def list_clips(folder: Path) -> dict[str, str]:
    """{clip name: file name} of a folder of recordings, read once; mp3 goes before conversions."""
    found: dict[str, str] = {}
    names = [name for name in os.listdir(folder) if Path(name).suffix.lower() in SUFFIXES]
    for name in sorted(names, key=lambda name: SUFFIXES.index(Path(name).suffix.lower())):
        found.setdefault(Path(name).stem, name)
    return found


def _recording(
    row: Row, codes: tuple[str, str | None], folder: Path, files: Mapping[str, str]
) -> Recording:
    """Left out where the row, its clip or one of its texts cannot be used."""
    utterance = Utterance(
        key=row.clip,
        audio=f"{folder}/{files.get(row.clip, row.clip)}",
        language=codes[0],
        sentence_id=text_sentence_id(row.transcript or "", codes[0]),
        transcript=row.transcript,
        target=row.target,
        target_language=codes[1],
    )
    recording = Recording(row.split, row.place, utterance)
    reasons = {
        "of no split": row.split == OTHER,
        "not in validated.tsv": row.transcript is None,
        "transcript empty": row.transcript == "",
        "translation empty": row.target == "",
        "clip missing": row.clip not in files,
    }
    recording.reason = next((reason for reason, holds in reasons.items() if holds), "")
    return recording
