"""`slam-potsa report`: one self-contained page about any set of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EXAMPLES = """examples:
  slam-potsa report outputs/demo/baseline outputs/demo/potsa --output report.html
  slam-potsa report BASELINE OURS --heard en ja es ko ru
"""
ASKED = ("title", "names", "heard", "preset", "bootstrap", "samples", "worst")


def add(commands) -> None:
    report = commands.add_parser(
        "report",
        help="one HTML page about runs: scores, training, layers, features, samples to listen to",
        description="Write one self-contained HTML page of what lies in run directories. The first "
        "run is the one that others are compared with; what `analyze` found is shown too.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = report.add_argument
    option("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training")
    option("--output", type=Path, default=Path("report.html"))
    option("--title", default="", help="default: the runs' names")
    option("--names", nargs="+", default=[], help="one for each run; default: its folder's")
    option("--heard", nargs="*", help="languages of training; default: of the first run's manifest")
    option("--bootstrap", type=int, default=1000, help="resamples of intervals and tests; 0: off")
    option("--preset", help="whose way of scoring, as `score` has them")
    option("--samples", type=int, default=3, help="of each language and test (default 3)")
    option("--worst", type=int, default=5, help="worst rows of each test (default 5)")
    option("--manifest", type=Path, help="what SLAM-LLM's _pred files of the runs were decoded of")
    option("--target-language", default="", help="theirs, without --manifest")
    report.set_defaults(command=_report)


def _report(args) -> None:
    from slam_potsa.data.predictions import Origin
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation.figures import require

    require("jinja2")
    from slam_potsa.evaluation import report

    quieten()
    asked = {name: getattr(args, name) for name in ASKED}
    origin = Origin(args.target_language, manifest=args.manifest)
    request = report.Request(**asked, origin=origin, argv=["slam-potsa", *sys.argv[1:]])
    found = report.collect(args.runs, request)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{report.headline_text(found)}\n\n{report.write_page(args.output, found)}")
