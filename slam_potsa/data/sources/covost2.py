r"""CoVoST2: speech of Common Voice 4 with translations, English to 15 languages and 21 to English.

Its TSVs, `covost_v2.{src}_{tgt}.tsv`, hold names of clips, translations and splits; speech and
transcripts (`clips/`, `validated.tsv`) are Common Voice's.

`train_covost` (clips that Common Voice has outside its own splits) belongs to train unless
`train_splits` leaves it out; `dev_covost` and `test_covost` are left out, as CoVoST2's own script
get_covost_splits.py does. TSVs are read as that script reads them: quotation marks are ordinary
characters, a backslash escapes the next. Translations that its translators marked REMOVE, and those
of punctuation alone, are left out.

Source: Wang, Wu, Pino: CoVoST 2 and Massively Multilingual Speech-to-Text Translation (2020).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from slam_potsa.data.languages import short_code
from slam_potsa.data.manifest import Utterance, text_sentence_id
from slam_potsa.data.sources import corpus
from slam_potsa.data.sources.corpus import Corpus, Recording
from slam_potsa.errors import InputError

TRAIN_SPLITS = ("train", "train_covost")  # of CoVoST2: what its own script makes train of
LONGEST_LINE = 100_000  # characters
EXPECTED = "expected CoVoST2's covost_v2.{src}_{tgt}.tsv, as released"
_DIRECTION = re.compile(r"covost_v2\.([A-Za-z-]+)_([A-Za-z-]+)\.tsv")


def build(
    output: str | Path,
    *,
    common_voice_dir: str | Path,
    tsv: str | Path,
    train_splits: Sequence[str] = TRAIN_SPLITS,
    max_dropped: float = corpus.MOST,
    replace: bool = False,
    progress: bool = True,
) -> Corpus:
    """Write `output`/{train,dev,test}.jsonl, dropped.jsonl and summary.json.

    The options are those of `slam-potsa prepare covost2 --help`; `common_voice_dir` may also be the
    folder above the spoken language's.

    Raises InputError for files or options that do not fit, an `output` that was built with other
    choices, or no clip.
    """
    output, table = Path(output), Path(tsv)
    if not train_splits or not set(train_splits) <= set(TRAIN_SPLITS):
        found = ", ".join(train_splits) or "none"
        raise InputError(f"train_splits {found}: expected train, train_covost, or both")
    if not (direction := _DIRECTION.fullmatch(table.name)):
        raise InputError(f"{table}: the languages are not known; {EXPECTED}")
    codes = short_code(direction[1]), short_code(direction[2])
    release = _release_folder(Path(common_voice_dir), direction[1])
    choices = {
        "dataset": "covost2",
        "language": codes[0],
        "target_language": codes[1],
        "train_splits": sorted(train_splits),
        "source": [os.path.realpath(path) for path in (release, table)],
    }
    corpus.refuse_another(output, choices, replace)
    found = list_recordings(table, release, codes, train_splits)
    corpus.measure(found, output, progress=progress)
    return corpus.write(output, found, choices, max_dropped=max_dropped)


def _release_folder(folder: Path, language: str) -> Path:
    """Where clips/ is."""
    for candidate in (folder / language, folder):
        if (candidate / "clips").is_dir():
            return candidate
    raise InputError(
        f"{folder}: found no clips/ in it, nor in {folder / language}; expected Common Voice's "
        f"folder of the spoken language, unpacked, with clips/ and validated.tsv"
    )


def list_recordings(
    table: Path, release: Path, codes: tuple[str, str], train_splits: Sequence[str]
) -> list[Recording]:
    """One of each row, left out where the row, its clip or one of its texts cannot be used."""
    split_of = dict.fromkeys(train_splits, "train") | {"dev": "dev", "test": "test"}
    folder = (release / "clips").resolve()
    files = set(os.listdir(folder))
    rows = [
        (place, clip_name(path), target, split_of.get(split, corpus.OTHER))
        for place, (path, target, split) in read_tsv(table, ("path", "translation", "split"))
    ]
    wanted = {clip for _, clip, _, _ in rows}
    validated = read_tsv(release / "validated.tsv", ("path", "sentence"))
    said = {clip: text for _, (path, text) in validated if (clip := clip_name(path)) in wanted}
    recordings = []
    for place, clip, target, split in rows:
        transcript, there = said.get(clip), f"{clip}.mp3" in files
        reasons = {
            "of no split": split == corpus.OTHER,
            "not in validated.tsv": transcript is None,
            "transcript empty": transcript == "",
            "translation empty": target == "",
            "translation marked REMOVE": "REMOVE" in target,
            "translation without words": not any(map(str.isalnum, target)),
            "not UTF-8": "\ufffd" in f"{clip}{target}{transcript}",
            "clip missing": not there,
        }
        utterance = Utterance(
            key=clip,
            audio=f"{folder}/{clip}" + ".mp3" * there,
            language=codes[0],
            sentence_id=text_sentence_id(transcript or "", codes[0]),
            transcript=transcript,
            target=target,
            target_language=codes[1],
        )
        reason = next((reason for reason, holds in reasons.items() if holds), "")
        recordings.append(Recording(split, place, utterance, reason))
    return recordings


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(file:line, values of `columns`) of every row; runs of white space become one space, what a
    row does not have is empty, and what is not UTF-8 is U+FFFD.

    Raises InputError for a file that cannot be read or lacks a column.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device might never end
            raise OSError("it is a folder, a pipe or a device")
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            # What the csv module would refuse: it must not cost the other rows.
            lines = (line[:LONGEST_LINE].replace("\0", "\ufffd") for line in file)
            rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
            absent = [name for name in columns if name not in (rows.fieldnames or ())]
            if absent:
                raise InputError(f"{path}:1: found no column {', '.join(absent)}; {EXPECTED}")
            for row in rows:
                values = [" ".join((row[name] or "").split()) for name in columns]
                yield f"{path}:{rows.line_num}", values
    except (OSError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}; check the path") from None


def clip_name(path: str) -> str:
    """`common_voice_en_1.mp3`, `clips/common_voice_en_1` -> `common_voice_en_1`."""
    return PurePosixPath(path).name.removesuffix(".mp3")
