"""What a data source leaves behind: manifests, what was left out of them and why, and counts.

A source lists its recordings, each with the utterance that is to be written; `measure` decodes
them, rules leave some of them out (no limit is a paper's), `write` makes a folder of the rest:

    train.jsonl, dev.jsonl, …     those that have recordings
    dropped.jsonl         a line for each recording that is in no manifest, with the reason
    summary.json          the counts
    measurements.jsonl    what decoding found, so that it is done once
    made_from.json        the choices that the folder was built with (slam_potsa/provenance.py)
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from slam_potsa.data import manifest
from slam_potsa.data.archives import split_reference
from slam_potsa.data.audio import MAX_DECODED, measure_audio
from slam_potsa.data.jsonl import Log, Problems, Row, check_fields, write_rows
from slam_potsa.data.manifest import Utterance
from slam_potsa.errors import InputError, each, refuse
from slam_potsa.files import atomic_write
from slam_potsa.provenance import differences, read_record, write_record

MANIFESTS = ("train", "pairs", "pairs_translated", "dev", "test", "test_new_voices", "zero_shot")
OTHER = "other"  # the name of what belongs to no manifest
RECORD = "made_from.json"
LISTED_TWICE = "listed twice"  # the reason of a line that is no further recording
MANY, MOST = 0.05, 0.5  # share of a manifest that is left out: told as a warning, refused
BATCH = 512  # recordings that are lost at most where listening is interrupted
MAD_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, of a normal law
LEAST_DEVIATION = 0.1  # of log characters per second: where all speak alike, none is an outlier
_TOO_LONG = re.compile(r"\d s long, expected")
LEAST_RECORDINGS = 20  # of one language: below it, its usual rate is not known


@dataclass
class Recording:
    """One recording on its way into a manifest, or into dropped.jsonl."""

    manifest: str  # such as "train"
    place: str  # where the raw data lists it, file:line
    utterance: Utterance | None  # `audio` as seen from here; None: the line is malformed
    reason: str = ""  # why it is in no manifest; one of a few, to be counted
    detail: str = ""  # what was found

    def drop(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Corpus:
    """What was made, by manifest."""

    folder: Path
    manifests: dict[str, manifest.ManifestSummary]
    left_out: dict[str, dict[str, int]]  # reason -> recordings that are in no manifest
    warnings: list[str]

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    @property
    def summary(self) -> str:
        """Text: each manifest's table, and what it lacks."""
        lines = [f"{name}.jsonl\n{found.table()}\n" for name, found in self.manifests.items()]
        lines += self.left_out_in_words()
        lines += [f"each with its reason: {self.folder / 'dropped.jsonl'}"] * bool(self.left_out)
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])

    def left_out_in_words(self) -> list[str]:
        """A line each manifest that something was left out of: what its scores are on.

        test: 3 of 3,240 recordings left out (2 longer than 30 s, 1 unreadable): scores on this
        split are on 3,237
        """
        lines = []
        for name, reasons in self.left_out.items():
            own = self.manifests[name].languages.values() if name in self.manifests else ()
            there = sum(part.utterances for part in own)
            share, line = in_words(name, there, reasons)
            scored = f": scores on this split are on {there:,}" * (name not in ("train", OTHER))
            lines.append("warning: " * (share > MANY and name != OTHER) + line + scored)
        return lines


def in_words(name: str, there: int, left_out: Mapping[str, int]) -> tuple[float, str]:
    """The share of a manifest that is left out, and what it is."""
    count = sum(left_out.values())
    why = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())
    line = f"{name}: {count:,} of {there + count:,} recordings left out ({why})"
    return count / (there + count), line


def refuse_another(output: Path, choices: Mapping[str, Any], replace: bool) -> None:
    """Raise InputError where `output` was built with other choices, unless `replace`."""
    record = read_record(output / RECORD)
    if record and not replace and (differing := differences(record.made_from, choices)):
        found = f"{output} holds another data set ({'; '.join(differing)})"
        raise InputError(f"{found}: choose another folder, or --replace")


# --- rules: each leaves recordings out ---


