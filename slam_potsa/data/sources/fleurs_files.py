"""FLEURS as it is published: where its files are, what a TSV says, fetching what is needed.

    data/{locale}/{train,dev,test}.tsv          no header; tab-separated: id, file name, raw
                                                transcription, transcription, characters, samples,
                                                gender
    data/{locale}/audio/{split}.tar.gz          members {split}/{file name}; or a folder
    data/{locale}/audio/{split}/{file name}     with the same files

`id` is a sentence, the same in every language; it has one to three recordings a language.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slam_potsa.errors import InputError

REPOSITORY = "google/fleurs"  # on the Hugging Face hub, a data set
SPLITS = ("train", "dev", "test")
COLUMNS = 7
ARCHIVES = (".tar.gz", ".tgz", ".tar")
TWICE = "listed twice"  # the reason of a line that is no further recording
LAYOUT = (
    "data/<locale>/<split>.tsv and data/<locale>/audio/<split>.tar.gz (or the folder audio/<split>)"
)
REMEDY = (
    f"expected the layout of the data set {REPOSITORY}: {LAYOUT}; give its folder, or fetch the "
    f"files with --hub"
)


@dataclass(frozen=True)
class Row:
    """One recording, as a TSV lists it."""

    sentence: int  # FLEURS' `id`
    file: str
    text: str  # the raw transcription: capitals and punctuation as written


@dataclass(frozen=True)
class Dropped:
    """A recording that is left out, or a line that is no recording, and why."""

    locale: str
    split: str
    id: int | None
    file: str | None
    reason: str  # one of a few, to be counted
    detail: str  # what was found


@dataclass(frozen=True)
class Part:
    """One split of one language: its rows, and where its recordings are."""

    locale: str
    split: str
    tsv: Path
    rows: list[Row]
    audio: Path | None = None  # an archive or a folder; None: only the text is needed

    @property
    def name(self) -> str:
        return f"{self.locale}-{self.split}"


def find_root(source: str | Path) -> Path:
    """The folder that holds the locales.

    `source`, its `data/`, or those of the newest snapshot where `source` is the hub's cache of the
    data set (`datasets--google--fleurs`, with snapshots/<revision>/data/). Raises InputError.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; {REMEDY}")
    for folder in (source, *_snapshots(source)):
        for candidate in (folder / "data", folder):
            if any(candidate.glob("*_*/*.tsv")):
                return candidate
    if _has_converted_files(source):
        raise InputError(
            f"{source}: these are converted parquet files; the original TSVs and archives are "
            f"needed: --hub, or a folder with {LAYOUT}"
        )
    raise InputError(f"{source}: found no <locale>/<split>.tsv in it or in its data/; {REMEDY}")


