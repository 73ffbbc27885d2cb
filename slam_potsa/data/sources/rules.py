"""Which recordings are kept: by length, and by how fast they are spoken. No limit is a paper's."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from slam_potsa.data.manifest import Utterance
from slam_potsa.data.sources.corpus import Recording

MAD_TO_DEVIATION = 1.4826  # median absolute deviation to standard deviation, of a normal law
LEAST_DEVIATION = 0.1  # of log characters per second: where all speak alike, none is an outlier
LEAST_RECORDINGS = 20  # of one language: below it, its usual rate is not known


def keep_length(recording: Recording, low: float, high: float) -> Recording:
    """Leave out what was measured and is shorter or longer, in seconds."""
    seconds = None if recording.reason else recording.utterance.duration
    if seconds is None or low <= seconds <= high:
        return recording
    limit = f"shorter than {low:g} s" if seconds < low else f"longer than {high:g} s"
    return recording.drop(limit, f"{seconds:.2f} s")


def keep_usual_rates(recordings: Sequence[Recording], deviations: float) -> list[Recording]:
    """Leave out of train what is spoken far faster or slower than the language usually is in it."""
    rates = defaultdict(list)
    for recording in recordings:
        if recording.manifest == "train" and not recording.reason:
            rates[recording.utterance.language].append(log_rate(recording.utterance))
    bounds = {language: rate_bounds(logs, deviations) for language, logs in rates.items()}
    return [
        recording
        if recording.reason or recording.manifest != "train"
        else _usual(recording, *bounds[recording.utterance.language])
        for recording in recordings
    ]


def _usual(recording: Recording, low: float, high: float) -> Recording:
    rate = math.exp(log_rate(recording.utterance))
    if low <= rate <= high:
        return recording
    reason = "spoken too fast" if rate > high else "spoken too slowly"
    detail = f"{rate:.1f} characters per second, expected {low:.1f} to {high:.1f}"
    return recording.drop(reason, detail)


def log_rate(utterance: Utterance) -> float:
    """Logarithm of characters (without spaces) per second."""
    return math.log(len("".join(utterance.transcript.split())) / utterance.duration)


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
