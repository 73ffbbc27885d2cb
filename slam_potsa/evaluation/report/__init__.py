"""One self-contained page about any set of run directories: `slam-potsa report RUN [RUN …]`.

`build_report` reads the directories (`gather.py` and what it calls), `render` makes HTML of what
was found. Whatever is missing is left out, or said to be missing; nothing is guessed.
"""

from slam_potsa.evaluation.report.contents import Report, Run, Sample
from slam_potsa.evaluation.report.gather import build_report
from slam_potsa.evaluation.report.headline import headline, headline_text
from slam_potsa.evaluation.report.render import render, write_report
from slam_potsa.evaluation.report.request import ReportRequest
from slam_potsa.evaluation.report.tables import SHOWN, shown

__all__ = [
    "SHOWN",
    "Report",
    "ReportRequest",
    "Run",
    "Sample",
    "build_report",
    "headline",
    "headline_text",
    "render",
    "shown",
    "write_report",
]