def kept(recordings: Iterable[Recording], name: str = "") -> list[Recording]:
    """Those that are not left out; of one manifest, or of all."""
    return [r for r in recordings if not r.reason and name in ("", r.manifest)]


def keep_first(recordings: Iterable[Recording]) -> None:
    """Of lines that name one file, the first that can be used stays: keys are unique."""
    first: dict[str, str] = {}
    for recording in kept(recordings):
        place = first.setdefault(recording.utterance.audio, recording.place)
        if place != recording.place:
            recording.drop(LISTED_TWICE, f"first in {place}")


def keep_writable(recordings: Iterable[Recording]) -> None:
    """Leave out what no manifest can hold, such as a control character in a text."""
    for recording in kept(recordings):
        problems = Problems(recording.place)
        check_fields(Row(0, vars(recording.utterance)), manifest.VALID, problems, manifest.REQUIRED)
        if problems.found:
            recording.drop("malformed", "; ".join(text for _, text in problems.found))


def measure(recordings: Iterable[Recording], output: Path, *, progress: bool = True) -> None:
    """Decode every recording: note its duration, or leave out what cannot be used.

    What was found goes to a log in `output`, a batch at once, and what is there is not decoded
    again, unless the file's size or time has changed: interrupt and repeat the call as you like.
    """
    from tqdm import tqdm

    named = {_name(recording.utterance.audio): recording for recording in kept(recordings)}
    with Log(output / "measurements.jsonl") as log:
        known = {row["recording"]: row["found"] for row in log.rows}
        unheard = [name for name in named if name not in known]
        starts = range(0, len(unheard), BATCH)
        for start in tqdm(starts, "listening", unit=f"{BATCH} files", disable=not progress):
            names = unheard[start : start + BATCH]
            found = each(lambda name: _listen(named[name].utterance.audio), names)
            log.add({"recording": name, "found": one} for name, one in found.items())
            known |= found
    for name, recording in named.items():
        found = known[name]
        if isinstance(found, str):
            # The reader refuses silence, so that it could not be trained on or decoded either.
            long = f"longer than {MAX_DECODED:g} s" if _TOO_LONG.search(found) else "unreadable"
            recording.drop("silent" if found.startswith("silent") else long, found)
        else:
            recording.utterance = replace(recording.utterance, duration=round(found, 4))


def _name(audio: str) -> str:
    """What a recording is called in the log."""
    state = Path(split_reference(audio)[0]).stat()
    return f"{audio} {state.st_size} {state.st_mtime_ns}"


def _listen(audio: str) -> float | str:
    """Seconds, or what is wrong. Limits come later, so that they change without listening again."""
    try:
        return measure_audio(audio, max_seconds=None)
    except InputError as error:
        return str(error).removeprefix(f"{audio}: ")


def keep_length(recordings: Iterable[Recording], low: float, high: float) -> None:
    """Leave out what is shorter or longer, in seconds."""
    for recording in kept(recordings):
        seconds = recording.utterance.duration
        if not low <= seconds <= high:
            limit = f"shorter than {low:g} s" if seconds < low else f"longer than {high:g} s"
            recording.drop(limit, f"{seconds:.2f} s")


def keep_usual_rates(recordings: Iterable[Recording], deviations: float) -> None:
    """Leave out of train what is spoken far faster or slower than the language usually is in it."""
    spoken: dict[str, list[tuple[float, Recording]]] = defaultdict(list)
    for recording in kept(recordings, "train"):
        utterance = recording.utterance
        rate = len("".join(utterance.transcript.split())) / utterance.duration
        spoken[utterance.language].append((rate, recording))
    for own in spoken.values():
        low, high = rate_bounds([rate for rate, _ in own], deviations)
        for rate, recording in own:
            if not low <= rate <= high:
                reason = "spoken too fast" if rate > high else "spoken too slowly"
                usual = f"usual {low:.1f} to {high:.1f}"
                recording.drop(reason, f"{rate:.1f} characters per second, {usual}")


