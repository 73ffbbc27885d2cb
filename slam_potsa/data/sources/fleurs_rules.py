"""Which recordings of FLEURS are kept, and what is written about them.

The papers do not say what they drop. FLEURS has recordings that break off after a word, and some
with the wrong text; both show in the speaking rate. The limits here are ours, and they are about
training: dev, test and zero_shot keep every recording that the model can be given, so that scores
are on the same recordings as others' are. What has to be left out of them is counted and told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from slam_potsa.data.audio import MAX_SECONDS
from slam_potsa.data.sources.fleurs_audio import Heard
from slam_potsa.data.sources.fleurs_files import Dropped, Part, Row
from slam_potsa.errors import InputError

MAD_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, of a normal law
LEAST_DEVIATION = 0.1  # of log characters per second: where all speak alike, none is an outlier
LEAST_RECORDINGS = 20  # of one language: below it, its usual rate is not known


LIMITED = "train"  # the split that `Limits` are about


@dataclass(frozen=True)
class Limits:
    """What a recording of train must keep to. None of them is from the papers."""

    min_seconds: float = 1.0  # shorter ones break off: FLEURS' sentences take 4 s and more
    max_seconds: float = MAX_SECONDS  # what Whisper places, and the limit of every split
    # Characters per second may differ from the language's median by this many standard deviations
    # of its logarithm (both robust: median, and median absolute deviation); 0: no such rule.
    rate_deviations: float = 5.0

    def check(self) -> list[str]:
        """What is wrong with these limits."""
        problems = []
        if not 0 <= self.min_seconds < self.max_seconds <= MAX_SECONDS:
            problems.append(
                f"min_seconds={self.min_seconds:g}, max_seconds={self.max_seconds:g}: expected "
                f"0 <= min_seconds < max_seconds <= {MAX_SECONDS:g} (Whisper's window)"
            )
        if not self.rate_deviations >= 0:
            problems.append(
                f"rate_deviations={self.rate_deviations:g}: expected 0 (off) or more; 3 is strict"
            )
        return problems


ANY_LENGTH = Limits(min_seconds=0.0, rate_deviations=0.0)  # of dev and test: Whisper's window only


@dataclass(frozen=True)
class Kept:
    """A recording that is kept, with its translation."""

    locale: str
    split: str
    row: Row
    audio: str
    seconds: float
    target: str


def targets_of(part: Part) -> dict[int, str]:
    """Sentence -> its text in the target language; the first, where recordings differ in it."""
    targets: dict[int, str] = {}
    for row in part.rows:
        targets.setdefault(row.sentence, row.text)
    return targets


def choose(
    parts: Sequence[Part],
    heard: Mapping[str, Mapping[str, Heard]],
    targets: Mapping[str, Mapping[int, str]],
    limits: Limits,
) -> tuple[list[Kept], list[Dropped]]:
    """Apply the rules to every recording, `limits` to those of train only.

    Args:
        heard: by part name, then file name.
        targets: by split, then sentence.
    """
    kept, dropped = [], []
    for part in parts:
        for row in part.rows:
            found = heard[part.name].get(row.file)
            target = targets[part.split].get(row.sentence)
            trouble = _trouble(found, target, limits if part.split == LIMITED else ANY_LENGTH)
            if trouble:
                dropped.append(_drop(part.locale, part.split, row, *trouble))
            else:
                kept.append(Kept(part.locale, part.split, row, found.audio, found.seconds, target))
    return _without_odd_rates(kept, dropped, limits)


def _trouble(found: Heard | None, target: str | None, limits: Limits) -> tuple[str, str] | None:
    """(reason, detail) for which a recording is dropped."""
    if found is None:
        return "no recording", "listed, but not in the folder or archive"
    if found.seconds is None:
        # Of any split: the reader refuses silence, so that it could not be decoded either.
        return "silent" if found.problem.startswith("silent") else "unreadable", found.problem
    low, high, length = limits.min_seconds, limits.max_seconds, f"{found.seconds:.2f} s"
    if found.seconds < low:
        return f"shorter than {low:g} s", f"{length}, expected {low:g} s or more"
    if found.seconds > high:
        return f"longer than {high:g} s", f"{length}, expected {high:g} s or less"
    if target is None:
        return "no target", "the target language has no such sentence in this split"
    return None


def _drop(locale: str, split: str, row: Row, reason: str, detail: str) -> Dropped:
    return Dropped(locale, split, row.sentence, row.file, reason, detail)


def _without_odd_rates(
    kept: list[Kept], dropped: list[Dropped], limits: Limits
) -> tuple[list[Kept], list[Dropped]]:
    """Drop of train what is spoken far faster or slower than the language usually is in it."""
    rates = defaultdict(list)
    for recording in kept:
        if recording.split == LIMITED:
            rates[recording.locale].append(_log_rate(recording))
    bounds = {locale: rate_bounds(logs, limits.rate_deviations) for locale, logs in rates.items()}
    usual = []
    for recording in kept:
        if recording.split != LIMITED:
            usual.append(recording)
            continue
        low, high = bounds[recording.locale]
        rate = math.exp(_log_rate(recording))
        if low <= rate <= high:
            usual.append(recording)
            continue
        reason = "spoken too fast" if rate > high else "spoken too slowly"
        detail = f"{rate:.1f} characters per second, expected {low:.1f} to {high:.1f}"
        dropped.append(_drop(recording.locale, recording.split, recording.row, reason, detail))
    return usual, dropped


def _log_rate(recording: Kept) -> float:
    """Logarithm of characters (without spaces) per second."""
    return math.log(len("".join(recording.row.text.split())) / recording.seconds)


def rate_bounds(log_rates: Sequence[float], deviations: float) -> tuple[float, float]:
    """Characters per second that one language allows: exp(median ± deviations · σ).

    σ = max(0.1, 1.4826 · median |x − median|), of the logarithms: rates are skewed, and a broken
    recording must not widen the bounds that it is judged by. No bounds below 20 recordings.
    """
    if not deviations or len(log_rates) < LEAST_RECORDINGS:
        return 0.0, math.inf
    middle = median(log_rates)
    spread = MAD_TO_DEVIATION * median(abs(rate - middle) for rate in log_rates)
    reach = deviations * max(LEAST_DEVIATION, spread)
    return math.exp(middle - reach), math.exp(middle + reach)


def refuse_if_empty(
    kept: Mapping[str, Sequence[Kept]], dropped: Sequence[Dropped], wanted: Sequence[str]
) -> None:
    """Raises InputError where a manifest of `wanted` would have no line."""
    empty = [name for name in wanted if not kept[name]]
    if empty:
        example = f", such as {dropped[0].file}: {dropped[0].detail}" if dropped else ""
        raise InputError(
            f"no recording is left for {', '.join(empty)}: {len(dropped)} were dropped{example}; "
            f"check the target language and the limits"
        )
