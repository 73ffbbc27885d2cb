"""`slam-potsa report`: one self-contained page about any set of runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from slam_potsa.commands import analyze
from slam_potsa.errors import InputError

EXAMPLES = """examples:
  slam-potsa report outputs/demo/baseline outputs/demo/potsa --output report.html
  slam-potsa report BASELINE OURS --heard en ja es ko ru
  slam-potsa report BASELINE OURS --analyze --manifest data/fleurs/test.jsonl
  slam-potsa report RUN --show training
"""
SENTENCES = 300  # analysed where nothing else is asked for; some minutes on a laptop


def add(commands) -> None:
    report = commands.add_parser(
        "report",
        help="one HTML page about runs: scores, training, layers, features, samples to listen to",
        description="Write one self-contained HTML page of what lies in run directories. The first "
        "run is the one that others are compared with.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = report.add_argument
    option("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training")
    option("--output", type=Path, default=Path("report.html"))
    option("--title", default="", help="default: the runs' names")
    option("--names", nargs="+", default=[], help="one for each run; default: its path")
    option("--heard", nargs="*", help="languages of training; default: of the first run's manifest")
    option("--zero-shot", nargs="*", help="never heard; default: all others that were decoded")
    option("--bootstrap", type=int, default=1000, help="resamples of intervals and tests; 0: off")
    option("--preset", help="whose way of scoring, as `score` has them")
    option = report.add_argument_group("what is on the page").add_argument
    option("--samples", type=int, default=3, metavar="N", help="of each language and test")
    option("--worst", type=int, default=5, metavar="N", help="worst rows of each test")
    option(
        "--show",
        choices=("runs", "training", "layers"),
        help="print the tables of one section instead of writing a page",
    )
    option = report.add_argument_group("analysis").add_argument
    option("--analyze", action="store_true", help="run `analyze` on each run first: loads models")
    option(
        "--manifest",
        nargs="+",
        type=Path,
        default=[],
        help="parallel sentences to analyse, and where recordings are looked for; default: the "
        "tests that were decoded, as far as they are parallel, else the training set",
    )
    option("--sentences", type=int, default=SENTENCES, metavar="N", help="analyse so many; 0: all")
    report.set_defaults(command=_report)


def _report(args) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation.report import (
        Request,
        collect,
        headline_text,
        open_runs,
        shown,
        write_page,
    )

    if args.show:
        print(shown(args.show, open_runs(args.runs, args.names)))
        return
    quieten()
    missing = [path for path in args.manifest if not path.is_file()]
    if missing:
        raise InputError([f"--manifest {path}: not there; expected JSON Lines" for path in missing])
    if args.analyze:
        _analyze(args)
    names = ("title", "names", "heard", "zero_shot", "preset", "bootstrap", "samples", "worst")
    asked = {name: getattr(args, name) for name in names}
    argv = ["slam-potsa", *sys.argv[1:]]
    report = collect(args.runs, Request(**asked, manifests=args.manifest, argv=argv), progress=True)
    for reason in report.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{headline_text(report)}\n\n{write_page(args.output, report)}")


def _analyze(args) -> None:
    """`slam-potsa analyze` of every run, all on the same recordings."""
    from slam_potsa.evaluation.report import open_runs, parallel_manifests

    manifests = args.manifest or parallel_manifests(open_runs(args.runs))
    parser = argparse.ArgumentParser()
    analyze.add(parser.add_subparsers())
    for run in args.runs:
        words: Sequence[object] = ["analyze", run, *manifests]
        words += ["--sentences", args.sentences] if args.sentences else []
        words += ["--heard", *args.heard] if args.heard else []
        given = parser.parse_args(list(map(str, words)))
        try:
            given.command(given)
        except InputError as error:
            print(f"{run}: not analysed: {error}", file=sys.stderr)