def rate_bounds(rates: Sequence[float], deviations: float) -> tuple[float, float]:
    """Characters (without spaces) per second that a language allows: exp(median ± deviations · σ).

    σ = max(0.1, 1.4826 · median |x − median|), of the logarithms: rates are skewed, and a broken
    recording must not widen the bounds that it is judged by. No bounds below 20 recordings.
    """
    if not deviations or len(rates) < LEAST_RECORDINGS:
        return 0.0, math.inf
    middle = math.log(median(rates))
    spread = MAD_TO_DEVIATION * median(abs(math.log(rate) - middle) for rate in rates)
    reach = deviations * max(LEAST_DEVIATION, spread)
    return math.exp(middle - reach), math.exp(middle + reach)


# --- writing ---


def write(
    output: Path,
    recordings: Sequence[Recording],
    choices: Mapping[str, Any],
    *,
    checked: bool = True,
    optional: Sequence[str] = (),
    max_dropped: float = MOST,
) -> Corpus:
    """Write the folder; manifests of an earlier build that this one does not have are removed.

    Args:
        choices: what another build in the same folder must agree with (`refuse_another`).
        checked: every recording was decoded, so the manifests are marked as checked.
        optional: manifests that may be left out.
        max_dropped: the largest share of a manifest's recordings that may be left out.

    Raises InputError, and writes nothing, where more are, or all.
    """
    keep_writable(recordings)
    names = dict.fromkeys([*MANIFESTS, *(one.manifest for one in recordings)])
    rows = {name: own for name in names if (own := [r.utterance for r in kept(recordings, name)])}
    dropped = [recording for recording in recordings if recording.reason]
    manifests, left_out = {}, defaultdict(Counter)
    for one in dropped:
        if one.reason != LISTED_TWICE:
            left_out[one.manifest][one.reason] += 1
    counts = {name: dict(own.most_common()) for name, own in left_out.items()}
    first = {one.manifest: one for one in reversed(dropped)}
    shares = {name: in_words(name, len(rows.get(name, ())), why) for name, why in counts.items()}
    refuse(
        f"{line}, such as {first[name].place} ({first[name].detail or first[name].reason}): check "
        f"files and limits; the rest can be taken with --max-dropped {math.ceil(100 * share) / 100}"
        for name, (share, line) in shares.items()
        if (share > max_dropped or name not in rows) and name not in (OTHER, *optional)
    )
    for name in set(MANIFESTS) - rows.keys():
        (output / f"{name}.jsonl").unlink(missing_ok=True)
    for name, own in rows.items():
        path = output / f"{name}.jsonl"
        moved = (replace(row, audio=_seen_from(output, row.audio)) for row in own)
        manifest.write_manifest(path, moved)
        if checked:
            manifest.mark_checked(path)
        manifests[name] = manifest.check_manifest(path, audio=False)
    write_rows(output / "dropped.jsonl", map(asdict, dropped))
    corpus = Corpus(output, manifests, counts, list(_trained_tests(rows)))
    told = {**choices, "left_out_in_words": corpus.left_out_in_words(), **asdict(corpus)}
    text = json.dumps(told, ensure_ascii=False, indent=2, default=_as_json)
    atomic_write(output / "summary.json", text + "\n")
    write_record(output / RECORD, choices, [corpus.path(name) for name in manifests])
    return corpus


def _as_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)


def _seen_from(output: Path, audio: str) -> str:
    """As manifests have it: relative where both lie in one folder, so that it can move."""
    path, member = split_reference(audio)
    home = output.resolve()
    if Path(path).is_relative_to(home.parent):
        path = Path(os.path.relpath(path, home)).as_posix()
    return path if member is None else f"{path}:{member}"


def _trained_tests(rows: Mapping[str, Sequence[Utterance]]) -> Iterator[str]:
    trained = {row.sentence_id for row in rows.get("train", ())}
    for name in (name for name in rows if name.startswith(("dev", "test"))):
        if known := trained & {row.sentence_id for row in rows[name]}:
            count, example = len(known), min(known)
            yield f"{count} sentences of {name} are in train too ({example}, ...): too good scores"
