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
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from slam_potsa.data import jsonl
from slam_potsa.data.archives import COMPRESSED, split_reference
from slam_potsa.data.languages import CODE
from slam_potsa.errors import InputError, each, placed
from slam_potsa.provenance import (
    content_hash,
    fingerprint,
    read_record,
    why_outdated,
    write_record,
)
from slam_potsa.text import table

REQUIRED = ("key", "language", "sentence_id")
EXPECTED = "a manifest: write one, or build one with `slam-potsa prepare`"
HAS_TARGET = (
    "found a translation, expected null: the language is one that joins (dataset_config.joining), "
    "which is for speech without text; take it out of the list, or null its targets"
)
DURATION_TOLERANCE = 0.1  # seconds between the manifest's duration and the file's, then a warning
LONGEST_DURATION = 86_400  # seconds: what is longer is a mistake
LONGEST_PATH, LONGEST_NAME = 4_095, 255  # bytes, Linux's
HEX_DIGITS = 16  # of a sentence's hash, 64 bits: among 10^6, two collide with probability 3e-8


@dataclass(frozen=True)
class Utterance:
    """One recording of one sentence; the fields are the manifest's."""

    key: str  # unique in the manifest; no tab or line break (prediction files are key<TAB>text)
    audio: str | None  # path relative to the manifest, or archive.tar:member; None: text alone
    language: str  # spoken language, such as "fr"
    sentence_id: str  # the same string = the same meaning
    transcript: str | None = None  # what is said, in `language`
    target: str | None = None  # its translation, in `target_language`
    target_language: str | None = None
    duration: float | None = None  # seconds
    synthetic: str | None = None  # what a machine made of it: "target" or "audio"


FIELDS = tuple(field.name for field in fields(Utterance))


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
) -> list[Utterance]:
    """Read and validate every line of `path`; a file that did not change is read once a process.

    Args:
        needs: optional fields that this task cannot do without, such as `("audio", "target")`.
        joining: languages whose rows need audio alone, and must have no target but a model's.

    Raises:
        InputError: naming every bad line as `file:line: field 'x': found ..., expected ...`; of
            many, those of one kind once. Says so where it is another project's format.
    """
    path = Path(path)
    rows, found = _read(str(path), content_hash(path) if path.is_file() else "")
    problems = jsonl.Problems(path, found)
    for number, utterance in rows:
        joins = utterance.language in joining
        for name in ("audio",) if joins else needs:
            if getattr(utterance, name) is None:
                problems.wrong(number, name, None, VALID[name][1])
        if joins and utterance.target is not None and utterance.synthetic != "target":
            problems.add(number, f"field 'target': {HAS_TARGET}")
    problems.check()
    return [utterance for _, utterance in rows]


@lru_cache(maxsize=8)
def _read(path: str, content: str) -> tuple[list[tuple[int, Utterance]], list[tuple[int, str]]]:
    """The lines and what is wrong with them, each with its number.

    `content` tells files apart that lay at the same path.
    """
    problems, utterances = jsonl.Problems(path), []
    rows = jsonl.read_rows(path, problems, EXPECTED)
    for row in rows:
        values = dict.fromkeys(FIELDS) | row.values
        if jsonl.check_fields(row, VALID, problems, REQUIRED):
            problems.once(row.number, values["key"])
            # Equal to the eye, equal here: one file writes é as one character, another as two.
            values["sentence_id"] = unicodedata.normalize("NFC", values["sentence_id"]).strip()
        utterance = Utterance(**{name: values[name] for name in FIELDS})
        utterances.append((row.number, utterance))
    if problems.found and rows and (name := foreign_format(rows[0].values)):
        remedy = f"slam-potsa prepare convert {path} OUT.jsonl --from {name}"
        hint = f"{path}: these look like {name}'s fields: {remedy}"
        raise InputError([hint, *problems.texts()])
    if not rows and not problems.found:
        raise InputError(f"{path}: found no utterance, expected one JSON object a line")
    return utterances, problems.found


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


def _is_audio(value: object) -> bool:
    if not jsonl.is_line(value) or len(value.encode()) > LONGEST_PATH:
        return False
    path, member = split_reference(value)
    named = max(len(part.encode()) for part in path.split("/")) <= LONGEST_NAME
    return named and (member is None or not path.endswith(COMPRESSED))


def _is_language(value: object) -> bool:
    return jsonl.is_text(value) and bool(CODE.fullmatch(value))


def _is_duration(value: object) -> bool:
    return jsonl.is_number(value) and 0 < value <= LONGEST_DURATION


