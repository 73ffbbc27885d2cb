"""What the models make of speech: the figures of the analysis, and transport plans."""

from __future__ import annotations

from html import escape

from slam_potsa.evaluation.analysis import Analysis, differences_text, figures
from slam_potsa.evaluation.report import markup
from slam_potsa.evaluation.report.contents import Report, Run
from slam_potsa.evaluation.report.markup import (
    Section,
    commands,
    figure,
    folded,
    missing,
    paragraph,
    section,
)
from slam_potsa.evaluation.report.plan_chart import plan_chart
from slam_potsa.evaluation.report.plans import Plan

ANALYSIS, PLANS = "Where languages meet", "Transport plans"
HOW = (
    "Rows are the tokens of the first recording, columns those of the second, in the order of the "
    "queries; the darker, the more mass goes from one to the other. The bars beside the matrix are "
    "the spans of speech that the tokens attend to: the middle half of their cross-attention. "
    "Sentences are chosen by their order in the manifest."
)


def analysis_section(report: Report) -> Section:
    analysed = [run for run in report.runs if run.analysis]
    reasons = missing(report.left_out.get("analysis", ()))
    if not analysed:
        return section(ANALYSIS, reasons)
    first, others = analysed[0], analysed[1:]
    shown = [_against(first, run) for run in others[:1]] or [_alone(first)]
    rest = [folded(f"{run.name} against {first.name}", _against(first, run)) for run in others[1:]]
    return section(ANALYSIS, paragraph(_lead(first.analysis)), reasons, *shown, *rest)


def plans_section(report: Report) -> Section:
    runs = [run for run in report.runs if run.plans]
    reasons = missing(report.left_out.get("plans", ()))
    if not runs:
        return section(PLANS, reasons)
    drawn = [
        _plan_figure(run, run.plans[place]) for place in range(len(runs[0].plans)) for run in runs
    ]
    again = commands(report_words(report), what="This page again")
    return section(PLANS, paragraph(HOW), reasons, markup.figures(drawn), again)


def report_words(report: Report) -> list[str]:
    """The words of `slam-potsa report` that make this page, but for its title and notes."""
    asked = report.request
    words = ["report", *(str(run.path) for run in report.runs)]
    if asked.names:
        words += ["--names", *asked.names]
    for flag, languages in (("--heard", asked.heard), ("--zero-shot", asked.zero_shot)):
        words += [flag, *languages] if languages is not None else []
    if asked.manifests:
        words += ["--manifest", *map(str, asked.manifests)]
    if asked.preset:
        words += ["--preset", asked.preset]
    for name in ("bootstrap", "samples", "worst", "sentences"):
        if getattr(asked, name) != getattr(type(asked), name):
            words += [f"--{name}", str(getattr(asked, name))]
    return words + ([] if asked.analysis else ["--no-analysis"])


def _lead(found: Analysis) -> str:
    spoken = ", ".join(f"{name} {found.recordings[name]}" for name in found.languages)
    heard = "not known" if found.heard is None else ", ".join(found.heard)
    return (
        f"{found.sentences} sentences, of which the figures in the plane show "
        f"{found.detail_sentences}; recordings: {spoken}; heard in training: {heard}. Means over "
        "a recording’s tokens are compared, by cosine."
    )


def _alone(run: Run) -> str:
    words = _words(run)
    return (
        markup.figures(_figures(run.analysis))
        + folded("All measures", f"<pre>{escape(run.analysis.text())}</pre>")
        + commands(words)
    )


def _against(first: Run, run: Run) -> str:
    texts = [
        first.analysis.text(),
        run.analysis.text(),
        differences_text(run.analysis, first.analysis),
    ]
    tables = f"<pre>{escape(chr(10).join([texts[0], '', texts[1], '', texts[2]]))}</pre>"
    return (
        markup.figures(_figures(run.analysis, first.analysis))
        + folded("All measures", tables)
        + commands([*_words(run), "--against", str(first.path)])
    )


def _figures(analysis: Analysis, baseline: Analysis | None = None) -> list[str]:
    return [figure(item.title, item.svg, item.caption) for item in figures(analysis, baseline)]


def _words(run: Run) -> list[str]:
    found = run.analysis
    words = ["analyze", str(run.path), *found.manifests]
    words += ["--heard", *found.heard] if found.heard else []
    if found.settings.sentences is not None:
        words += ["--sentences", str(found.settings.sentences)]
    return words + (["--seed", str(found.settings.seed)] if found.settings.seed else [])


def _plan_figure(run: Run, plan: Plan) -> str:
    first, second = plan.first, plan.second
    title = f"{first.language} – {second.language}, {run.name}, layer {plan.layer}"
    share, even = 100 * plan.diagonal, 100 / len(plan.plan)
    caption = (
        f"{first.language}: “{first.transcript or first.key}”. {second.language}: "
        f"“{second.transcript or second.key}”. Cost ⟨Γ, C⟩ {plan.cost:.3g}; {share:.0f} % of the "
        f"mass stays with the same query ({even:.0f} % where all tokens are alike)."
    )
    return figure(title, plan_chart(plan, title, caption), caption)
