"""`slam-potsa score`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slam_potsa.errors import InputError

if TYPE_CHECKING:
    from slam_potsa.data.predictions import Prediction
    from slam_potsa.evaluation.comet import Comet
    from slam_potsa.evaluation.file_scores import FileScores, Request, Source
    from slam_potsa.evaluation.presets import Preset
    from slam_potsa.evaluation.scores import Convention

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
    score.add_argument(
        "predictions",
        nargs="+",
        type=Path,
        help="<decode_log>_predictions.jsonl; several are the seeds of one system",
    )
    score.add_argument("--seen", nargs="*", default=[], help="languages heard in training")
    score.add_argument("--zero-shot", nargs="*", default=[], help="languages never heard")
    score.add_argument("--bootstrap", type=int, default=1000, help="resamples of the interval")
    score.add_argument("--json", type=Path, help="write the table here too")
    _add_measures(score.add_argument_group("what is measured"))
    _add_comparisons(score.add_argument_group("what it is held against"))
    score.add_argument("--worst", type=int, metavar="N", help="list the N rows of lowest chrF")
    score.add_argument("--dump", type=Path, metavar="FOLDER", help="text files and commands.sh")
    score.add_argument(
        "--show-commands",
        action="store_true",
        help="print the command that computes each number from the files of --dump",
    )
    score.set_defaults(command=_score)


def _add_measures(group) -> None:
    group.add_argument("--preset", help="a project's: potsa, cot-st, llm-srt, part, seamless")
    either = argparse.BooleanOptionalAction
    group.add_argument("--spbleu", action=either, help="BLEU of flores200 pieces")
    group.add_argument("--wer", action=either, help="WER or CER of rows that transcribe")
    group.add_argument("--comet", metavar="MODEL", help="name, folder or checkpoint")


def _add_comparisons(group) -> None:
    group.add_argument(
        "--baseline", nargs="+", type=Path, default=[], help="one file, or one for each file"
    )
    group.add_argument("--test", default="bs", help="bs: paired bootstrap, ar: randomisation")
    group.add_argument("--samples", type=int, help="of the test; default: bs 1000, ar 10000")
    group.add_argument(
        "--blind",
        nargs="+",
        type=Path,
        default=[],
        help="the blind control's file; default: NAME_blind_predictions.jsonl beside "
        "NAME_predictions.jsonl, where it fits",
    )
    group.add_argument("--no-blind", action="store_true", help="look for no blind control")


def _score(args) -> None:
    from slam_potsa.evaluation.file_scores import score_file

    preset = _preset(args.preset)
    request = _request(args, _convention(args, preset))
    sources = _sources(args)
    comet = _comet(args, sources)
    commands = _dump(args, sources, request)
    scored = [score_file(source, request, comet) for source in sources]
    print("\n\n".join(_text(scored, preset, args.comet)))
    if args.show_commands:
        print(f"\n{commands}")
    if args.json:
        _write_json(args.json, scored, preset)


def _preset(name: str | None) -> Preset | None:
    from slam_potsa.evaluation.presets import find_preset

    return find_preset(name) if name else None


def _convention(args, preset: Preset | None) -> Convention:
    """The preset's, or the default, with what --spbleu and --wer add and take away."""
    from slam_potsa.evaluation.presets import SPBLEU
    from slam_potsa.evaluation.scores import Convention, ErrorRate

    convention = preset.convention if preset else Convention()
    if args.spbleu is not None:
        others = {k: v for k, v in convention.more_bleu.items() if k not in SPBLEU}
        convention = replace(convention, more_bleu=others | (SPBLEU if args.spbleu else {}))
    if args.wer is not None:
        rate = convention.error_rate or ErrorRate()
        convention = replace(convention, error_rate=rate if args.wer else None)
    return convention


