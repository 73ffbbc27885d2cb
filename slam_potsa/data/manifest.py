"""The manifest: JSON Lines, one recorded utterance a line. Reading, writing and checking it.

    {"key": "fr-hello", "audio": "audio/fr/hello.flac", "language": "fr", "sentence_id": "hello",
     "transcript": "Bonjour.", "target": "Hello.", "target_language": "en", "duration": 0.83}

`audio` is a path relative to the manifest's folder, or `archive.tar:member` (`.tar.gz` too);
`duration` is in seconds. The same `sentence_id` means the same meaning, in any language and as
often as it was recorded. `transcript`, `target`, `target_language` and `duration` may be left out,
or be null, where the task does not need them. Fields whose name begins with `_` are the user's own.
`<manifest>.checked` is its record (`provenance`) once all its recordings were decoded.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from slam_potsa.data.jsonl import MISSING, Problems, read_rows, write_rows
from slam_potsa.data.languages import language_id
from slam_potsa.errors import InputError
from slam_potsa.provenance import content_hash, why_outdated, write_record
from slam_potsa.text import table

REQUIRED = ("key", "audio", "language", "sentence_id")
EXPECTED = "a manifest: write one, or build one with `slam-potsa prepare`"
ONE_LANGUAGE = "one language only: join it with its partners before training"
DURATION_TOLERANCE = 0.1  # seconds between the manifest's duration and the file's, then a warning


@dataclass(frozen=True)
class Utterance:
    """One recording of one sentence; the fields are the manifest's."""

    key: str  # unique in the manifest; no tab or line break (prediction files are key<TAB>text)
    audio: str  # path relative to the manifest, or archive.tar[.gz]:member
    language: str  # spoken language, such as "fr"
    sentence_id: str  # the same string = the same meaning
    transcript: str | None = None  # what is said, in `language`
    target: str | None = None  # its translation, in `target_language`
    target_language: str | None = None
    duration: float | None = None  # seconds


FIELDS = tuple(field.name for field in fields(Utterance))


# Fields that another project's format always has and a manifest never; the first that fits.
TELLTALES = {
    "lhotse": {"recording", "supervisions"},
    "ms_swift": {"messages"},
    "nemo": {"audio_filepath"},
    "cot_st": {"prompt", "gt"},
    "slam_llm": {"source", "target"},
}


def read_manifest(path: str | Path, *, needs: Sequence[str] = ()) -> list[Utterance]:
    """Read and validate every line of `path`; a file that did not change is read once a process.

    Args:
        needs: optional fields that this task cannot do without, such as `("target",)`.

    Raises:
        InputError: naming every bad line as `file:line: field 'x': found ..., expected ...`; of
            many, those of one kind once. Says so where it is another project's format.
    """
    unknown = [name for name in needs if name not in FIELDS]
    if unknown:
        raise InputError(f"needs={unknown}: expected names among {', '.join(FIELDS)}")
    known = _known(str(path), _content(path))
    if known is None or any(getattr(row, name) is None for name in needs for row in known):
        return list(_read(Path(path), needs))  # which says what is wrong
    return list(known)


def _content(path: str | Path) -> str:
    try:
        return content_hash(path)
    except OSError:
        return ""


@lru_cache(maxsize=8)
def _known(path: str, content: str) -> tuple[Utterance, ...] | None:
    try:
        return _read(Path(path))
    except InputError:
        return None


def _read(path: Path, needs: Sequence[str] = ()) -> tuple[Utterance, ...]:
    problems, utterances = Problems(path), []
    rows = read_rows(path, problems, EXPECTED)
    for number, values in rows:
        before = len(problems)
        check_row(values, problems, number, needs=needs)
        if len(problems) == before:
            problems.once(number, values["key"])
            present = {name: values[name] for name in FIELDS if values.get(name) is not None}
            utterances.append(Utterance(**present))
    if problems:
        bad = [values for number, values in rows if number in problems.lines]
        raise InputError([*_foreign_hint(path, bad), *problems.texts()])
    if not utterances:
        raise InputError(f"{path}: found no utterance, expected one JSON object a line")
    return tuple(utterances)


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write `utterances` in the order given, atomically; equal input gives equal bytes.

    Fields that are None are left out. Raises InputError, before anything is written, where
    `read_manifest` would refuse the file.
    """
    rows, problems = [], Problems(f"{path} (not written)")
    for number, utterance in enumerate(utterances, start=1):
        row = {name: value for name, value in asdict(utterance).items() if value is not None}
        check_row(row, problems, number)
        problems.once(number, utterance.key)
        rows.append(row)
    problems.check()
    write_rows(path, rows)


def check_row(
    values: Mapping[str, Any],
    problems: Problems,
    number: int,
    *,
    required: Sequence[str] = REQUIRED,
    needs: Sequence[str] = (),
) -> None:
    """Note what is wrong with one line's object; `needs` as in `read_manifest`."""
    for name in FIELDS:
        value = values.get(name)
        if value is None:
            if name in required or name in needs:
                problems.wrong(number, name, values.get(name, MISSING), _EXPECTED[name])
        elif not _VALID[name](value):
            problems.wrong(number, name, value, _EXPECTED[name])
    for name in values:
        if name not in FIELDS and not name.startswith("_"):
            problems.add(
                number,
                f"field {name!r}: not known, expected one of {', '.join(FIELDS)} "
                f"(a field of your own begins with '_')",
                (name, "not known"),
            )


