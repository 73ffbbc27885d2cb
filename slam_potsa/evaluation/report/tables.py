"""The page's tables of what lies in run directories; the headline is also printed."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from slam_potsa.config import flat
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.scores import ScoreRow
from slam_potsa.text import table

# A group of scores, and the mean of R@1 over language pairs that belongs beside it.
RECALLS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}
OF_A_SEED = re.compile(r"(seed|ckpt_path|teacher|language_bias\.path)$")  # options


class Table(NamedTuple):
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1  # columns that hold text
    grouped: int = 0  # of them, those that name a group of rows, which the page says once
    cards: bool = False  # on a phone, each row is a list of its cells


def headline(report: Report) -> Table:
    """A row a test, group and run, then those of R@1."""
    places = [(group, run) for group in report.groups for run in report.runs]
    rows = [
        (title, group, run.name, *_cells(row))
        for test, title in report.tests.items()
        for group, run in places
        if (row := group_scores(run, test, group))
    ]
    rows += [
        ("cross-lingual retrieval", group, run.name, "", "", "", _recall(recall))
        for group, run in places
        if (recall := run.recall(RECALLS[group]))
    ]
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    caption = (
        "Pooled over the languages of a group; “seen” are those of the first run’s training, "
        "where no others were named. R@1 beside “seen” is among heard languages, beside "
        "“zero-shot” with at least one unheard language."
    )
    return Table(caption, head, rows, left=3, grouped=2)


def group_scores(run: Run, test: str, group: str) -> ScoreRow | None:
    """The group's pooled scores, or the mean over its languages where there are none."""
    rows = run.scored[test].rows if test in run.scored else ()
    kinds = {row.kind: row for row in rows if row.group == group}
    return kinds.get("pooled") or kinds.get("mean")


def systems(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that differ in their seeds, and the files that these start from, go together."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        options = flat(run.config, affects=("weights", "outcome", "answers"))
        same = {name: value for name, value in options.items() if not OF_A_SEED.search(name)}
        found.setdefault(str(same), []).append(run)
    seeds = [[run.config.train_config.seed for run in own] for own in found.values()]
    pairs = zip(found.values(), seeds, strict=True)
    return [part for own, of in pairs for part in ([own] if len({*of}) == len(of) else zip(own))]


def headline_text(report: Report) -> str:
    """The headline as aligned plain text, for a terminal."""
    found = headline(report)
    return table(found.head, found.rows, found.left)


def runs_table(runs: Sequence[Run]) -> Table:
    """What each run was: the options that differ, but for names, places and speed."""
    options = [flat(run.config, affects=("weights", "outcome", "answers")) for run in runs]
    names = dict.fromkeys(name for found in options for name in found)
    values = {name: [_yaml(found.get(name)) for found in options] for name in names}
    differing = [name for name, found in values.items() if len(set(found)) > 1]
    rows = [("directory", *(str(run.path) for run in runs)), ("loss", *map(loss, runs))]
    rows += [(name, *values[name]) for name in differing]
    head = ("", *(run.name for run in runs))
    return Table("The runs, and the options that differ", head, rows, len(head), cards=True)


def loss(run: Run) -> str:
    terms = run.config.alignment.active.items()
    return "cross-entropy" + "".join(f" + {term.weight:g} · {name}" for name, term in terms)


def training_table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        measured = ("ce", "tokens_per_second", "seconds")
        losses, speeds, seconds = (run.series(key)[1] for key in measured)
        if losses:
            tail = losses[-max(1, len(losses) // 10) :]
            speed = statistics.median(speeds) if speeds else None
            minutes = sum(seconds) / 60 if seconds else None
            numbers = map(_number, (statistics.fmean(tail), speed, minutes))
            rows.append((run.name, str(len(losses)), *numbers))
    head = ("run", "steps", "CE, last tenth", "tokens / s a process, median", "minutes")
    return Table("Training; time without validation and saving", head, rows, cards=True)


def _cells(row: ScoreRow) -> tuple[str, str, str, str]:
    return f"{row.bleu.value:.1f}", row.bleu.interval_text(), f"{row.chrf.value:.1f}", ""


def _recall(found: Sequence[float]) -> str:
    """ "41.2", or "41.2 (38.0 – 44.1)" with an interval."""
    value, *ends = (f"{100 * each:.1f}" for each in found)
    return f"{value} ({' – '.join(ends)})" if ends else value


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n")[0]
