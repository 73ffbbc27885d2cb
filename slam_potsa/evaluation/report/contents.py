"""What a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import ManifestSummary
from slam_potsa.evaluation.file_scores import FileScores
from slam_potsa.evaluation.report.request import ReportRequest
from slam_potsa.evaluation.retrieval import Retrieval
from slam_potsa.evaluation.scores import ScoreTable

if TYPE_CHECKING:
    from slam_potsa.evaluation.analysis import Analysis
    from slam_potsa.evaluation.report.plans import Plan


@dataclass(frozen=True)
class Run:
    """A run directory, and what was found in it.

    Attributes:
        name: as the page calls it.
        path: as it was given, so that commands can be repeated.
        config, text: config.yaml with the defaults filled in, and as it stands there.
        metrics: the lines of metrics.jsonl (see model.metrics); a line may lack any of them.
        schedule: schedule.json, where eq. 5-7 stood when it was last written; empty without one.
        tests: test -> its `<test>_predictions.jsonl`.
        scored: test -> its scores.
        analysis: of its model.
        plans: between pairs of recordings, the same pairs in every run.
    """

    name: str
    path: Path
    config: PotsaConfig = field(default_factory=PotsaConfig)
    text: str = ""
    metrics: Sequence[Mapping[str, Any]] = ()
    schedule: Mapping[str, Any] = field(default_factory=dict)
    tests: Mapping[str, Path] = field(default_factory=dict)
    scored: Mapping[str, FileScores] = field(default_factory=dict)
    analysis: Analysis | None = None
    plans: Sequence[Plan] = ()

    @property
    def scores(self) -> dict[str, ScoreTable]:
        """test -> its table."""
        return {test: found.table for test, found in self.scored.items()}

    @property
    def retrieval(self) -> Retrieval | None:
        """R@1 at the projector's output."""
        return self.analysis.taps["projector"].retrieval if self.analysis else None

    @property
    def seconds(self) -> float | None:
        """Of training, without validation and saving; None where it was not written down."""
        found = [line["seconds"] for line in self.metrics if line.get("seconds") is not None]
        return sum(found) if found else None

    def having(self, **more: Any) -> Run:
        """This run with more found in it."""
        return replace(self, **more)


@dataclass(frozen=True)
class Sample:
    """A recording and what each run made of it.

    `audio` is a path or `archive.tar:member`, relative to `base`; None where the manifest that
    names it was not found.
    """

    test: str
    key: str
    language: str
    audio: str
    base: Path | None
    transcript: str | None
    reference: str | None
    predictions: Mapping[str, str]


@dataclass(frozen=True)
class Data:
    """A manifest, what runs use it as, and what it holds; None where it is not there.

    `trained` is for a test: run -> share of its sentences (`sentence_id`, whoever speaks them, in
    whatever language) that are also in the run's training manifest, where both are there.
    """

    path: str
    use: str
    holds: ManifestSummary | None
    tests: Sequence[str] = ()
    trained: Mapping[str, float] = field(default_factory=dict)

    def trained_text(self) -> str:
        """ "100 %", or "base 0 %, ours 40 %" where runs differ."""
        shares = {name: _percent(share) for name, share in self.trained.items()}
        if len(set(shares.values())) == 1:
            return next(iter(shares.values()))
        return ", ".join(f"{name} {share}" for name, share in shares.items())


@dataclass(frozen=True)
class Report:
    """All that the page shows. The first run is the one that others are compared with.

    Attributes:
        heard, zero_shot: the groups of the scores.
        recordings: (test, key) -> (audio, base) of the worst rows.
        warnings: what must be known before the scores are read; plain text.
        left_out: section -> why something is missing in it.
        versions: of what this report was made with.
    """

    runs: Sequence[Run]
    request: ReportRequest = field(default_factory=ReportRequest)
    heard: Sequence[str] = ()
    zero_shot: Sequence[str] = ()
    data: Sequence[Data] = ()
    samples: Sequence[Sample] = ()
    recordings: Mapping[tuple[str, str], tuple[str, Path]] = field(default_factory=dict)
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def tests(self) -> list[str]:
        """Every test that some run decoded; those with a title first, in its order."""
        found = dict.fromkeys(test for run in self.runs for test in run.tests)
        titled = [test for test in self.request.titles if test in found]
        return list(dict.fromkeys([*titled, *found]))

    def title_of(self, test: str) -> str:
        return self.request.titles.get(test, test)


def _percent(share: float) -> str:
    """Never 0 % or 100 % where that is only nearly so."""
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"
