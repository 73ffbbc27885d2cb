"""Several seeds of one system: mean, standard deviation and Student-t interval of every score.

A bootstrap interval says how much the choice of test sentences matters, the interval over seeds
how much the training's randomness does. They answer different questions; both are printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import Any

from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.scores import ScoreTable, aligned
from slam_potsa.evaluation.seeds import over_seeds
from slam_potsa.evaluation.significance import match


@dataclass(frozen=True)
class SeedScore:
    """One measure of one corpus over seeds; `half_width` is that of the 95 % t interval.

    `deviation` is the sample standard deviation (n − 1).
    """

    name: str
    metric: str
    values: tuple[float, ...]
    mean: float
    deviation: float
    half_width: float

    def as_dict(self) -> dict[str, Any]:
        interval = [self.mean - self.half_width, self.mean + self.half_width]
        return asdict(self) | {"interval_95": interval}


def seed_scores(tables: Sequence[ScoreTable]) -> list[SeedScore]:
    """Every measure of every row that all tables have, in the order of the first.

    Raises InputError for fewer than two tables.
    """
    if len(tables) < 2:
        raise InputError(f"seeds: found {len(tables)} score table, expected two or more")
    by_name = [{row.name: row.scores for row in table.rows} for table in tables]
    found = []
    for name, first in by_name[0].items():
        for metric in first:
            values = [rows[name][metric].value for rows in by_name if metric in rows.get(name, {})]
            if len(values) < len(tables):
                continue
            mean = over_seeds(values)
            half = mean.half_width or 0.0
            deviation = stdev(values)
            found.append(SeedScore(name, metric, tuple(values), mean.value, deviation, half))
    return found


def check_same_test(files: Mapping[str, Sequence[Prediction]]) -> None:
    """Raise InputError unless all files decode the same utterances with the same references."""
    (first, reference), *rest = files.items()
    problems = []
    for name, predictions in rest:
        try:
            match(reference, predictions, (first, name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(
            [f"files of one system's seeds must be one test: {problems[0]}", *problems[1:]]
        )


def seeds_text(scores: Sequence[SeedScore]) -> str:
    """One table a measure: mean, standard deviation, t interval, and each seed's score."""
    parts = []
    for metric in dict.fromkeys(item.metric for item in scores):
        rows = [item for item in scores if item.metric == metric]
        count = len(rows[0].values)
        head = [f"{metric} over {count} seeds", "mean", "std", "95 % t interval"]
        head += [f"seed file {number}" for number in range(1, count + 1)]
        body = [
            [
                row.name,
                f"{row.mean:.2f}",
                f"{row.deviation:.2f}",
                f"{row.mean - row.half_width:.2f} – {row.mean + row.half_width:.2f}",
                *(f"{value:.1f}" for value in row.values),
            ]
            for row in rows
        ]
        parts.append(aligned([head, *body]))
    return "\n\n".join(parts)