def _request(args, convention: Convention) -> Request:
    """Raises InputError with every option that does not fit."""
    from slam_potsa.evaluation.file_scores import Request
    from slam_potsa.evaluation.significance import TESTS

    problems = []
    if args.test not in TESTS:
        problems.append(f"--test: found {args.test!r}, expected {' or '.join(TESTS)}")
    for name, least in (("bootstrap", 0), ("samples", 1), ("worst", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            problems.append(f"--{name}: found {value}, expected {least} or more")
    if args.show_commands and not args.dump:
        problems.append("--show-commands needs the files that its commands read: add --dump FOLDER")
    for name in ("baseline", "blind"):
        given, files = len(getattr(args, name)), len(args.predictions)
        if given not in (0, 1, files) or (name == "blind" and given not in (0, files)):
            problems.append(f"--{name}: found {given} files for {files} of predictions")
    if args.blind and args.no_blind:
        problems.append("--blind and --no-blind: expected one of them")
    if problems:
        raise InputError(problems)
    shared = {"seen": args.seen, "zero_shot": args.zero_shot, "bootstrap": args.bootstrap}
    return Request(convention, test=args.test, samples=args.samples, worst=args.worst, **shared)


def _sources(args) -> list[Source]:
    """Every file read and matched, with all problems at once."""
    from slam_potsa.data.predictions import read_predictions
    from slam_potsa.evaluation.file_scores import Source
    from slam_potsa.evaluation.seed_scores import check_same_test

    files = list(args.predictions)
    old = args.baseline * len(files) if len(args.baseline) == 1 else args.baseline
    problems: list[str] = []
    if len({path.resolve() for path in files}) < len(files):
        problems.append("the same prediction file is given twice; expected one for each seed")

    def told(read: Callable, *given) -> list:
        try:
            return read(*given)
        except InputError as error:
            problems.extend(error.problems)
            return []

    sources = []
    for place, path in enumerate(files):
        items = told(read_predictions, path)
        baseline = told(read_predictions, old[place]) if old else []
        blind = told(_blind, args, place, items) if items else []
        sources.append(Source(path, items, baseline, blind))
    if problems:
        raise InputError(problems)
    for source in sources:
        source.check()
    check_same_test({str(source.path): source.predictions for source in sources})
    return sources


def _blind(args, place: int, items: Sequence[Prediction]) -> Sequence[Prediction]:
    """The blind control of a file; [] with a warning where one that nobody named does not fit.

    Raises InputError where one that was named cannot be read or does not fit.
    """
    from slam_potsa.data.predictions import read_predictions
    from slam_potsa.evaluation.blind_control import blind_file, check_blind

    if args.no_blind:
        return []
    path = args.blind[place] if args.blind else blind_file(args.predictions[place])
    if path is None:
        return []
    try:
        blind = read_predictions(path)
        check_blind(items, blind, path)
    except InputError as error:
        if args.blind:
            raise
        print(
            f"warning: {path}: found beside the predictions and left out as blind control "
            f"(--no-blind: do not look for one): {error}",
            file=sys.stderr,
        )
        return []
    return blind


def _comet(args, sources: Sequence[Source]) -> Comet | None:
    """The model; None where none is asked for, or where --dump hands COMET over to commands."""
    from slam_potsa.evaluation.codes import transcribes
    from slam_potsa.evaluation.comet import Comet, check_sources, installed

    if not args.comet:
        return None
    for source in sources:
        check_sources([item for item in source.predictions if not transcribes(item)])
    return None if args.dump and not installed() else Comet.load(args.comet)


def _dump(args, sources: Sequence[Source], request: Request) -> str:
    """Write the files of --dump, a folder a file where there are several; return the commands."""
    from slam_potsa.evaluation.dump import Settings, dump
    from slam_potsa.evaluation.scores import corpora

    if not args.dump:
        return ""
    parts = []
    for number, source in enumerate(sources, start=1):
        settings = Settings(
            request.convention,
            request.bootstrap,
            comet=args.comet or "",
            baseline=source.baseline,
            test=request.test,
            samples=request.samples,
            blind=source.blind,
        )
        folder = args.dump / str(number) if len(sources) > 1 else args.dump
        found = corpora(source.predictions, request.seen, request.zero_shot)
        parts.append(dump(folder, found, settings))
    return "\n".join(parts)


def _text(scored: Sequence[FileScores], preset: Preset | None, comet: str | None) -> list[str]:
    """The parts of what is printed."""
    from slam_potsa.evaluation.comet import installed
    from slam_potsa.evaluation.seed_scores import seed_scores, seeds_text

    several = len(scored) > 1
    parts = [f"{item.path}\n{item.text()}" if several else item.text() for item in scored]
    if several:
        parts.append(seeds_text(seed_scores([item.table for item in scored])))
    if preset:
        parts.append(f"preset {preset.name}: {preset.note}")
    if preset and preset.comet and not comet:
        parts.append(
            f"not computed: COMET, which {preset.name} reports; add --comet {preset.comet}"
        )
    if comet and not installed():
        parts.append("not computed: COMET is not installed here; run its commands of --dump")
    return parts


def _write_json(path: Path, scored: Sequence[FileScores], preset: Preset | None) -> None:
    """One file: its table with the rest beside; several: a list of these, and the seeds."""
    import json

    from slam_potsa.evaluation.seed_scores import seed_scores
    from slam_potsa.files import atomic_write

    content = {"preset": preset.name if preset else None}
    if len(scored) == 1:
        content |= scored[0].as_dict()
    else:
        seeds = seed_scores([item.table for item in scored])
        content |= {"files": [item.as_dict() for item in scored]}
        content |= {"seeds": [item.as_dict() for item in seeds]}
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
