"""One self-contained page about any set of run directories: `slam-potsa report RUN [RUN …]`.

`collect` reads what lies in the directories, and `write_page` makes a page of it. Whatever is
missing is left out, or said to be missing; nothing is guessed, and no model is loaded.
"""

from slam_potsa.evaluation.report.collect import Report, Request, collect
from slam_potsa.evaluation.report.page import headline_text, write_page

__all__ = ["Report", "Request", "collect", "headline_text", "write_page"]
