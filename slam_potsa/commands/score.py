"""`slam-potsa score`, and `slam-potsa table`: the papers' tables with our runs in them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slam_potsa.errors import collecting, refuse
from slam_potsa.evaluation.comet import Comet, check_sources, installed
from slam_potsa.evaluation.compare import TESTS, same_test_problems, seed_means, seeds_text
from slam_potsa.evaluation.dump import dump
from slam_potsa.evaluation.file_scores import (
    FileScores,
    PredictionFile,
    ScoreRequest,
    read_file,
    score_file,
    with_found_blind,
)
from slam_potsa.evaluation.presets import (
    PRESETS,
    SPBLEU,
    Convention,
    ErrorRate,
    Preset,
    find_preset,
)
from slam_potsa.files import atomic_write

EXAMPLES = """examples:
  slam-potsa score RUN/test_predictions.jsonl --seen en ko --zero-shot fr
  slam-potsa score RUN/test_predictions.jsonl --preset llm-srt --comet Unbabel/wmt22-comet-da
  slam-potsa score SYSTEM/test_predictions.jsonl --baseline OTHER/test_predictions.jsonl --test ar
  slam-potsa score RUN/seed*/test_predictions.jsonl
  slam-potsa score RUN/test_predictions.jsonl --dump scores --show-commands
"""


def add(commands) -> None:
    score = commands.add_parser(
        "score",
        help="BLEU and chrF of a predictions.jsonl, with intervals, guards and signatures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_score(score.add_argument)
    _add_measures(score.add_argument_group("what is measured").add_argument)
    _add_comparisons(score.add_argument_group("what it is held against").add_argument)
    score.set_defaults(command=_score)
    table = commands.add_parser("table", help="Tables 1 to 3 of the paper, filled in from runs")
    _add_table(table.add_argument)
    table.set_defaults(command=_table)


def _add_score(add) -> None:
    several = "<decode_log>_predictions.jsonl; several are the seeds of one system"
    add("predictions", nargs="+", type=Path, help=several)
    add("--seen", nargs="*", default=[], help="languages heard in training")
    add("--zero-shot", nargs="*", default=[], help="languages never heard")
    add("--bootstrap", type=int, default=1000, help="resamples of the interval")
    add("--json", type=Path, help="write the table here too")
    add("--worst", type=int, metavar="N", help="list the N rows of lowest chrF")
    add("--dump", type=Path, metavar="FOLDER", help="text files and commands.sh")
    shown = "print the command that computes each number from the files of --dump"
    add("--show-commands", action="store_true", help=shown)


def _add_measures(add) -> None:
    either = argparse.BooleanOptionalAction
    add("--preset", help=f"a project's: {', '.join(PRESETS)}")
    add("--spbleu", action=either, help="BLEU of flores200 pieces")
    add("--wer", action=either, help="WER or CER of rows that transcribe")
    add("--comet", metavar="MODEL", help="name, folder or checkpoint")


def _add_comparisons(add) -> None:
    paths = {"nargs": "+", "type": Path, "default": []}
    add("--baseline", **paths, help="one file, or one for each file")
    tests = "bs: paired bootstrap, ar: randomisation"
    add("--test", choices=tuple(TESTS), default="bs", help=tests)
    add("--samples", type=int, help="of the test; default: bs 1000, ar 10000")
    blind = (
        "the blind control's file; default: NAME_blind_predictions.jsonl beside "
        "NAME_predictions.jsonl, where it fits"
    )
    add("--blind", **paths, help=blind)
    add("--no-blind", action="store_true", help="look for no blind control")


def _add_table(add) -> None:
    add("number", type=int, choices=(1, 2, 3))
    add("runs", nargs="*", type=Path, metavar="RUN", help="run directories, or folders of them")
    preset = "whose way of scoring, as `score` has them (default potsa)"
    add("--preset", default="potsa", help=preset)
    resamples = "resamples of paired tests and intervals; 0: off"
    add("--bootstrap", type=int, default=1000, help=resamples)
    add("--partial", action="store_true", help="a missing prediction file leaves a gap")
    add("--markdown", action="store_true", help="print Markdown instead of text")
    add("--json", type=Path, metavar="FILE", help="write the table here too")


def _table(args) -> None:
    from slam_potsa.evaluation.paper_tables import fill_table

    filled = fill_table(
        args.number,
        args.runs,
        convention=find_preset(args.preset).convention,
        bootstrap=args.bootstrap,
        partial=args.partial,
        progress=bool(args.runs),
    )
    print(filled.markdown() if args.markdown else filled.text())
    _write_json(args.json, filled.as_dict())


def _score(args) -> None:
    preset = find_preset(args.preset) if args.preset else None
    request = _request(args, _convention(args, preset))
    files = _files(args)
    comet = _comet(args, files)
    commands = _dump(args, files, request)
    scored = [score_file(file, request, comet) for file in files]
    seeds = seed_means([file.table for file in scored]) if len(scored) > 1 else {}
    print("\n\n".join(_text(scored, seeds, preset, args.comet)))
    if args.show_commands:
        print(f"\n{commands}")
    _write_json(args.json, {"preset": args.preset} | _as_dict(scored, seeds))


def _convention(args, preset: Preset | None) -> Convention:
    """The preset's, or the default, with what --spbleu and --wer add and take away."""
    convention = preset.convention if preset else Convention()
    if args.spbleu is not None:
        others = {k: v for k, v in convention.more_bleu.items() if k not in SPBLEU}
        convention = replace(convention, more_bleu=others | (SPBLEU if args.spbleu else {}))
    if args.wer is not None:
        rate = convention.error_rate or ErrorRate()
        convention = replace(convention, error_rate=rate if args.wer else None)
    return convention