def foreign_format(row: Any) -> str | None:
    """The format of `slam-potsa prepare convert` that a line's object seems to be in."""
    if not isinstance(row, dict):
        return None
    for name, telling in TELLTALES.items():
        if telling <= row.keys():
            if name == "cot_st" and str(row["prompt"]).count("<|") > 1:
                return "llm_srt"  # the spoken language too
            return None if name == "slam_llm" and "audio" in row else name
    return None


def _foreign_hint(path: Path, rows: Sequence[Any]) -> list[str]:
    """What to do where the first of these rows is another format's."""
    name = foreign_format(rows[0]) if rows else None
    if name is None:
        return []
    return [
        f"{path}: these look like {name}'s fields: slam-potsa prepare convert {path} OUT.jsonl "
        f"--from {name}"
    ]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_one_line(value: object) -> bool:
    return _is_text(value) and not any(character in value for character in "\t\n\r")


def _is_language(value: object) -> bool:
    try:
        language_id(value)
    except InputError:
        return False
    return True


def _is_duration(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


_VALID: dict[str, Callable[[object], bool]] = {
    "key": _is_one_line,
    "audio": _is_text,
    "language": _is_language,
    "sentence_id": _is_one_line,
    "transcript": _is_one_line,
    "target": _is_one_line,
    "target_language": _is_language,
    "duration": _is_duration,
}
_ONE_LINE = "without tabs and line breaks"
_EXPECTED = {
    "key": f"a unique string {_ONE_LINE}",
    "audio": "a path relative to the manifest, or archive.tar:member (.tar.gz too)",
    "language": "a language code such as 'fr'",
    "sentence_id": f"a string {_ONE_LINE}, the same for the same meaning",
    "transcript": f"what is said, as a string {_ONE_LINE}",
    "target": f"the translation, as a string {_ONE_LINE}",
    "target_language": "a language code such as 'en'",
    "duration": "seconds, a number above 0",
}


@dataclass(frozen=True)
class LanguageSummary:
    """What a manifest holds in one language."""

    utterances: int
    seconds: float
    sentences: int  # distinct sentence_ids


@dataclass(frozen=True)
class ManifestSummary:
    """What a manifest holds; `warnings` are things that train, but maybe not as intended."""

    path: Path
    languages: dict[str, LanguageSummary]  # by language code
    sentences: int  # distinct sentence_ids over all languages
    parallel_sentences: int  # of these, spoken in two languages or more
    warnings: tuple[str, ...]

    def table(self) -> str:
        """Text: language x utterances x hours x sentences, a total, then the warnings."""
        parts = [*self.languages.values()]
        all_of_them = LanguageSummary(
            sum(part.utterances for part in parts),
            sum(part.seconds for part in parts),
            self.sentences,
        )
        rows = [
            (name, part.utterances, f"{part.seconds / 3600:.2f}", part.sentences)
            for name, part in [*self.languages.items(), ("all", all_of_them)]
        ]
        parallel = f"{self.parallel_sentences} sentences in two languages or more"
        lines = [table(("language", "utterances", "hours", "sentences"), rows)]
        lines.append(ONE_LANGUAGE if len(parts) == 1 else parallel)
        return "\n".join(lines + [f"warning: {warning}" for warning in self.warnings])


def check_manifest(
    path: str | Path,
    *,
    needs: Sequence[str] = (),
    audio: bool = True,
    pairs: bool = True,
    progress: bool = False,
) -> ManifestSummary:
    """Read `path`, decode every recording (unless `audio=False`), and sum it up.

    Args:
        pairs: warn of sentences without a partner; False where nothing is to be aligned.

    Hours come from the recordings, with `audio=False` from the field `duration`. What was decoded
    without a problem is marked (`mark_checked`), where the manifest's folder can be written to.

    Raises:
        InputError: every bad line; then every recording that is missing, empty, truncated, silent,
            longer than 30 s, or no audio, each as `file: key 'k': ...`.
    """
    path = Path(path)
    utterances = read_manifest(path, needs=needs)
    if audio:
        read = content_hash(path)
        seconds = _measure(path, utterances, progress)
        with suppress(OSError):
            mark_checked(path, read)
    else:
        seconds = [utterance.duration or 0.0 for utterance in utterances]
    alone = len({utterance.language for utterance in utterances}) == 1  # its table says so
    warnings = sentence_warnings(utterances) if pairs and not alone else []
    if audio:
        warnings += _duration_warnings(utterances, seconds)
    elif any(utterance.duration is None for utterance in utterances):
        warnings.append("some utterances have no duration, so the hours are too few")
    return _summary(path, utterances, seconds, warnings)


def mark_checked(path: str | Path, content: str | None = None) -> None:
    """Note in `<manifest>.checked` that all its recordings were decoded and can be used.

    Args:
        content: the manifest's `content_hash` when they were; None: what it has now.

    Raises OSError where its folder cannot be written to.
    """
    write_record(f"{path}.checked", {"manifest": content or content_hash(path)})


def is_checked(path: str | Path) -> bool:
    """Whether the recordings of the manifest, as it is now, were decoded before (`mark_checked`).

    Of the manifest only: a recording that was exchanged under the same name is not noticed.
    """
    return not why_outdated(f"{path}.checked", {"manifest": _content(path)})


def manifest_hash(manifests: Iterable[str | Path]) -> str:
    """SHA-256 of the manifests' bytes, in this order: what belongs to them is known by it."""
    digest = hashlib.sha256()
    for manifest in manifests:
        digest.update(Path(manifest).read_bytes())
    return digest.hexdigest()


def sentence_warnings(utterances: Sequence[Utterance]) -> list[str]:
    """What is to be said of sentences without a partner, where pairs are to be aligned."""
    spoken = _languages_of_sentences(utterances)
    lonely = sorted(sentence for sentence, languages in spoken.items() if len(languages) == 1)
    if not lonely:
        return []
    return [
        f"{len(lonely)} of {len(spoken)} sentences are spoken in one language only (such as "
        f"{lonely[0]!r}): they train cross-entropy but have no partner to be aligned with; "
        f"give the same sentence_id to recordings of the same meaning"
    ]


def _measure(path: Path, utterances: Sequence[Utterance], progress: bool) -> list[float]:
    """Seconds of each recording; InputError with every one that cannot be used."""
    from concurrent.futures import ThreadPoolExecutor

    from tqdm import tqdm

    from slam_potsa.data.audio import measure_audio

    def measure(utterance: Utterance) -> float | str:
        try:
            return measure_audio(utterance.audio, path.parent)
        except InputError as error:
            return f"{path}: key {utterance.key!r}: {error}"

    with ThreadPoolExecutor() as pool:  # libsndfile decodes without holding the interpreter's lock
        bar = {"desc": f"checking {path.name}", "unit": "file", "disable": not progress}
        results = list(tqdm(pool.map(measure, utterances), total=len(utterances), **bar))
    problems = [result for result in results if isinstance(result, str)]
    if problems:
        raise InputError(problems)
    return results


def _summary(
    path: Path, utterances: Sequence[Utterance], seconds: Sequence[float], warnings: Sequence[str]
) -> ManifestSummary:
    parts: dict[str, list[tuple[Utterance, float]]] = defaultdict(list)
    for utterance, length in zip(utterances, seconds, strict=True):
        parts[utterance.language].append((utterance, length))
    spoken = _languages_of_sentences(utterances)
    languages = {
        language: LanguageSummary(
            len(part),
            float(sum(length for _, length in part)),
            len({utterance.sentence_id for utterance, _ in part}),
        )
        for language, part in sorted(parts.items())
    }
    parallel = sum(len(languages) > 1 for languages in spoken.values())
    return ManifestSummary(path, languages, len(spoken), parallel, tuple(warnings))


def _languages_of_sentences(utterances: Sequence[Utterance]) -> dict[str, set[str]]:
    spoken: dict[str, set[str]] = defaultdict(set)
    for utterance in utterances:
        spoken[utterance.sentence_id].add(utterance.language)
    return spoken


def _duration_warnings(utterances: Sequence[Utterance], seconds: Sequence[float]) -> list[str]:
    return [
        f"key {utterance.key!r}: field 'duration' says {utterance.duration:g} s, the recording "
        f"has {length:.2f} s"
        for utterance, length in zip(utterances, seconds, strict=True)
        if utterance.duration is not None and abs(utterance.duration - length) > DURATION_TOLERANCE
    ]
