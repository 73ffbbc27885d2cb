"""What a report is made of. Whatever is missing is left out of the page, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slam_potsa.evaluation.projection import language_share, pca
from slam_potsa.evaluation.retrieval import Retrieval
from slam_potsa.evaluation.scores import ScoreTable
from slam_potsa.evaluation.significance import Comparison


@dataclass(frozen=True)
class RunSummary:
    """One system.

    Attributes:
        name: as the page calls it, such as "POTSA".
        scores: test set -> its ScoreTable.
        metrics: the lines of `metrics.jsonl`: step, ce, each alignment term's name with
            "<term>/matched" and "<term>/mismatched", layers, tokens_per_second, …; a line may
            lack any of them.
        retrieval: test set -> R@1 of the projector's output.
        seconds: wall time of the training.
        config: the resolved configuration, as text.
    """

    name: str
    scores: Mapping[str, ScoreTable] = field(default_factory=dict)
    metrics: Sequence[Mapping[str, Any]] = ()
    retrieval: Mapping[str, Retrieval] = field(default_factory=dict)
    seconds: float | None = None
    config: str = ""


@dataclass(frozen=True)
class Sample:
    """A recording and what each system made of it; `audio` is a path or `archive.tar:member`."""

    key: str
    language: str
    audio: str | Path
    transcript: str | None
    reference: str | None
    predictions: Mapping[str, str]


@dataclass(frozen=True)
class FeatureView:
    """Pooled encoder features of recordings in the plane; `feature_view` makes it of vectors."""

    name: str
    points: Sequence[Sequence[float]]
    languages: Sequence[str]
    explained: Sequence[float]
    language_share: float


@dataclass(frozen=True)
class Report:
    """All that the page shows. The first run is the baseline that others are compared with.

    Attributes:
        title, summary: the headline, and what was run in a sentence or two.
        runs: at least one.
        facts: the configuration in short: label -> value.
        wall_times: phase -> seconds.
        comparisons: test set -> paired tests of the second run against the first; a Comparison
            stands in the row of the score table that has its name.
        features: views to stand beside each other, such as before and after bias compensation.
        samples: in the order shown.
        notes: what a reader must know before quoting a number; plain text.
    """

    title: str
    runs: Sequence[RunSummary]
    summary: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    wall_times: Mapping[str, float] = field(default_factory=dict)
    comparisons: Mapping[str, Sequence[Comparison]] = field(default_factory=dict)
    features: Sequence[FeatureView] = ()
    samples: Sequence[Sample] = ()
    notes: Sequence[str] = ()


def feature_view(name: str, vectors: Any, languages: Sequence[str]) -> FeatureView:
    """Project pooled features [n, D] onto their own two principal components."""
    projection = pca(vectors)
    return FeatureView(
        name,
        projection.points.tolist(),
        list(languages),
        projection.explained.tolist(),
        language_share(vectors, languages),
    )