def _request(args, convention: Convention) -> ScoreRequest:
    """Raises InputError with every option that does not fit."""
    problems, count = [], len(args.predictions)
    for name, least in (("bootstrap", 0), ("samples", 1), ("worst", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            problems.append(f"--{name}: found {value}, expected {least} or more")
    for name, fitting in (("baseline", (0, 1, count)), ("blind", (0, count))):
        given = len(getattr(args, name))
        if given not in fitting:
            problems.append(f"--{name}: found {given} files for {count} of predictions")
    if args.show_commands and not args.dump:
        problems.append("--show-commands needs the files that its commands read: add --dump FOLDER")
    if args.blind and args.no_blind:
        problems.append("--blind and --no-blind: expected one of them")
    refuse(problems)
    names = ("seen", "zero_shot", "bootstrap", "test", "samples", "worst")
    return ScoreRequest(convention, **{name: getattr(args, name) for name in names})


def _files(args) -> list[PredictionFile]:
    """Every file read and matched, with all problems at once."""
    paths, problems = args.predictions, []
    if len({path.resolve() for path in paths}) < len(paths):
        problems.append("the same prediction file is given twice; expected one for each seed")
    baselines = args.baseline if len(args.baseline) == len(paths) else args.baseline * len(paths)
    files = []
    for path, baseline, blind in zip_longest(paths, baselines, args.blind):
        with collecting(problems):
            files.append(_file(args, path, baseline, blind))
    if not problems:
        same = same_test_problems({str(file.path): file.predictions for file in files})
        problems += [f"files of one system's seeds must be one test: {text}" for text in same]
    refuse(problems)
    return files


def _file(args, path: Path, baseline: Path | None, blind: Path | None) -> PredictionFile:
    """With the blind control that lies beside it, or a warning where that does not fit."""
    file, reasons = read_file(path, baseline, blind), []
    if not blind and not args.no_blind:
        file, reasons = with_found_blind(file)
    for reason in reasons:
        print(
            f"warning: {reason}: found beside the predictions and left out as blind control "
            "(--no-blind: do not look for one)",
            file=sys.stderr,
        )
    return file


def _comet(args, files: Sequence[PredictionFile]) -> Comet | None:
    """The model; None where none is asked for, or where --dump hands COMET over to commands."""
    if not args.comet:
        return None
    for file in files:
        check_sources(file.predictions)
    return None if args.dump and not installed() else Comet.load(args.comet)


def _dump(args, files: Sequence[PredictionFile], request: ScoreRequest) -> str:
    """Write the files of --dump, a folder a file where there are several; return the commands."""
    if not args.dump:
        return ""
    folders = [args.dump / str(number) for number in range(1, len(files) + 1)]
    found = zip(folders if len(files) > 1 else [args.dump], files, strict=True)
    return "\n".join(dump(folder, file, request, args.comet or "") for folder, file in found)


def _text(
    scored: Sequence[FileScores], seeds: dict, preset: Preset | None, comet: str | None
) -> list[str]:
    """The parts of what is printed."""
    several = len(scored) > 1
    parts = [f"{file.path}\n{file.text()}" if several else file.text() for file in scored]
    parts += [seeds_text(seeds)] if several else []
    parts += [f"preset {preset.name}: {preset.note}"] if preset else []
    if preset and preset.comet and not comet:
        parts.append(
            f"not computed: COMET, which {preset.name} reports; add --comet {preset.comet}"
        )
    if comet and not installed():
        parts.append("not computed: COMET is not installed here; run its commands of --dump")
    return parts


def _as_dict(scored: Sequence[FileScores], seeds: dict) -> dict[str, Any]:
    """One file: its table with the rest beside; several: a list of these, and the seeds."""
    if len(scored) == 1:
        return scored[0].as_dict()
    means = [
        {"name": name, "metric": metric, **asdict(mean)}
        for metric, rows in seeds.items()
        for name, mean in rows.items()
    ]
    return {"files": [file.as_dict() for file in scored], "seeds": means}


def _write_json(path: Path | None, content: dict[str, Any]) -> None:
    if path:
        atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
