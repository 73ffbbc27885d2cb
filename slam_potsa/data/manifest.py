"""The manifest: JSON Lines, one recorded utterance a line. Reading, writing and checking it.

    {"key": "fr-hello", "audio": "audio/fr/hello.flac", "language": "fr", "sentence_id": "hello",
     "transcript": "Bonjour.", "target": "Hello.", "target_language": "en", "duration": 0.83}

`audio` is a path relative to the manifest's folder, or `archive.tar:member`; `duration` is in
seconds. The same `sentence_id` means the same meaning, in any language and as often as it was
recorded. `transcript`, `target`, `target_language` and `duration` may be left out, or be null,
where the task does not need them; `synthetic` says what of a row a machine made. Fields whose name
begins with `_` are the user's own.
`<manifest>.checked` is its record (`provenance`) once all its recordings were decoded.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from slam_potsa.data import jsonl
from slam_potsa.data.archives import split_reference
from slam_potsa.data.rows import (
    AT_ONCE,
    REQUIRED,
    VALID,
    Rows,
    Sentences,
    Utterance,
    column,
    heard,
    in_columns,
)
from slam_potsa.errors import InputError, each, placed
from slam_potsa.provenance import (
    content_hash,
    fingerprint,
    read_record,
    why_outdated,
    write_record,
)
from slam_potsa.text import MARKUP, table

EXPECTED = "a manifest: write one, or build one with `slam-potsa prepare`"
HAS_TARGET = (
    "found a translation, expected null: the language is one that joins (dataset_config.joining), "
    "which is for speech without text; take it out of the list, or null its targets"
)
DURATION_TOLERANCE = 0.1  # seconds between the manifest's duration and the file's, then a warning
HEX_DIGITS = 16  # of a sentence's hash, 64 bits: among 10^6, two collide with probability 3e-8


# Fields that another project's format always has and a manifest never; the first that fits.
TELLTALES = (
    ("lhotse", {"recording", "supervisions"}),
    ("ms_swift", {"messages"}),
    ("ms_swift", {"query", "response"}),
    ("nemo", {"audio_filepath"}),
    ("nemo", {"conversations"}),
    ("cot_st", {"prompt", "gt"}),
    ("slam_llm", {"source", "target"}),
)


def read_manifest(
    path: str | Path, *, needs: Sequence[str] = ("audio",), joining: Sequence[str] = ()
) -> Rows:
    """Read and validate every line of `path`; a file that did not change is read once a process.

    The utterances are made when they are asked for, from columns (`rows.Rows`).

    Args:
        needs: optional fields that this task cannot do without, such as `("audio", "target")`.
        joining: languages whose rows need audio alone, and must have no target but a model's.

    Raises:
        InputError: naming every bad line as `file:line: field 'x': found ..., expected ...`; of
            many, those of one kind once. Says so where it is another project's format.
    """
    path = Path(path)
    rows, numbers, found = _read(str(path), content_hash(path) if path.is_file() else "")
    problems = jsonl.Problems(path, found)
    joins = np.isin(column(rows, "language"), joining)
    for name in dict.fromkeys((*needs, "audio")):
        asked = (name in needs) & ~joins | (name == "audio") & joins
        for index in np.flatnonzero(rows.lacks(name) & asked):
            problems.wrong(numbers[index], name, None, VALID[name][1])
    made = np.array([what == "target" for what in column(rows, "synthetic")], bool)
    for index in np.flatnonzero(joins & ~rows.lacks("target") & ~made):
        problems.add(numbers[index], f"field 'target': {HAS_TARGET}")
    problems.check()
    return rows


@lru_cache(maxsize=8)
def _read(path: str, content: str) -> tuple[Rows, list[int], list[tuple[int, str]]]:
    """The rows, the number of each one's line, and what is wrong, with the numbers of lines too.

    `content` tells files apart that lay at the same path.
    """
    problems, tables, numbers, foreign = jsonl.Problems(path), [], [], None
    lines = jsonl.read_rows(path, problems, EXPECTED)
    while part := list(islice(lines, AT_ONCE)):
        foreign = foreign or (None if tables else foreign_format(part[0].values))
        part = [row for row in part if jsonl.check_fields(row, VALID, problems, REQUIRED)]
        tables.append(in_columns(part))
        numbers += [row.number for row in part]
    rows = Rows(pa.concat_tables(tables) if tables else in_columns([]))
    if len(rows.table["key"].unique()) < len(rows):
        for number, key in zip(numbers, column(rows, "key"), strict=True):
            problems.once(number, key)
    if problems.found and foreign:
        remedy = f"slam-potsa prepare convert {path} OUT.jsonl --from {foreign}"
        hint = f"{path}: these look like {foreign}'s fields: {remedy}"
        raise InputError([hint, *problems.texts()])
    if not len(rows) and not problems.found:
        raise InputError(f"{path}: found no utterance, expected one JSON object a line")
    return rows, numbers, problems.found


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write `utterances` in the order given, atomically; equal input gives equal bytes.

    Fields that are None are left out. Raises InputError, before anything is written, where
    `read_manifest` would refuse the file.
    """
    rows, problems = [], jsonl.Problems(f"{path} (not written)")
    for number, utterance in enumerate(utterances, start=1):
        values = {name: value for name, value in vars(utterance).items() if value is not None}
        jsonl.check_fields(jsonl.Row(number, values), VALID, problems, REQUIRED)
        problems.once(number, utterance.key)
        rows.append(values)
    problems.check()
    jsonl.write_rows(path, rows)


