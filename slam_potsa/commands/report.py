"""`slam-potsa report`: one self-contained page about any set of runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from slam_potsa.errors import InputError

EXAMPLES = """examples:
  slam-potsa report outputs/demo/baseline outputs/demo/potsa --output report.html
  slam-potsa report BASELINE OURS --heard en ja es ko ru --manifest data/fleurs/test.jsonl
  slam-potsa report RUN --no-analysis
  slam-potsa report RUN --show training
"""


def add(commands) -> None:
    report = commands.add_parser(
        "report",
        help="one HTML page about runs: scores, training, layers, features, samples to listen to",
        description="Write one self-contained HTML page about run directories. The first run is "
        "the one that others are compared with.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training"
    )
    report.add_argument("--output", type=Path, default=Path("report.html"))
    report.add_argument("--title", default="", help="default: the runs' names")
    report.add_argument(
        "--names", nargs="+", default=[], help="one for each run; default: its path"
    )
    report.add_argument(
        "--heard",
        nargs="*",
        help="languages of training; default: those of the first run's manifest",
    )
    report.add_argument(
        "--zero-shot",
        nargs="*",
        help="languages never heard; default: all others that were decoded",
    )
    report.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        help="resamples of intervals and paired tests; 0: off",
    )
    report.add_argument("--preset", help="whose way of scoring, as `score` has them")
    _add_content(report.add_argument_group("what is on the page"))
    report.set_defaults(command=_report)


def _add_content(group) -> None:
    group.add_argument(
        "--manifest",
        nargs="+",
        type=Path,
        default=[],
        help="parallel sentences to analyse; default: the tests that were decoded, as far as "
        "they are parallel, else the validation or training set",
    )
    group.add_argument("--no-analysis", action="store_true", help="do not load the models")
    group.add_argument(
        "--sentences",
        type=int,
        metavar="N",
        help="analyse so many; 0: all; default: those of an analysis.json that is there, else 300",
    )
    group.add_argument(
        "--samples", type=int, default=3, metavar="N", help="of each language and test (default 3)"
    )
    group.add_argument(
        "--worst", type=int, default=5, metavar="N", help="worst rows of each test (default 5)"
    )
    group.add_argument(
        "--show",
        choices=("runs", "training", "layers"),
        help="print the tables of one section instead of writing a page",
    )


def _report(args) -> None:
    from slam_potsa.evaluation.report.directories import open_runs
    from slam_potsa.evaluation.report.tables import shown

    if args.show:
        if args.names and len(args.names) != len(args.runs):
            raise InputError(f"--names: found {len(args.names)}, expected {len(args.runs)}")
        print(shown(args.show, open_runs(args.runs, args.names)))
        return
    _write(args)


def _write(args) -> None:
    import sys

    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation.report import (
        ReportRequest,
        build_report,
        headline_text,
        write_report,
    )

    quieten()
    request = ReportRequest(
        title=args.title,
        names=args.names,
        heard=args.heard,
        zero_shot=args.zero_shot,
        manifests=args.manifest,
        preset=args.preset,
        bootstrap=args.bootstrap,
        samples=args.samples,
        worst=args.worst,
        analysis=not args.no_analysis,
        sentences=args.sentences,
    )
    report = build_report(args.runs, request, progress=True)
    for part, reasons in report.left_out.items():
        for reason in reasons:
            print(f"left out of {part}: {reason}", file=sys.stderr)
    print(f"{headline_text(report)}\n\n{write_report(args.output, report)}")
