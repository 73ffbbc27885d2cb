"""The headline: every run's BLEU, chrF and R@1 on each test, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slam_potsa.evaluation.report.contents import Report, Run
from slam_potsa.evaluation.report.markup import Table
from slam_potsa.evaluation.scores import ScoreRow

# A group of scores, and the mean over language pairs that belongs beside it.
GROUPS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}


@dataclass(frozen=True)
class HeadlineRow:
    """One run on one group of languages of one test; what was not measured is None.

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


def headline(report: Report) -> list[HeadlineRow]:
    """A row a test, group and run, in this order; then those of R@1.

    "all" stands only where there is no other group.
    """
    rows = []
    for test in report.tests:
        title = report.title_of(test)
        rows += _split(
            HeadlineRow(title, group, run.name, _scores(run, test, group), None)
            for group in GROUPS
            for run in report.runs
        )
    rows += _split(
        HeadlineRow(report.request.retrieval_title, group, run.name, None, _recall(run, mean))
        for group, mean in GROUPS.items()
        for run in report.runs
    )
    return rows


def headline_table(report: Report) -> Table:
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    body = [(row.test, row.group, row.run, *row.cells()) for row in headline(report)]
    caption = (
        "Pooled over the languages of a group. R@1 beside “seen” is among heard languages, beside "
        "“zero-shot” with at least one unheard language."
    )
    return Table(head, body, text_columns=3, grouped=2, caption=caption)


def footnotes(report: Report) -> list[str]:
    """One of every test some of whose sentences were trained on too."""
    return [
        f"{', '.join(f'“{report.title_of(test)}”' for test in item.tests)}: {item.trained_text()} "
        "of the sentences are also in training, in other recordings or languages if not these; "
        "what they mean is not new to the model."
        for item in report.data
        if any(item.trained.values())
    ]


def headline_text(report: Report) -> str:
    """The headline as aligned plain text, for a terminal, between its warnings and footnotes."""
    return "\n".join([*report.warnings, headline_table(report).text(), *footnotes(report)])


def _split(found) -> Sequence[HeadlineRow]:
    rows = [row for row in found if row.scores or row.recall is not None]
    return [row for row in rows if row.group != "all"] or rows


def _scores(run: Run, test: str, group: str) -> ScoreRow | None:
    table = run.scores.get(test)
    found = {row.kind: row for row in table.rows if row.group == group} if table else {}
    return found.get("pooled") or found.get("mean")


def _recall(run: Run, mean: str) -> float | None:
    return run.retrieval.means.get(mean) if run.retrieval else None