def _snapshots(source: Path) -> list[Path]:
    """Those of the hub's cache, newest first."""
    found = [path for path in source.glob("snapshots/*") if path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _has_converted_files(source: Path) -> bool:
    # No deeper than a cache has them, snapshots/<revision>/data/<locale>: a walk may take hours.
    return any(any(source.glob("*/" * depth + "*.parquet")) for depth in range(6))


def read_parts(
    root: Path, wanted: Iterable[tuple[str, str, bool]]
) -> tuple[list[Part], list[Dropped]]:
    """Read the TSVs of `wanted`: (locale, split, whether the recordings are needed too).

    Returns the parts, and the lines that are no recording.

    Raises InputError with everything that is missing or no TSV of FLEURS.
    """
    wanted = list(wanted)
    problems = _missing(root, wanted)
    parts, dropped = [], []
    for locale, split, needs_audio in wanted:
        tsv, folder = root / locale / f"{split}.tsv", root / locale / "audio"
        if not tsv.is_file():
            continue
        try:
            rows, bad = read_tsv(tsv, locale, split)
        except InputError as error:
            problems += error.problems
            continue
        if needs_audio and not _has_audio(folder, split):
            continue
        audio = find_audio(folder, split, rows) if needs_audio else None
        parts.append(Part(locale, split, tsv, rows, audio))
        dropped += bad
    if problems:
        raise InputError(problems)
    return parts, dropped


def _missing(root: Path, wanted: Sequence[tuple[str, str, bool]]) -> list[str]:
    """The layout once, then a problem for each kind of file and split: the locales without it."""
    locales: dict[str, list[str]] = {}
    for locale, split, needs_audio in wanted:
        if not (root / locale / f"{split}.tsv").is_file():
            locales.setdefault(f"{split}.tsv", []).append(locale)
        if needs_audio and not _has_audio(root / locale / "audio", split):
            locales.setdefault(f"audio/{split}.tar.gz", []).append(locale)
    if not locales:
        return []
    count = sum(map(len, locales.values()))
    return [
        f"{root}: {count} {'file is' if count == 1 else 'files are'} missing; {REMEDY}; fewer "
        f"languages: --train-languages, --zero-shot",
        *(
            f"{split}: no {name} of {', '.join(found)}"
            for split in SPLITS
            for name, found in locales.items()
            if name in (f"{split}.tsv", f"audio/{split}.tar.gz")
        ),
    ]


def read_tsv(path: Path, locale: str, split: str) -> tuple[list[Row], list[Dropped]]:
    """The recordings of one TSV, and its lines that cannot be used.

    A file listed twice is kept once: with the first line's sentence.

    Raises InputError where the file is missing, or most of its lines are not FLEURS'.
    """
    try:
        # Not csv, and not splitlines(): quotation marks and U+2028 are part of the texts.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {REMEDY}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a TSV in UTF-8: {error}") from None
    rows: dict[str, Row] = {}
    dropped = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found = _parse(line)
        if isinstance(found, Row) and found.file not in rows:
            rows[found.file] = found
            continue
        reason, detail = ("malformed row", found)
        if isinstance(found, Row):
            reason, detail = TWICE, f"first as id {rows[found.file].sentence}"
        dropped.append(
            Dropped(
                locale,
                split,
                found.sentence if isinstance(found, Row) else None,
                found.file if isinstance(found, Row) else None,
                reason,
                f"line {number}: {detail}",
            )
        )
    malformed = [entry for entry in dropped if entry.reason == "malformed row"]
    if len(malformed) >= max(1, len(rows)):
        raise InputError(
            f"{path}: not a TSV of FLEURS: {len(malformed)} of {len(malformed) + len(rows)} lines "
            f"are malformed ({malformed[0].detail}); {REMEDY}"
        )
    if not rows:
        raise InputError(f"{path}: lists no recording; {REMEDY}")
    return list(rows.values()), dropped


def _parse(line: str) -> Row | str:
    """The row, or what is wrong with it."""
    columns = line.rstrip("\r").split("\t")
    if len(columns) != COLUMNS:
        return f"found {len(columns)} columns, expected {COLUMNS}"
    sentence, file, text = (column.strip() for column in columns[:3])
    if not sentence.isdecimal():
        return f"found id {sentence[:40]!r}, expected a whole number"
    if not file or "/" in file:
        return f"found file name {file[:40]!r}, expected one without folders"
    if not text:
        return "found no raw transcription"
    return Row(int(sentence), file, " ".join(text.split()))


def find_audio(folder: Path, split: str, rows: list[Row]) -> Path:
    """The folder `split`, where it has every file or there is no archive; else the archive.

    An extraction that was interrupted leaves an incomplete folder beside its archive.
    """
    archive = _find_archive(folder, split)
    extracted = folder / split
    if extracted.is_dir():
        there = {path.name for path in extracted.iterdir()}
        if archive is None or there.issuperset(row.file for row in rows):
            return extracted
    if archive is None:
        missing = folder / f"{split}{ARCHIVES[0]}"
        raise InputError(f"{missing}: no such file, and no folder {extracted}; {REMEDY}")
    return archive


def _find_archive(folder: Path, split: str) -> Path | None:
    archives = (folder / f"{split}{suffix}" for suffix in ARCHIVES)
    return next((path for path in archives if path.is_file()), None)


def _has_audio(folder: Path, split: str) -> bool:
    return _find_archive(folder, split) is not None or (folder / split).is_dir()


def fetch(wanted: Sequence[tuple[str, str, bool]], revision: str | None = None) -> Path:
    """Fetch the files of `wanted`, as in `read_parts`, from the hub; the folder of the locales.

    Files that the hub's own cache holds are not fetched again; an interrupted file is continued.

    Raises InputError where a file cannot be had.
    """
    from huggingface_hub import hf_hub_download

    # The texts first: they are small, and a wrong revision shows at once.
    names = [f"data/{locale}/{split}.tsv" for locale, split, _ in wanted]
    names += [f"data/{locale}/audio/{split}.tar.gz" for locale, split, audio in wanted if audio]
    paths = []
    for name in names:
        try:
            paths.append(
                hf_hub_download(
                    repo_id=REPOSITORY, repo_type="dataset", filename=name, revision=revision
                )
            )
        except (OSError, ValueError) as error:  # huggingface_hub's own errors derive from these
            raise InputError(
                f"{REPOSITORY}: {name} cannot be fetched: {error}. Check the connection and "
                f"HF_HUB_OFFLINE, or get the data set by other means and give its folder"
            ) from None
    return Path(paths[0]).parents[1]
