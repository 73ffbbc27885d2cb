"""Tables of what lies in run directories: the page shows them, `report --show NAME` prints them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from slam_potsa.config import flat
from slam_potsa.evaluation.report.contents import Run
from slam_potsa.evaluation.report.markup import Table, duration


def shown(name: str, runs: Sequence[Run]) -> str:
    """The tables of one section as text."""
    tables = [table for table in (make(runs) for make in SHOWN[name]) if table.rows]
    texts = [f"{table.caption}\n{table.text()}" for table in tables]
    return "\n\n".join(texts) or "nothing was recorded"


def differences_table(runs: Sequence[Run]) -> Table:
    """Every option whose value is not the same in all runs, but for names and places."""
    options = [flat(run.config, affects=["weights", "outcome", "answers"]) for run in runs]
    names = dict.fromkeys(name for found in options for name in found)
    rows = [
        (name, *(_value(found.get(name)) for found in options))
        for name in names
        if len({repr(found.get(name)) for found in options}) > 1
    ]
    head = ("option", *(run.name for run in runs))
    return Table(
        head, rows, len(head), caption="What differs between the configurations", cards=True
    )


def facts_table(runs: Sequence[Run]) -> Table:
    """What each run was, in words."""
    facts = [_facts(run) for run in runs]
    rows = [(name, *(found[name] for found in facts)) for name in facts[0]]
    head = ("", *(run.name for run in runs))
    return Table(head, rows, len(head), caption="The runs", cards=True)


def training_table(runs: Sequence[Run]) -> Table:
    head = ("run", "steps", "CE, last tenth", "tokens / s a process, median", "time")
    rows = [_training_row(run) for run in runs if run.metrics]
    return Table(head, rows, caption="Training; time without validation and saving", cards=True)


def schedule_table(runs: Sequence[Run]) -> Table:
    """How often each layer was aligned, and where eq. 5-7 stood when it was last recorded."""
    head = ("run", "layer", "steps aligned", "share, %", "reward", "UCB", "probability")
    rows = [row for run in runs for row in _schedule_rows(run)]
    if not any(layers_with(run, "schedule") for run in runs) and any(run.schedule for run in runs):
        caption = "Aligned layers; reward, UCB and probability from schedule.json"
        return Table(head, rows, 2, 1, caption)
    return Table(head, rows, 2, 1, "Aligned layers; reward, UCB and probability as last recorded")


def conflict_table(runs: Sequence[Run]) -> Table:
    """Means over the run of what objective.conflict measured."""
    head = ("run", "layer", "measured", "|CE gradient|", "|alignment|", "cosine", "below 0, %")
    rows = []
    for run in runs:
        for layer in layers_with(run, "conflict"):
            ce, alignment, cosine = (
                series(run, f"conflict/{layer}/{name}")[1] for name in ("ce", "alignment", "cosine")
            )
            below = [100 * (value < 0) for value in cosine]
            means = (_mean(ce, ".3g"), _mean(alignment, ".3g"), _mean(cosine, "+.3f"))
            rows.append((run.name, str(layer), str(len(cosine)), *means, _mean(below, ".0f")))
    return Table(head, rows, 2, 1, "Gradients at each layer’s tokens, means over the training")


SHOWN: Mapping[str, Sequence[Callable[[Sequence[Run]], Table]]] = {
    "runs": (differences_table, facts_table),
    "training": (training_table,),
    "layers": (schedule_table, conflict_table),
}


def series(run: Run, key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the lines that have a finite one."""
    found = [
        (line["step"], line[key])
        for line in run.metrics
        if "step" in line and isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return [step for step, _ in found], [value for _, value in found]


def layers_with(run: Run, kind: str) -> list[int]:
    """The layers that have lines `<kind>/<layer>/…` with a number in them."""
    found = {
        int(key.split("/")[1])
        for line in run.metrics
        for key, value in line.items()
        if key.startswith(f"{kind}/") and value is not None
    }
    return sorted(found)


def _facts(run: Run) -> dict[str, str]:
    config = run.config
    train, data, model = config.train_config, config.dataset_config, config.model_config
    aligned, bias, steps = config.alignment, config.language_bias, len(run.metrics)
    loss = "cross-entropy"
    loss += "".join(f" + {term.weight:g} · {name}" for name, term in aligned.active.items())
    schedule = f"{aligned.schedule.strategy} over {aligned.schedule.candidates}"
    speech = f"Q-Former, {model.qformer_layers} layers, {model.query_len} queries"
    return {
        "directory": str(run.path),
        "tasks": ", ".join(data.tasks),
        "trained": ", ".join(_trained(config)),
        "starts from": config.ckpt_path or "new weights",
        "encoder": model.encoder_path_hf or model.encoder_name,
        "projector": speech,
        "LLM": model.llm_path or model.llm_name,
        "loss": loss,
        "layers": schedule if aligned.active else "–",
        "language bias": f"subtracted; unseen: {bias.unseen_language}" if bias.enabled else "kept",
        "pairs": data.pairing,
        "steps": f"{steps:,}" if steps else "no metrics.jsonl",
        "batch": f"{train.batch_size_training} × {train.gradient_accumulation_steps}",
        "learning rate": f"{train.lr:g}",
        "seed": str(train.seed),
    }


def _trained(config: Any) -> Iterator[str]:
    train = config.train_config
    yield "projector"
    if not train.freeze_encoder:
        yield "encoder"
    if train.use_peft:
        yield f"LLM by LoRA, r {train.peft_config.r}"
    elif not train.freeze_llm:
        yield "LLM"


def _training_row(run: Run) -> tuple[str, ...]:
    losses, speeds = series(run, "ce")[1], series(run, "tokens_per_second")[1]
    tail = losses[-max(1, len(losses) // 10) :]
    return (
        run.name,
        str(len(run.metrics)),
        _mean(tail, ".3f"),
        f"{statistics.median(speeds):,.0f}" if speeds else "–",
        duration(run.seconds) if run.seconds is not None else "–",
    )


def _schedule_rows(run: Run) -> Iterator[tuple[str, ...]]:
    chosen = [line["layers"] for line in run.metrics if line.get("layers")]
    counts = {layer: sum(layer in row for row in chosen) for row in chosen for layer in row}
    for layer in sorted({*counts, *layers_with(run, "schedule"), *run.schedule.get("layers", ())}):
        count = counts.get(layer, 0) if chosen else None
        share = f"{100 * count / len(chosen):.0f}" if chosen else "–"
        numbers = (_last(run, layer, name) for name in ("reward", "ucb", "probability"))
        yield (run.name, str(layer), "–" if count is None else str(count), share, *numbers)


def _last(run: Run, layer: int, name: str) -> str:
    """The last number of metrics.jsonl; of a run that wrote none there, that of schedule.json."""
    found = series(run, f"schedule/{layer}/{name}")[1][-1:]
    if not layers_with(run, "schedule"):
        value = run.schedule.get("layers", {}).get(layer, {}).get(name)
        found = [value] if isinstance(value, int | float) else []
    return f"{found[0]:.4g}" if found else "–"


def _mean(values: Sequence[float], shape: str) -> str:
    return f"{statistics.fmean(values):{shape}}" if values else "–"


def _value(value: Any) -> str:
    """As YAML would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
