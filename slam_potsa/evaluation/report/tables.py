"""Tables of what lies in run directories: the page shows them, `report --show NAME` prints them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from slam_potsa.config import flat
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.scores import ScoreRow
from slam_potsa.text import table

# A group of scores, and the mean of R@1 over language pairs that belongs beside it.
RECALLS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}


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
        (report.request.retrieval_title, group, run.name, "", "", "", _percent(recall, ".1f"))
        for group, run in places
        if (recall := run.recall(RECALLS[group])) is not None
    ]
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    caption = (
        "Pooled over the languages of a group. R@1 beside “seen” is among heard languages, beside "
        "“zero-shot” with at least one unheard language."
    )
    return Table(caption, head, rows, left=3, grouped=2)


def group_scores(run: Run, test: str, group: str) -> ScoreRow | None:
    """The group's pooled scores, or the mean over its languages where there are none."""
    rows = run.scored[test].rows if test in run.scored else ()
    kinds = {row.kind: row for row in rows if row.group == group}
    return kinds.get("pooled") or kinds.get("mean")


def footnotes(report: Report) -> list[str]:
    """One of every test some of whose sentences were trained on too."""
    notes = []
    for test, shares in report.trained.items():
        texts = {run: f"{_percent(share, '.3g')} %" for run, share in shares.items()}
        alike = len(set(texts.values())) == 1
        told = next(iter(texts.values())) if alike else ", ".join(map(" ".join, texts.items()))
        if any(shares.values()):
            notes.append(
                f"“{report.tests[test]}”: {told} of the sentences are also in training, in other "
                "recordings or languages if not these; what they mean is not new to the model."
            )
    return notes


def headline_text(report: Report) -> str:
    """The headline as aligned plain text, for a terminal, between its warnings and footnotes."""
    found = headline(report)
    printed = table(found.head, found.rows, found.left)
    return "\n".join([*report.warnings, printed, *footnotes(report)])


def shown(name: str, runs: Sequence[Run]) -> str:
    """The tables of one section as text."""
    found = [each for make in SHOWN[name] if (each := make(runs)).rows]
    texts = [f"{each.caption}\n{table(each.head, each.rows, each.left)}" for each in found]
    return "\n\n".join(texts) or "nothing was recorded"


def runs_table(runs: Sequence[Run]) -> Table:
    """What each run was: the options that differ, but for names, places and speed, and the main."""
    options = [flat(run.config, affects=("weights", "outcome", "answers")) for run in runs]
    names = dict.fromkeys(name for found in options for name in found)
    values = {name: [_yaml(found.get(name)) for found in options] for name in names}
    differing = [name for name, found in values.items() if len(set(found)) > 1]
    rows = [("directory", *(str(run.path) for run in runs)), ("loss", *map(loss, runs))]
    rows += [(name, *values[name]) for name in dict.fromkeys((*differing, *MAIN))]
    head = ("", *(run.name for run in runs))
    return Table("The runs: what differs, then the main options", head, rows, len(head), cards=True)


def loss(run: Run) -> str:
    terms = run.config.alignment.active.items()
    return "cross-entropy" + "".join(f" + {term.weight:g} · {name}" for name, term in terms)


def training_table(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        losses, speeds, seconds = (run.series(key)[1] for key in MEASURED)
        if losses:
            tail = losses[-max(1, len(losses) // 10) :]
            speed = statistics.median(speeds) if speeds else None
            minutes = sum(seconds) / 60 if seconds else None
            numbers = map(_number, (statistics.fmean(tail), speed, minutes))
            rows.append((run.name, str(len(losses)), *numbers))
    head = ("run", "steps", "CE, last tenth", "tokens / s a process, median", "minutes")
    return Table("Training; time without validation and saving", head, rows, cards=True)


def schedule_table(runs: Sequence[Run]) -> Table:
    """How often each layer was aligned, and where eq. 5-7 stood when it was last recorded."""
    rows = []
    for run in runs:
        chosen = [layer for layers in run.aligned.values() for layer in layers]
        for layer in sorted({*run.layers("schedule"), *chosen}):
            count, names = chosen.count(layer), ("reward", "ucb", "probability")
            last = [run.series(f"schedule/{layer}/{name}")[1][-1:] or [None] for name in names]
            share = 100 * count / max(1, len(run.aligned))
            numbers = map(_number, (share, *(value for (value,) in last)))
            rows.append((run.name, str(layer), str(count), *numbers))
    head = ("run", "layer", "steps aligned", "share, %", "reward", "UCB", "probability")
    caption = "Aligned layers; reward, UCB and probability as last recorded"
    return Table(caption, head, rows, left=2, grouped=1)


def conflict_table(runs: Sequence[Run]) -> Table:
    """Means over the run of what objective.conflict measured."""
    rows = []
    for run in runs:
        for layer in run.layers("conflict"):
            names = (f"conflict/{layer}/{name}" for name in ("ce", "alignment", "cosine"))
            found = [run.series(name)[1] for name in names]
            found.append([100 * (cosine < 0) for cosine in found[-1]])
            means = [_number(statistics.fmean(values)) if values else "–" for values in found]
            rows.append((run.name, str(layer), str(len(found[-1])), *means))
    head = ("run", "layer", "measured", "|CE gradient|", "|alignment|", "cosine", "below 0, %")
    caption = "Gradients at each layer’s tokens, means over the training"
    return Table(caption, head, rows, left=2, grouped=1)


# Options that a reader asks for first.
MAIN = (
    "model_config.encoder_path_hf",
    "model_config.llm_path",
    "dataset_config.tasks",
    "alignment.schedule.strategy",
    "alignment.schedule.candidates",
    "train_config.batch_size_training",
    "train_config.lr",
    "train_config.seed",
)
MEASURED = ("ce", "tokens_per_second", "seconds")
SHOWN: Mapping[str, Sequence[Callable[[Sequence[Run]], Table]]] = {
    "runs": (runs_table,),
    "training": (training_table,),
    "layers": (schedule_table, conflict_table),
}


def _cells(row: ScoreRow) -> tuple[str, str, str, str]:
    return f"{row.bleu.value:.1f}", row.bleu.interval_text(), f"{row.chrf.value:.1f}", ""


def _percent(share: float, shape: str) -> str:
    return f"{100 * share:{shape}}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).split("\n")[0]
