"""Tables of what lies in run directories: the page shows them, `report --show NAME` prints them."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import yaml

from slam_potsa.config import flat
from slam_potsa.evaluation.report.collect import Report, Run
from slam_potsa.evaluation.scores import ScoreRow
from slam_potsa.text import table

T = TypeVar("T")
# A group of scores, and the mean over language pairs that belongs beside it.
GROUPS = {"seen": "among heard", "zero-shot": "with an unheard", "all": "all"}


@dataclasses.dataclass(frozen=True)
class Table:
    """`left` columns hold text; `grouped` of them name a group of rows, which the page says once.

    On a phone the page shows each row of `cards` as a list of its cells.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    grouped: int = 0
    cards: bool = False


def groups(report: Report) -> dict[tuple[str, str], dict[str, ScoreRow]]:
    """(test, group) -> run -> the group's pooled scores, or the mean over its languages."""
    found = {
        (test, group): {run.name: row for run in report.runs if (row := _row(run, test, group))}
        for test in report.tests
        for group in GROUPS
    }
    return _without_all(found)


def headline(report: Report) -> Table:
    """A row a test, group and run, then those of R@1."""
    rows = [
        (report.tests[test], group, run, *_cells(row))
        for (test, group), found in groups(report).items()
        for run, row in found.items()
    ]
    title = report.request.retrieval_title
    recalls = {
        (title, group): {run.name: run.recall[mean] for run in report.runs if mean in run.recall}
        for group, mean in GROUPS.items()
    }
    for place, found in _without_all(recalls).items():
        rows += [(*place, run, "", "", "", f"{100 * recall:.1f}") for run, recall in found.items()]
    head = ("test", "languages", "system", "BLEU", "95 % interval", "chrF", "R@1 %")
    caption = (
        "Pooled over the languages of a group. R@1 beside “seen” is among heard languages, beside "
        "“zero-shot” with at least one unheard language."
    )
    return Table(caption, head, rows, left=3, grouped=2)


def _without_all(found: Mapping[tuple[str, str], T]) -> dict[tuple[str, str], T]:
    """(title, group) that hold something; "all" only where no other group of the title does."""
    split = {title for (title, group), rows in found.items() if rows and group != "all"}
    return {
        (title, group): rows
        for (title, group), rows in found.items()
        if rows and (group != "all" or title not in split)
    }


def _row(run: Run, test: str, group: str) -> ScoreRow | None:
    rows = run.scored[test].rows if test in run.scored else ()
    kinds = {row.kind: row for row in rows if row.group == group}
    return kinds.get("pooled") or kinds.get("mean")


def _cells(row: ScoreRow) -> tuple[str, str, str, str]:
    return f"{row.bleu.value:.1f}", row.bleu.interval_text(), f"{row.chrf.value:.1f}", ""


def footnotes(report: Report) -> list[str]:
    """One of every test some of whose sentences were trained on too."""
    return [
        f"“{report.tests[test]}”: {shares_text(shares)} of the sentences are also in training, in "
        "other recordings or languages if not these; what they mean is not new to the model."
        for test, shares in report.trained.items()
        if any(shares.values())
    ]


