"""One self-contained page about any set of run directories: `slam-potsa report RUN [RUN …]`.

`collect` reads what lies in the directories, and `write_page` makes a page of it. Whatever is
missing is left out, or said to be missing; nothing is guessed, and no model is loaded.
"""

from slam_potsa.evaluation.report.collect import (
    Report,
    Request,
    Run,
    collect,
    open_runs,
    parallel_manifests,
)
from slam_potsa.evaluation.report.page import render, write_page
from slam_potsa.evaluation.report.tables import SHOWN, headline_text, shown

__all__ = [
    "SHOWN",
    "Report",
    "Request",
    "Run",
    "collect",
    "headline_text",
    "open_runs",
    "parallel_manifests",
    "render",
    "shown",
    "write_page",
]
