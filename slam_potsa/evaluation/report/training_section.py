"""Curves of the training: loss, alignment cost, layers, rewards, conflict of gradients."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from slam_potsa.evaluation import charts
from slam_potsa.evaluation.report.contents import Report, Run
from slam_potsa.evaluation.report.markup import (
    Section,
    commands,
    figure,
    figures,
    paragraph,
    section,
)
from slam_potsa.evaluation.report.tables import (
    conflict_table,
    layers_with,
    schedule_table,
    series,
    training_table,
)

TRAINING, SCHEDULE, CONFLICT = "Training", "Layer schedule", "Do the two losses pull apart?"
LOG_RANGE = 20  # values that span more than this factor are drawn on a logarithmic axis
LINES = 4  # layers in one chart of norms, which has two lines a layer
TOLD = {
    "reward": (
        "Reward R",
        "Running mean of how much the cross-entropy fell after the layer was aligned.",
    ),
    "ucb": ("Upper bound U", "Reward plus a bonus for layers seldom tried."),
    "probability": ("Probability p", "Softmax of U over the temperature: what is drawn from."),
}
READING = (
    "The cosine lies between the gradients of cross-entropy and of the weighted alignment at one "
    "layer’s tokens: below 0 they conflict, so that a step that aligns the layer raises the "
    "cross-entropy; near 0 they leave each other alone; above 0 they help each other. The norms "
    "say which of the two moves the layer more."
)


def training_section(report: Report) -> Section:
    runs = report.runs
    losses = _lines(runs, "ce")
    if not losses:
        return section(TRAINING)
    drawn = [
        figure(
            "Cross-entropy",
            charts.line_chart(losses, title="Cross-entropy per training step", y_label="nats"),
            "Mean over the step’s label tokens. Long runs: mean of each stretch, range behind.",
        )
    ]
    keys = {key for run in runs for line in run.metrics for key in line}
    terms = sorted(key.removesuffix("/matched") for key in keys if key.endswith("/matched"))
    drawn += [_cost_figure(term, runs) for term in terms]
    return section(
        TRAINING, figures(drawn), training_table(runs).html(), _command(runs, "training")
    )


def schedule_section(report: Report) -> Section:
    drawn = [item for run in report.runs for item in _schedule_figures(run)]
    table = schedule_table(report.runs)
    if not drawn and not table.rows:
        return section(SCHEDULE)
    lead = (
        "Which Q-Former layer the alignment was computed at, numbered from 1 at the bottom, and "
        "how the schedule came to choose it (eq. 5–7)."
    )
    return section(
        SCHEDULE,
        paragraph(lead),
        _without_curves(report.runs),
        figures(drawn),
        table.html(),
        _command(report.runs, "layers"),
    )


def _without_curves(runs: Sequence[Run]) -> str:
    """Why a run that aligned has no reward, bound and probability over time."""
    told = []
    for run in runs:
        aligned = run.schedule or any(line.get("layers") for line in run.metrics)
        if aligned and not layers_with(run, "schedule"):
            step = run.schedule.get("step")
            last = "" if step is None else f" The table has their values at step {step}."
            told.append(
                f"{run.name}: no curves of reward, bound and probability, since its metrics.jsonl "
                "holds none. Training writes them every alignment.insight_interval steps (0 or "
                f"DeepSpeed: never).{last}"
            )
    return "".join(paragraph(text, "small") for text in told)


def conflict_section(report: Report) -> Section:
    drawn = [item for run in report.runs for item in _conflict_figures(run)]
    if not drawn:
        return section(CONFLICT)
    table = conflict_table(report.runs).html()
    return section(
        CONFLICT, paragraph(READING), figures(drawn), table, _command(report.runs, "layers")
    )


def _command(runs: Sequence[Run], name: str) -> str:
    return commands(["report", *(str(run.path) for run in runs), "--show", name])


def _lines(runs: Sequence[Run], key: str, suffix: str = "", dash: int = 0) -> list[charts.Series]:
    """One line a run that has this key; a run keeps its colour in all charts."""
    found = [(place, run, *series(run, key)) for place, run in enumerate(runs)]
    return [
        charts.Series(run.name + suffix, steps, values, place, dash)
        for place, run, steps, values in found
        if steps
    ]


def _cost_figure(term: str, runs: Sequence[Run]) -> str:
    lines = [
        line
        for dash, kind in enumerate(("matched", "mismatched"))
        for line in _lines(runs, f"{term}/{kind}", f", {kind}", dash)
    ]
    return figure(
        f"Alignment cost, {term}",
        charts.line_chart(
            lines, title=f"Alignment cost of {term}", y_label="cost", log=_spans_far(lines)
        ),
        "Pairs of the same sentence (matched) against pairs of different ones. Matched falls below "
        "mismatched also without alignment: compare the gap with that of a run without it. Both "
        "falling together is a smaller space.",
    )


def _schedule_figures(run: Run) -> Iterator[str]:
    lines = [line for line in run.metrics if line.get("layers") and "step" in line]
    if lines:
        drawing = charts.schedule_chart(
            [line["step"] for line in lines],
            [line["layers"] for line in lines],
            title=f"Aligned layer at each step, {run.name}",
            description="A mark is a step at which this Q-Former layer was aligned.",
        )
        yield figure(f"Aligned layer, {run.name}", drawing)
    for name, (title, caption) in TOLD.items():
        found = _layer_lines(run, f"schedule/{{}}/{name}", layers_with(run, "schedule"))
        if found:
            drawing = charts.line_chart(
                found, title=f"{title} of each layer, {run.name}", y_label=title
            )
            yield figure(f"{title}, {run.name}", drawing, caption)


def _conflict_figures(run: Run) -> Iterator[str]:
    layers = layers_with(run, "conflict")
    cosines = _layer_lines(run, "conflict/{}/cosine", layers)
    if not cosines:
        return
    steps = [step for line in cosines for step in line.x]
    nought = charts.Series("0", [min(steps), max(steps)], [0.0, 0.0], 7, dash=2)
    title = f"Cosine of the two gradients, {run.name}"
    drawing = charts.line_chart([*cosines, nought], title=title, y_label="cosine")
    yield figure(title, drawing, "Below the dotted line: conflict.")
    yield _depth_figure(run, cosines)
    for start in range(0, len(layers), LINES):
        part = layers[start : start + LINES]
        norms = _layer_lines(run, "conflict/{}/ce", part, ", CE")
        norms += _layer_lines(run, "conflict/{}/alignment", part, ", alignment", dash=1)
        title = f"Gradient norms, layers {part[0]} to {part[-1]}, {run.name}"
        drawing = charts.line_chart(norms, title=title, y_label="norm", log=_spans_far(norms))
        yield figure(title, drawing, "Solid: cross-entropy. Dashed: alignment, times its weight.")


def _depth_figure(run: Run, cosines: Sequence[charts.Series]) -> str:
    """The mean over the first and the last third of the training, layer by layer."""
    names = [line.name.removeprefix("layer ") for line in cosines]
    thirds = {
        "first third": lambda values: values[: max(1, len(values) // 3)],
        "last third": lambda values: values[-max(1, len(values) // 3) :],
    }
    lines = [
        charts.Series(
            name,
            range(len(names)),
            [statistics.fmean(part(line.y)) for line in cosines],
            place,
            place,
        )
        for place, (name, part) in enumerate(thirds.items())
    ]
    nought = charts.Series("0", range(len(names)), [0.0] * len(names), 7, dash=2)
    title = f"Cosine by depth, {run.name}"
    drawing = charts.line_chart(
        [*lines, nought], title=title, x_label="Q-Former layer", y_label="cosine", x_names=names
    )
    return figure(title, drawing, "Mean over a third of the training.")


def _layer_lines(
    run: Run, pattern: str, layers: Sequence[int], suffix: str = "", dash: int = 0
) -> list[charts.Series]:
    """One line a layer that has values; a layer keeps its colour in all charts."""
    found = [(layer, *series(run, pattern.format(layer))) for layer in layers]
    return [
        charts.Series(f"layer {layer}{suffix}", steps, values, layer - 1, dash)
        for layer, steps, values in found
        if steps
    ]


def _spans_far(lines: Sequence[charts.Series]) -> bool:
    values = [y for line in lines for y in line.y if y > 0]
    return bool(values) and max(values) > LOG_RANGE * min(values)
