"""`slam-potsa table`: the paper's tables with our runs in them."""

from __future__ import annotations

from pathlib import Path


def add(commands) -> None:
    table = commands.add_parser("table", help="Tables 1 to 3 of the paper, filled in from runs")
    table.add_argument("number", type=int, choices=(1, 2, 3))
    table.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run directories, or folders of them"
    )
    table.add_argument(
        "--preset",
        default="potsa",
        help="whose way of scoring, as `score` has them (default potsa)",
    )
    table.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        help="resamples of paired tests and intervals; 0: off",
    )
    table.add_argument(
        "--partial", action="store_true", help="a missing prediction file leaves a gap"
    )
    table.add_argument("--markdown", action="store_true", help="print Markdown instead of text")
    table.add_argument("--json", type=Path, metavar="FILE", help="write the table here too")
    table.set_defaults(command=_table)


def _table(args) -> None:
    import json

    from slam_potsa.evaluation.paper_tables import fill_table
    from slam_potsa.evaluation.presets import find_preset
    from slam_potsa.files import atomic_write

    filled = fill_table(
        args.number,
        args.runs,
        convention=find_preset(args.preset).convention,
        bootstrap=args.bootstrap,
        partial=args.partial,
        progress=bool(args.runs),
    )
    print(filled.markdown() if args.markdown else filled.text())
    if args.json:
        atomic_write(args.json, json.dumps(filled.as_dict(), indent=1, ensure_ascii=False) + "\n")
