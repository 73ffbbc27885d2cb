"""What a data source leaves behind: manifests, what was left out of them and why, and counts.

A source lists its recordings, each with the utterance that is to be written; `measure` decodes
them and leaves out what a model could not be given, `write` makes a folder of the rest:

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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from slam_potsa.data import manifest
from slam_potsa.data.archives import split_reference
from slam_potsa.data.audio import MAX_SECONDS, measure_audio
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
_TOO_LONG = r"\d s long, expected"


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
    told: list[str]  # what scores are on where something was left out, and warnings

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def __str__(self) -> str:
        """Text: each manifest's table, and what it lacks."""
        lines = [f"{name}.jsonl\n{found.table()}\n" for name, found in self.manifests.items()]
        reasons = [f"each with its reason: {self.folder / 'dropped.jsonl'}"] * bool(self.left_out)
        return "\n".join([*lines, *self.told, *reasons])


def refuse_another(output: Path, choices: Mapping[str, Any], replace: bool) -> None:
    """Raise InputError where `output` was built with other choices, unless `replace`."""
    record = read_record(output / RECORD)
    if record and not replace and (differing := differences(record.made_from, choices)):
        found = f"{output} holds another data set ({'; '.join(differing)})"
        raise InputError(f"{found}: choose another folder, remove this one, or --replace")


# --- rules: each leaves recordings out ---


def kept(recordings: Iterable[Recording], name: str = "") -> list[Recording]:
    """Those that are not left out; of one manifest, or of all."""
    return [r for r in recordings if not r.reason and name in ("", r.manifest)]


def keep_writable(recordings: Iterable[Recording]) -> None:
    """Leave out what no manifest can hold, such as a control character in a text."""
    for recording in kept(recordings):
        problems = Problems(recording.place)
        check_fields(Row(0, vars(recording.utterance)), manifest.VALID, problems, manifest.REQUIRED)
        if problems.found:
            recording.drop("malformed", "; ".join(text for _, text in problems.found))


def measure(recordings: Iterable[Recording], output: Path, *, progress: bool = True) -> None:
    """Decode every recording: note its duration, or leave out what cannot be used.

    Of lines that name one file, the first that can be used stays: keys are unique.
    What was found goes to a log in `output`, a batch at once, and what is there is not decoded
    again, unless the file's size or time has changed: interrupt and repeat the call as you like.
    """
    from tqdm import tqdm

    named: dict[str, Recording] = {}
    for recording in kept(recordings):
        first = named.setdefault(_name(recording.utterance.audio), recording)
        if first is not recording:
            recording.drop(LISTED_TWICE, f"first in {first.place}")
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
        if not isinstance(found, str) and found > MAX_SECONDS:  # of a log from before that limit
            found = f"{found:.2f} s long, expected {MAX_SECONDS:g} s or less"
        if isinstance(found, str):
            # The reader refuses silence, so that it could not be trained on or decoded either.
            reasons = (("silent", "silent"), (_TOO_LONG, f"longer than {MAX_SECONDS:g} s"))
            told = (reason for form, reason in reasons if re.search(form, found))
            recording.drop(next(told, "unreadable"), found)
        else:
            recording.utterance = replace(recording.utterance, duration=round(found, 4))


def _name(audio: str) -> str:
    """What a recording is called in the log."""
    try:
        state = Path(split_reference(audio)[0]).stat()
    except OSError:  # a link to nothing, say: listening to it will tell
        return audio
    return f"{audio} {state.st_size} {state.st_mtime_ns}"


def _listen(audio: str) -> float | str:
    """Seconds, or what is wrong."""
    try:
        return measure_audio(audio)
    except InputError as error:
        return str(error).removeprefix(f"{audio}: ")


# --- writing ---


def write(
    output: Path,
    recordings: Sequence[Recording],
    choices: Mapping[str, Any],
    *,
    max_dropped: float = MOST,
) -> Corpus:
    """Write the folder; manifests of an earlier build that this one does not have are removed.

    Every recording was decoded, so that the manifests are marked as checked.

    Args:
        choices: what another build in the same folder must agree with (`refuse_another`).
        max_dropped: the largest share of a manifest's recordings that may be left out.

    Raises InputError, and writes nothing, where more are.
    """
    keep_writable(recordings)
    names = dict.fromkeys([*MANIFESTS, *(one.manifest for one in recordings)])
    rows = {name: own for name in names if (own := [r.utterance for r in kept(recordings, name)])}
    dropped = [recording for recording in recordings if recording.reason]
    manifests, told, problems = {}, [], []
    left_out = _counts((one.manifest, one.reason) for one in dropped if one.reason != LISTED_TWICE)
    for name, reasons in left_out.items():
        there, count = len(rows.get(name, ())), sum(reasons.values())
        why = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
        line = f"{name}: {count:,} of {there + count:,} recordings left out ({why})"
        share = 0.0 if name == OTHER else count / (there + count)
        if share > max_dropped:
            first = next(one for one in dropped if one.manifest == name)
            problems.append(
                f"{line}, such as {first.place} ({first.detail or first.reason}): check the files; "
                f"the rest can be taken with --max-dropped {math.ceil(100 * share) / 100}"
            )
        scored = f": scores on this split are on {there:,}" * (name not in ("train", OTHER))
        told.append("warning: " * (share > MANY) + line + scored)
    refuse(problems)
    for name in set(MANIFESTS) - rows.keys():
        (output / f"{name}.jsonl").unlink(missing_ok=True)
    for name, own in rows.items():
        path = output / f"{name}.jsonl"
        moved = (replace(row, audio=_seen_from(output, row.audio)) for row in own)
        manifest.write_manifest(path, moved)
        manifest.mark_checked(path)
        manifests[name] = manifest.check_manifest(path, audio=False)
    write_rows(output / "dropped.jsonl", map(asdict, dropped))
    corpus = Corpus(output, manifests, left_out, [*told, *_trained_tests(rows)])
    text = json.dumps({**choices, **asdict(corpus)}, ensure_ascii=False, indent=2, default=str)
    atomic_write(output / "summary.json", text + "\n")
    write_record(output / RECORD, choices, [corpus.path(name) for name in manifests])
    return corpus


def _counts(found: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Manifest -> reason -> how often, the most frequent first."""
    counts: dict[str, dict[str, int]] = {}
    for (name, reason), count in Counter(found).most_common():
        counts.setdefault(name, {})[reason] = count
    return counts


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
            such_as = f"{len(known)} sentences of {name} are in train too ({min(known)}, ...)"
            yield f"warning: {such_as}: too good scores"