_ONE_LINE = "without tabs, line breaks and other control characters"
VALID: jsonl.Fields = {
    "key": (jsonl.is_line, f"a unique string {_ONE_LINE}"),
    "audio": (
        _is_audio,
        "a path that a file may have, relative to the manifest, or archive.tar:member, gunzipped",
    ),
    "language": (_is_language, "a language code such as 'fr'"),
    "sentence_id": (jsonl.is_line, f"a string {_ONE_LINE}, the same for the same meaning"),
    "transcript": (jsonl.is_line, f"what is said, as a string {_ONE_LINE}"),
    "target": (jsonl.is_line, f"the translation, as a string {_ONE_LINE}"),
    "target_language": (_is_language, "a language code such as 'en'"),
    "duration": (_is_duration, f"seconds, a number above 0, at most {LONGEST_DURATION:,}"),
    "synthetic": (lambda value: value in ("target", "audio"), "'target' or 'audio'"),
}


class LanguageSummary(NamedTuple):
    """What a manifest holds in one language."""

    utterances: int
    seconds: float
    sentences: int  # distinct sentence_ids


class ManifestSummary(NamedTuple):
    """What a manifest holds."""

    languages: dict[str, LanguageSummary]  # by language code
    partners: dict[str, set[str]]  # sentence_id -> the languages that it is spoken in
    warnings: list[str]  # of what trains, but maybe not as intended

    def table(self) -> str:
        """Text: language x utterances x hours x sentences, a total, then what lacks a partner."""
        count, seconds, _ = map(sum, zip(*self.languages.values(), strict=True))
        shown = {**self.languages, "all": LanguageSummary(count, seconds, len(self.partners))}
        rows = [(name, n, f"{s / 3600:.2f}", known) for name, (n, s, known) in shown.items()]
        lonely = sorted(name for name, languages in self.partners.items() if len(languages) == 1)
        last = f"{len(self.partners) - len(lonely)} sentences in two languages or more"
        if lonely:
            last += f"; {len(lonely)} in one language only, such as {lonely[0]!r}: give the same "
            last += "sentence_id to recordings of the same meaning, so that they can be aligned"
        head = ("language", "utterances", "hours", "sentences")
        return "\n".join([table(head, rows), *(f"warning: {w}" for w in self.warnings), last])


def check_manifest(
    path: str | Path,
    *,
    needs: Sequence[str] = (),
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
    utterances, warnings = read_manifest(path, needs=needs), []
    utterances = [utterance for utterance in utterances if utterance.audio]  # what can be heard
    seconds = [utterance.duration or 0.0 for utterance in utterances]
    if audio and (again or not is_checked(path)):
        read = content_hash(path)
        seconds = _measure(Path(path), utterances, progress)
        with suppress(OSError):
            mark_checked(path, read)
        warnings = [
            f"key {u.key!r}: field 'duration' says {u.duration:g} s, its recording {found:.2f} s"
            for u, found in zip(utterances, seconds, strict=True)
            if u.duration is not None and abs(u.duration - found) > DURATION_TOLERANCE
        ]
    elif not audio and any(utterance.duration is None for utterance in utterances):
        warnings = ["some utterances have no duration, so the hours are too few"]
    return _summary(utterances, seconds, warnings)


def _summary(
    utterances: Sequence[Utterance], seconds: Sequence[float], warnings: list[str]
) -> ManifestSummary:
    partners: dict[str, set[str]] = defaultdict(set)
    lengths: dict[str, list[float]] = defaultdict(list)  # by language
    for utterance, length in zip(utterances, seconds, strict=True):
        partners[utterance.sentence_id].add(utterance.language)
        lengths[utterance.language].append(length)
    sentences = Counter(language for languages in partners.values() for language in languages)
    own = {
        name: LanguageSummary(len(found), sum(found), sentences[name])
        for name, found in sorted(lengths.items())
    }
    made = Counter(u.synthetic for u in utterances if u.synthetic)
    told = [f"{count:,} rows have {what} that a machine made" for what, count in made.items()]
    return ManifestSummary(own, dict(partners), [*warnings, *told])


def _measure(path: Path, utterances: Sequence[Utterance], progress: bool) -> list[float]:
    """Seconds of each recording; InputError with every one that cannot be used."""
    from slam_potsa.data.audio import measure_audio

    def measure(utterance: Utterance) -> float:
        with placed(f"{path}: key {utterance.key!r}"):
            return measure_audio(utterance.audio, path.parent, duration=utterance.duration)

    # Threads: libsndfile does not hold the interpreter's lock.
    found = each(measure, utterances, progress=f"checking {path.name}" if progress else "")
    return [found[utterance] for utterance in utterances]


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
    states = {}
    for name, file in _recordings(path).items():
        with suppress(OSError):
            state = os.stat(file)
            states[name] = [state.st_size, state.st_mtime_ns]
    return fingerprint(recordings=states)


def _recordings(path: str | Path) -> dict[str, str]:
    """Where the files are that a manifest names."""
    names = {split_reference(u.audio)[0] for u in read_manifest(path, needs=()) if u.audio}
    return {name: os.path.join(Path(path).parent, name) for name in sorted(names)}


def manifest_hash(manifests: Iterable[str | Path]) -> str:
    """A hash of the manifests' content, in this order: what belongs to them is known by it."""
    return fingerprint(manifests=[content_hash(manifest) for manifest in manifests])
