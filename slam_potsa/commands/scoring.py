"""`slam-potsa score`."""

from __future__ import annotations

from pathlib import Path


def add(commands) -> None:
    score = commands.add_parser("score", help="BLEU and chrF of a predictions.jsonl")
    score.add_argument("predictions", help="<decode_log>_predictions.jsonl")
    score.add_argument("--seen", nargs="*", default=[], help="languages heard in training")
    score.add_argument("--zero-shot", nargs="*", default=[], help="languages never heard")
    score.add_argument("--bootstrap", type=int, default=1000, help="resamples of the interval")
    score.add_argument("--json", type=Path, help="write the table here too")
    score.set_defaults(command=_score)


def _score(args) -> None:
    import json

    from slam_potsa.data.predictions import read_predictions
    from slam_potsa.evaluation.scores import score
    from slam_potsa.files import atomic_write

    table = score(
        read_predictions(args.predictions),
        seen=args.seen,
        zero_shot=args.zero_shot,
        bootstrap=args.bootstrap,
    )
    print(table.text())
    if args.json:
        atomic_write(args.json, json.dumps(table.as_dict(), indent=1, ensure_ascii=False) + "\n")