def text_sentence_id(text: str, language: str) -> str:
    """`<language>-<hash of the text>`: equal for texts that are read aloud the same.

    The text is taken in NFKC, without case, punctuation (unless it is nothing else) and repeated
    spaces. Marks are kept: in Tamil or Thai they are vowels, and dropping them would merge words.

    >>> text_sentence_id("She'll go.", "en") == text_sentence_id("“SHE’LL  go”", "en")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(" " if unicodedata.category(c)[0] in "PZC" else c for c in folded)
    normalised = " ".join(spaced.split()) or folded.strip()
    return f"{language}-{hashlib.sha256(normalised.encode()).hexdigest()[:HEX_DIGITS]}"


def foreign_format(row: Mapping[str, Any]) -> str | None:
    """The format of `slam-potsa prepare convert` that a line's object seems to be in."""
    name = next((name for name, fields in TELLTALES if fields <= row.keys()), None)
    if name == "cot_st" and jsonl.is_text(row["prompt"]) and row["prompt"].count("<|") > 1:
        return "llm_srt"  # the spoken language too
    return None if name == "slam_llm" and "audio" in row else name


class LanguageSummary(NamedTuple):
    """What a manifest holds in one language."""

    utterances: int
    seconds: float
    sentences: int  # distinct sentence_ids


class ManifestSummary(NamedTuple):
    """What a manifest holds."""

    languages: dict[str, LanguageSummary]  # by language code
    sentences: int  # in all languages together
    lonely: list[str]  # sentence_ids that are spoken in one language only, sorted
    warnings: list[str]  # of what trains, but maybe not as intended

    def table(self) -> str:
        """Text: language x utterances x hours x sentences, a total, then what lacks a partner."""
        count, seconds = (sum(own[n] for own in self.languages.values()) for n in (0, 1))
        shown = {**self.languages, "all": LanguageSummary(count, seconds, self.sentences)}
        rows = [(name, n, f"{s / 3600:.2f}", known) for name, (n, s, known) in shown.items()]
        last = f"{self.sentences - len(self.lonely)} sentences in two languages or more"
        if self.lonely:
            last += f"; {len(self.lonely)} in one language only, such as {self.lonely[0]!r}: give "
            last += "the same sentence_id to recordings of the same meaning, so that they can be "
            last += "aligned"
        head = ("language", "utterances", "hours", "sentences")
        return "\n".join([table(head, rows), *(f"warning: {w}" for w in self.warnings), last])


