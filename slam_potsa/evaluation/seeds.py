"""What several seeds of one system say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from slam_potsa.errors import InputError


@dataclass(frozen=True)
class SeedMean:
    """`value` is the mean over seeds; `half_width` of its 95 % interval, None with one seed."""

    value: float
    half_width: float | None
    seeds: int


def over_seeds(values: Sequence[float], level: float = 0.95) -> SeedMean:
    """Mean and Student-t interval of one score a seed: x̄ ± t_{(1+level)/2, n−1} · s / √n.

    It takes the seeds' scores for normal and independent; it says how far another seed would move
    the mean, not how far another test set would.

    >>> mean = over_seeds([30.0, 32.0, 31.0])
    >>> f"{mean.value:.2f} ± {mean.half_width:.2f}"
    '31.00 ± 2.48'

    Raises InputError without a value.
    """
    if not values:
        raise InputError("found no score to average over seeds; expected at least one")
    count, mean = len(values), math.fsum(values) / len(values)
    if count == 1:
        return SeedMean(mean, None, 1)
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    quantile = float(t.ppf((1 + level) / 2, count - 1))
    return SeedMean(mean, quantile * spread / math.sqrt(count), count)
