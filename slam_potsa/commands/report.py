"""`slam-potsa report`: one self-contained page about any set of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from slam_potsa.commands import analyze
from slam_potsa.errors import refuse

EXAMPLES = """examples:
  slam-potsa report outputs/demo/baseline outputs/demo/potsa --output report.html
  slam-potsa report BASELINE OURS --heard en ja es ko ru
  slam-potsa report BASELINE OURS --analyze --manifest data/fleurs/test.jsonl
  slam-potsa report RUN --show training
"""
ASKED = ("title", "names", "heard", "zero_shot", "preset", "bootstrap", "samples", "worst")


def add(commands) -> None:
    report = commands.add_parser(
        "report",
        help="one HTML page about runs: scores, training, layers, features, samples to listen to",
        description="Write one self-contained HTML page of what lies in run directories. The first "
        "run is the one that others are compared with.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option, count = report.add_argument, {"type": _count, "metavar": "N"}
    option("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a training")
    option("--output", type=Path, default=Path("report.html"))
    option("--title", default="", help="default: the runs' names")
    option("--names", nargs="+", default=[], help="one for each run; default: its folder's")
    option("--heard", nargs="*", help="languages of training; default: of the first run's manifest")
    option("--zero-shot", nargs="*", help="never heard; default: all others that were decoded")
    option("--bootstrap", **count, default=1000, help="resamples of intervals and tests; 0: off")
    option("--preset", help="whose way of scoring, as `score` has them")
    option = report.add_argument_group("what is on the page").add_argument
    option("--samples", **count, default=3, help="of each language and test (default 3)")
    option("--worst", **count, default=5, help="worst rows of each test (default 5)")
    option(
        "--show",
        choices=("runs", "training", "layers"),
        help="print the tables of one section instead of writing a page",
    )
    option = report.add_argument_group("analysis").add_argument
    option("--analyze", action="store_true", help="run `analyze` on each run first: loads models")
    option("--sentences", **count, default=300, help="analyse so many; 0: all (default 300)")
    option(
        "--manifest",
        nargs="+",
        type=Path,
        default=[],
        help="parallel sentences to analyse, and where recordings are looked for; default: the "
        "tests that were decoded, else the training set",
    )
    report.set_defaults(command=_report)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 0, 1, 2, …")
    return int(text)


def _report(args) -> None:
    from slam_potsa.engine.launch import quieten
    from slam_potsa.evaluation import report

    missing = [path for path in args.manifest if not path.is_file()]
    refuse(f"--manifest {path}: not there; expected JSON Lines" for path in missing)
    if args.show:
        print(report.shown(args.show, report.open_runs(args.runs, args.names)))
        return
    quieten()
    if args.analyze:
        _analyze(args, report.open_runs(args.runs, args.names))
    asked = {name: getattr(args, name) for name in ASKED}
    request = report.Request(**asked, manifests=args.manifest, argv=["slam-potsa", *sys.argv[1:]])
    found = report.collect(args.runs, request, progress=True)
    for reason in found.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{report.headline_text(found)}\n\n{report.write_page(args.output, found)}")


def _analyze(args, runs) -> None:
    """As `slam-potsa analyze`, all runs on the same recordings."""
    from slam_potsa.evaluation.analysis import FILE, FOLDER, write_analysis
    from slam_potsa.evaluation.report.collect import find_manifests

    tested = list(find_manifests(runs).values())
    args.manifests = (
        args.manifest or tested or [Path(runs[0].config.dataset_config.train_data_path)]
    )
    args.seed, args.sentences = 0, args.sentences or None
    for run, found in zip(runs, analyze.analyze_runs(args.runs, args), strict=True):
        write_analysis(run.path / FOLDER / FILE, found)