def check_manifest(
    path: str | Path,
    *,
    audio: bool = True,
    again: bool = True,
    progress: bool = False,
) -> ManifestSummary:
    """Read `path`, decode every recording, and sum it up.

    Args:
        audio: False: read the manifest only, whose field `duration` then gives the hours.
        again: False: do not decode again what is marked (`is_checked`).

    What was decoded without a problem is marked, where the manifest's folder can be written to.

    Raises:
        InputError: every bad line; then every recording that is missing, empty, truncated, silent,
            longer than 30 s, or no audio, each as `file: key 'k': ...`.
    """
    rows, warnings = read_manifest(path, needs=()), []
    spoken, said = np.flatnonzero(~rows.lacks("audio")), np.array(column(rows, "duration"), float)
    seconds, said = said[spoken], said[spoken]  # NaN where nothing is said
    if audio and (again or not is_checked(path)):
        read = content_hash(path)
        seconds = np.array(_measure(Path(path), rows, spoken.tolist(), progress))
        with suppress(OSError):
            mark_checked(path, read)
        for n in np.flatnonzero(np.abs(said - seconds) > DURATION_TOLERANCE).tolist():
            told = f"field 'duration' says {said[n]:g} s, its recording {seconds[n]:.2f} s"
            warnings.append(f"key {rows[int(spoken[n])].key!r}: {told}")
    elif not audio and np.isnan(said).any():
        warnings = ["some utterances have no duration, so the hours are too few"]
    known = Sentences(rows)
    own, sentences = known.language[spoken], Counter(known.spoken_languages)
    counts, lengths = np.bincount(own), np.bincount(own, np.nan_to_num(seconds))
    languages = {
        name: LanguageSummary(int(counts[place]), float(lengths[place]), sentences[place])
        for name, place in sorted((name, place) for place, name in enumerate(known.languages))
        if sentences[place]
    }
    lonely = [int(known.rows(number)[0]) for number in np.flatnonzero(known.spoken_in == 1)]
    lonely = sorted(rows[row].sentence_id for row in lonely)
    for what, count in Counter(heard(rows, "synthetic")).items():
        warnings += [f"{count:,} rows have {what} that a machine made"] * bool(what)
    for name in ("transcript", "target"):
        marked = [text for text in column(rows, name) if text and MARKUP.search(text)]
        told = f"{len(marked):,} rows have a {name} with what tokenizers may take for a token"
        warnings += [f"{told}, such as {jsonl.short(marked[0])}: take it out" for _ in marked[:1]]
    return ManifestSummary(languages, int((known.spoken_in > 0).sum()), lonely, warnings)


def _measure(path: Path, rows: Rows, heard: Sequence[int], progress: bool) -> list[float]:
    """Seconds of the recordings; InputError with every one that cannot be used."""
    from slam_potsa.data.audio import measure_audio

    def measure(row: int) -> float:
        utterance = rows[row]
        with placed(f"{path}: key {utterance.key!r}"):
            return measure_audio(utterance.audio, path.parent, duration=utterance.duration)

    # Threads: libsndfile does not hold the interpreter's lock.
    return [*each(measure, heard, progress=f"checking {path.name}" if progress else "").values()]


def mark_checked(path: str | Path, content: str | None = None) -> None:
    """Note in `<manifest>.checked` that all its recordings were decoded and can be used.

    Args:
        content: the manifest's `content_hash` when they were; None: what it has now.

    Raises OSError where its folder cannot be written to.
    """
    made_from = {"manifest": content or content_hash(path), "recordings": recordings_hash(path)}
    write_record(f"{path}.checked", made_from, notes={"state": _recordings_state(path)})


def is_checked(path: str | Path) -> bool:
    """Whether the recordings that the manifest names now were decoded before (`mark_checked`)."""
    if not Path(path).is_file() or not Path(f"{path}.checked").is_file():
        return False
    now = {"manifest": content_hash(path), "recordings": recordings_hash(path)}
    return not why_outdated(f"{path}.checked", now)


def recordings_hash(path: str | Path) -> str:
    """A hash of the content of all recordings of a manifest, of archives as a whole.

    They are read where their sizes or times are not those of `<manifest>.checked`.
    """
    record, files = read_record(f"{path}.checked"), _recordings(path)
    if record and record.notes.get("state") == _recordings_state(path):
        return str(record.made_from.get("recordings"))
    found = each(lambda name: content_hash(name) if os.path.isfile(name) else "", files.values())
    return fingerprint(recordings={name: found[file] for name, file in files.items()})


def _recordings_state(path: str | Path) -> str:
    state = hashlib.sha256()
    for name, file in _recordings(path).items():
        with suppress(OSError):
            found = os.stat(file)
            state.update(f"{name}\n{found.st_size} {found.st_mtime_ns}\n".encode())
    return state.hexdigest()


def _recordings(path: str | Path) -> dict[str, str]:
    """Where the files are that a manifest names."""
    audio = read_manifest(path, needs=()).table["audio"].drop_null().unique().to_pylist()
    names = {split_reference(reference)[0] for reference in audio}
    return {name: os.path.join(Path(path).parent, name) for name in sorted(names)}


def manifest_hash(manifests: Iterable[str | Path]) -> str:
    """A hash of the manifests' content, in this order: what belongs to them is known by it."""
    return fingerprint(manifests=[content_hash(manifest) for manifest in manifests])
