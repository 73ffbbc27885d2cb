"""The headline: every system's BLEU, chrF and R@1 on each test, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slam_potsa.evaluation.scores import ScoreRow, aligned
from slam_potsa.evaluation.summary import RunSummary

# A group of scores, and the mean over language pairs that belongs beside it.
GROUPS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}


@dataclass(frozen=True)
class HeadlineRow:
    """One system on one group of languages of one test; what was not measured is None.

    `scores` is the group's pooled row, or its mean over languages where there is no pooled one;
    `recall` is R@1, 0 to 1: among heard languages beside "seen", with an unheard language beside
    "zero-shot".
    """

    test: str
    group: str
    run: str
    scores: ScoreRow | None
    recall: float | None

    def cells(self) -> tuple[str, str, str, str]:
        """BLEU, its 95 % interval, chrF, R@1 in per cent."""
        recall = "" if self.recall is None else f"{100 * self.recall:.1f}"
        if self.scores is None:
            return "", "", "", recall
        bleu, chrf = self.scores.bleu, self.scores.chrf
        return f"{bleu.value:.1f}", bleu.interval_text(), f"{chrf.value:.1f}", recall


def headline(runs: Sequence[RunSummary]) -> list[HeadlineRow]:
    """A row a test, group and run, in this order. "all" stands only where there is no other group.

    Tests are those of the scores and those of the retrieval, joined by their names.
    """
    tests = dict.fromkeys(test for run in runs for test in (*run.scores, *run.retrieval))
    rows = []
    for test in tests:
        found = [
            HeadlineRow(test, group, run.name, _scores(run, test, group), _recall(run, test, mean))
            for group, mean in GROUPS.items()
            for run in runs
        ]
        found = [row for row in found if row.scores or row.recall is not None]
        split = [row for row in found if row.group != "all"]
        rows += split or found
    return rows


def headline_text(runs: Sequence[RunSummary]) -> str:
    """The headline as aligned plain text, for a terminal."""
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    body = [(row.test, row.group, row.run, *row.cells()) for row in headline(runs)]
    return aligned([head, *body], text_columns=3)


def _scores(run: RunSummary, test: str, group: str) -> ScoreRow | None:
    table = run.scores.get(test)
    found = {row.kind: row for row in table.rows if row.group == group} if table else {}
    return found.get("pooled") or found.get("mean")


def _recall(run: RunSummary, test: str, mean: str) -> float | None:
    retrieval = run.retrieval.get(test)
    return retrieval.means.get(mean) if retrieval else None
