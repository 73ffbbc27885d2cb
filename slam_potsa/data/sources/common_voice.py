"""Common Voice on disk: its TSV files, its folder of clips, and how long the clips are.

The TSVs are read as CoVoST2's own script reads them (facebookresearch/covost,
get_covost_splits.py): tab-separated, quotation marks are ordinary characters, and a backslash
escapes the character after it (the files that the script writes hold `\\"`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from slam_potsa.data.audio import measure_audio
from slam_potsa.errors import InputError

SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus")  # Common Voice's first, then conversions
MAX_HEADER = 10_000  # characters read of the first line: a file of another kind may have one only
BATCH = 512  # clips measured between two writes to the cache


def read_header(path: Path) -> list[str]:
    """The column names of a TSV. Raises InputError for a file that cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            return file.readline(MAX_HEADER).rstrip("\r\n").split("\t")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}; expected a TSV") from None


def read_tsv(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line number, values of `columns`) of every row; runs of white space become one space.

    Rows may lack columns at their end that are not asked for.

    Raises:
        InputError: a missing column, at once; every malformed row as `file:line: ...`, at the end.
    """
    header = read_header(path)
    absent = [name for name in columns if name not in header]
    if absent:
        raise InputError(
            f"{path}:1: expected the columns {', '.join(columns)}, separated by tabs; found "
            f"{', '.join(header)[:200]}, without {', '.join(absent)}"
        )
    places = [header.index(name) for name in columns]
    problems = []
    # surrogateescape: a byte that is not UTF-8 spoils its row and not the whole file.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        next(reader)
        for row in _rows(reader, path, problems):
            problem = _row_problem(row, header, places) if row else None
            if problem:
                problems.append(f"{path}:{reader.line_num}: {problem}")
            elif row:
                yield reader.line_num, tuple(" ".join(row[place].split()) for place in places)
    if problems:
        raise InputError(problems)


def _rows(reader, path: Path, problems: list[str]) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:  # such as a field of more than 128 KiB: nothing after it is read
        problems.append(f"{path}:{reader.line_num}: {error}; expected tab-separated lines")


def _row_problem(row: list[str], header: list[str], places: list[int]) -> str | None:
    remedy = "correct or delete the line, or download the file again"
    if len(row) > len(header) or len(row) <= max(places):
        return (
            f"found {len(row)} fields, expected {len(header)} ({', '.join(header)[:80]}); {remedy}"
        )
    if any("\ud800" <= character <= "\udfff" for place in places for character in row[place]):
        return f"found bytes that are not UTF-8; {remedy}"
    return None


def clip_name(path: str) -> str:
    """`common_voice_en_1.mp3`, `clips/common_voice_en_1` -> `common_voice_en_1`."""
    name = PurePosixPath(path).name
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def list_clips(folder: Path) -> dict[str, str]:
    """{clip name: file name} of a folder of recordings, read once; mp3 goes before conversions."""
    found: dict[str, str] = {}
    rank = {suffix: place for place, suffix in enumerate(SUFFIXES)}
    for path in folder.iterdir():
        suffix = path.suffix.lower()
        if suffix not in rank:
            continue
        other = found.get(path.stem)
        if other is None or rank[suffix] < rank[Path(other).suffix.lower()]:
            found[path.stem] = path.name
    return found


def measure_clips(
    folder: Path, files: Sequence[str], cache: Path, *, progress: bool = True
) -> dict[str, float | str]:
    """{file name: seconds, or why it cannot be read} of `files` in `folder`, every clip decoded.

    Results go to `cache` (JSON Lines) as they come, and what is there is not measured again, unless
    the file's size has changed: interrupt and repeat the call as you like.
    """
    from tqdm import tqdm

    results: dict[str, float | str] = {}
    known = _read_cache(cache)

    def measure(name: str) -> tuple[str, int, float | str, bool]:
        size = (folder / name).stat().st_size
        if (name, size) in known:
            return name, size, known[name, size], False
        try:
            return name, size, measure_audio(name, folder, max_seconds=None), True
        except InputError as error:
            return name, size, str(error), True

    cache.parent.mkdir(parents=True, exist_ok=True)
    with (
        ThreadPoolExecutor() as pool,
        open(cache, "a", encoding="utf-8") as log,
        tqdm(total=len(files), desc="measuring", unit="clip", disable=not progress) as bar,
    ):
        for start in range(0, len(files), BATCH):
            for name, size, result, new in pool.map(measure, files[start : start + BATCH]):
                results[name] = result
                if new:
                    row = {"clip": name, "bytes": size, "result": result}
                    log.write(json.dumps(row, ensure_ascii=False) + "\n")
                bar.update()
            log.flush()
    return results


def _read_cache(path: Path) -> dict[tuple[str, int], float | str]:
    """Measurements of an earlier call. A last line that an interruption cut off is cut away."""
    if not path.is_file():
        return {}
    known = {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    for line in whole.splitlines():
        try:
            row = json.loads(line)
            known[row["clip"], row["bytes"]] = row["result"]
        except (ValueError, KeyError, TypeError):
            continue  # not ours or damaged: the clip is measured again
    return known