def shares_text(shares: Mapping[str, float]) -> str:
    """ "100 %", or "base 0 %, ours 40 %" where runs differ."""
    texts = {run: _percent(share) for run, share in shares.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{run} {text}" for run, text in texts.items())


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


def differences_table(runs: Sequence[Run]) -> Table:
    """Every option whose value is not the same in all runs, but for names, places and speed."""
    options = [flat(run.config, affects=("weights", "outcome", "answers")) for run in runs]
    names = dict.fromkeys(name for found in options for name in found)
    values = {name: [_value(found.get(name)) for found in options] for name in names}
    rows = [(name, *found) for name, found in values.items() if len(set(found)) > 1]
    head = ("option", *(run.name for run in runs))
    return Table("What differs between the configurations", head, rows, len(head), cards=True)


def facts_table(runs: Sequence[Run]) -> Table:
    """What each run was, in words."""
    found = [facts(run) for run in runs]
    rows = [(name, *(each[name] for each in found)) for name in found[0]]
    return Table("The runs", ("", *(run.name for run in runs)), rows, 1 + len(runs), cards=True)


def training_table(runs: Sequence[Run]) -> Table:
    head = ("run", "steps", "CE, last tenth", "tokens / s a process, median", "time")
    rows = []
    for run in runs:
        losses, speeds = run.series("ce")[1], run.series("tokens_per_second")[1]
        if losses:
            tail = f"{statistics.fmean(losses[-max(1, len(losses) // 10) :]):.3f}"
            speed = f"{statistics.median(speeds):,.0f}" if speeds else "–"
            rows.append((run.name, str(len(losses)), tail, speed, duration(run.seconds)))
    return Table("Training; time without validation and saving", head, rows, cards=True)


def schedule_table(runs: Sequence[Run]) -> Table:
    """How often each layer was aligned, and where eq. 5-7 stood when it was last recorded."""
    rows = []
    for run in runs:
        chosen = run.aligned
        for layer in sorted({*run.layers("schedule"), *(each for row in chosen for each in row)}):
            share = 100 * statistics.fmean(layer in row for row in chosen) if chosen else None
            names = (f"schedule/{layer}/{name}" for name in ("reward", "ucb", "probability"))
            last = [(run.series(name)[1] or [None])[-1] for name in names]
            count = sum(layer in row for row in chosen)
            rows.append((run.name, str(layer), str(count), *map(_number, (share, *last))))
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
            below = [100 * (value < 0) for value in found[-1]]
            means = [_number(statistics.fmean(values)) for values in (*found, below) if values]
            rows.append((run.name, str(layer), str(len(below)), *means))
    head = ("run", "layer", "measured", "|CE gradient|", "|alignment|", "cosine", "below 0, %")
    caption = "Gradients at each layer’s tokens, means over the training"
    return Table(caption, head, rows, left=2, grouped=1)


SHOWN: Mapping[str, Sequence[Callable[[Sequence[Run]], Table]]] = {
    "runs": (differences_table, facts_table),
    "training": (training_table,),
    "layers": (schedule_table, conflict_table),
}


def duration(seconds: float | None) -> str:
    """42 s, 3 min 05 s, 2 h 07 min."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def facts(run: Run) -> dict[str, str]:
    train, model, aligned = run.config.train_config, run.config.model_config, run.config.alignment
    terms = [f" + {term.weight:g} · {name}" for name, term in aligned.active.items()]
    schedule = f"{aligned.schedule.strategy} over {aligned.schedule.candidates}"
    parts = {
        "projector": True,
        "encoder": not train.freeze_encoder,
        f"LLM by LoRA, r {train.peft_config.r}": train.use_peft,
        "LLM": not train.freeze_llm and not train.use_peft,
    }
    return {
        "directory": str(run.path),
        "loss": f"cross-entropy{''.join(terms)}",
        "layers": schedule if terms else "–",
        "trained": ", ".join(name for name, trained in parts.items() if trained),
        "starts from": run.config.ckpt_path or "new weights",
        "encoder": model.encoder_path_hf or model.encoder_name,
        "LLM": model.llm_path or model.llm_name,
        "tasks": ", ".join(run.config.dataset_config.tasks),
        "steps": str(len(run.series("ce")[1]) or "no metrics.jsonl"),
        "batch": f"{train.batch_size_training} × {train.gradient_accumulation_steps}",
        "learning rate": f"{train.lr:g}",
        "seed": str(train.seed),
    }


def _percent(share: float) -> str:
    """Never 0 % or 100 % where that is only nearly so."""
    if 0 < share < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _value(value: Any) -> str:
    """As YAML would write it."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).split("\n")[0]
