"""From run directories to a `Report`: scores, analyses, plans, samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from tqdm import tqdm

from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.errors import InputError
from slam_potsa.evaluation.file_scores import (
    FileScores,
    PredictionFile,
    ScoreRequest,
    read_file,
    score_file,
    with_found_blind,
)
from slam_potsa.evaluation.report.contents import Report, Run, Sample
from slam_potsa.evaluation.report.directories import open_runs
from slam_potsa.evaluation.report.manifests import Manifests, candidates, describe
from slam_potsa.evaluation.report.request import ReportRequest

VERSIONS = ("torch", "transformers", "sacrebleu", "numpy")
Predictions = Mapping[tuple[str, str], Sequence[Prediction]]  # (run, test) -> rows


def build_report(
    paths: Sequence[str | Path], request: ReportRequest | None = None, *, progress: bool = False
) -> Report:
    """Read the runs, score every prediction file, look into the models.

    Raises:
        InputError: paths that are no runs, files that cannot be read, a request that does not fit;
            everything at once, before anything is scored. What cannot be scored or analysed, for
            references or models that are not there, is left out and said in the report.
    """
    request = request or ReportRequest()
    runs, predictions = _read(paths, request)
    manifests = Manifests()
    places = _places(runs, predictions, request, manifests)
    known = request.heard if request.heard is not None else manifests.heard(runs[0])
    seen, zero_shot = _groups(known, request, predictions)
    left_out: dict[str, list[str]] = {}
    runs, left_out["scores"] = _scored(runs, predictions, request, (seen, zero_shot), progress)
    if request.analysis:
        more = _looked_into(runs, request, known, list(places.values()), manifests, progress)
        runs, left_out["analysis"], left_out["plans"] = more
    samples = [
        sample
        for test in Report(runs, request).tests
        for sample in _samples(test, runs, predictions, places.get(test), request.samples)
    ]
    recordings = {
        (test, item.key): (item.source, places[test].parent)
        for (_, test), items in predictions.items()
        for item in items
        if test in places
    }
    return Report(
        runs,
        request,
        seen,
        zero_shot,
        describe(runs, places, manifests),
        samples,
        recordings,
        left_out,
        versions(),
        _warnings(runs, request, manifests),
    )


def versions() -> dict[str, str]:
    """Of what the report is made with; a run directory does not say what trained it."""
    from slam_potsa import __version__

    found = {"slam_potsa": __version__, "Python": python_version()}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _read(
    paths: Sequence[str | Path], request: ReportRequest
) -> tuple[list[Run], dict[tuple[str, str], list[Prediction]]]:
    problems = request.problems(len(paths))
    problems += [
        f"{path}: no such manifest; expected a file of JSON Lines"
        for path in request.manifests
        if not path.is_file()
    ]
    runs: list[Run] = []
    predictions = {}
    try:
        fitting = len(request.names) == len(paths)
        runs = open_runs(paths, request.names if fitting else ())
    except InputError as error:
        problems += error.problems
    for run in runs:
        for test, path in run.tests.items():
            try:
                predictions[run.name, test] = read_predictions(path)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    return runs, predictions


def _places(
    runs: Sequence[Run], predictions: Predictions, request: ReportRequest, manifests: Manifests
) -> dict[str, Path]:
    """test -> its manifest, where one is found."""
    found: dict[str, Path] = {}
    for run in runs:
        paths = candidates(run, request.manifests)
        for test in run.tests:
            place = manifests.decoded(test, predictions[run.name, test], paths)
            if place is not None:
                found.setdefault(test, place)
    return found


def _groups(
    known: Sequence[str] | None, request: ReportRequest, predictions: Predictions
) -> tuple[list[str], list[str]]:
    """(heard, zero-shot) languages; both empty where nobody knows what was heard."""
    if known is None:
        return [], list(request.zero_shot or ())
    spoken = sorted({item.language for items in predictions.values() for item in items})
    zero_shot = request.zero_shot
    if zero_shot is None:
        zero_shot = [language for language in spoken if language not in known]
    return [language for language in known if language not in zero_shot], list(zero_shot)


def _warnings(runs: Sequence[Run], request: ReportRequest, manifests: Manifests) -> list[str]:
    """That the groups are those of the first run, where others heard other languages."""
    heard = {run.name: manifests.heard(run) for run in runs}
    alike = len({None if found is None else tuple(found) for found in heard.values()}) == 1
    if alike or request.heard is not None or request.zero_shot is not None:
        return []
    told = "; ".join(
        f"{name} on {'languages not known' if found is None else ', '.join(found)}"
        for name, found in heard.items()
    )
    return [
        f"The runs were trained on different languages: {told}. “Seen” and “zero-shot” below are "
        f"those of {runs[0].name}, and false for a run that heard others. Give --heard and "
        "--zero-shot to group all runs alike."
    ]


def _scored(
    runs: Sequence[Run],
    predictions: Predictions,
    request: ReportRequest,
    groups: tuple[Sequence[str], Sequence[str]],
    progress: bool,
) -> tuple[list[Run], list[str]]:
    """(the runs with their scores, why some have none or are not compared)."""
    from slam_potsa.evaluation.presets import Convention, find_preset

    convention = find_preset(request.preset).convention if request.preset else Convention()
    resamples = {"bootstrap": request.bootstrap, "samples": request.bootstrap or None}
    asked = ScoreRequest(convention, *groups, worst=request.worst, **resamples)
    files = [(run, test) for run in runs for test in run.tests]
    scored: dict[str, dict[str, FileScores]] = {run.name: {} for run in runs}
    reasons: list[str] = []
    for run, test in tqdm(files, desc="scoring", unit="file", disable=not progress, leave=False):
        tested = request.bootstrap and run is not runs[0]
        first = runs[0].tests.get(test) if tested else None
        source, why = _source(run.tests[test], first)
        reasons += [f"{run.name}, {test}: {reason}" for reason in why]
        try:
            scored[run.name][test] = score_file(source, asked)
        except InputError as error:
            reasons += [f"{run.name}, {test}: {problem}" for problem in error.problems]
    return [run.having(scored=scored[run.name]) for run in runs], reasons


def _source(path: Path, first: Path | None) -> tuple[PredictionFile, list[str]]:
    """(a file with those of baseline and blind control that fit it, why others do not)."""
    reasons = []
    try:
        file = read_file(path, first)
    except InputError as error:
        reasons += [f"no comparison with the first run: {problem}" for problem in error.problems]
        file = read_file(path)
    file, why = with_found_blind(file)
    return file, reasons + [f"no blind control: {reason}" for reason in why]


def _looked_into(
    runs: Sequence[Run],
    request: ReportRequest,
    heard: Sequence[str] | None,
    tests: Sequence[Path],
    manifests: Manifests,
    progress: bool,
) -> tuple[list[Run], list[str], list[str]]:
    """(the runs with analyses and plans, why some have none, the same of plans)."""
    from slam_potsa.evaluation.report.analyses import analyse
    from slam_potsa.evaluation.report.models import Models
    from slam_potsa.evaluation.report.plans import choose_pairs, with_plans

    data = runs[0].config.dataset_config
    trained = [Path(path) for path in (data.val_data_path, data.train_data_path) if path]
    choices = [list(request.manifests)] if request.manifests else []
    if not choices:
        choices = [manifests.together(tests), *([path] for path in (*tests, *trained))]
        choices = [choice for choice in choices if choice]
        choices = [choice for choice in choices if all(path.is_file() for path in choice)]
    models = Models()
    runs, reasons = analyse(runs, request, heard, choices, models, progress=progress)
    used = next((map(Path, run.analysis.manifests) for run in runs if run.analysis), None)
    paths = list(used) if used else [path for choice in choices[:1] for path in choice]
    runs, why = with_plans(runs, choose_pairs(paths, heard or (), manifests), models)
    return runs, reasons, why


def _samples(
    test: str, runs: Sequence[Run], predictions: Predictions, place: Path | None, each: int
) -> list[Sample]:
    """The first recordings of every language of a test; chosen by order, not by quality."""
    outputs = {
        run.name: {item.key: item for item in predictions[run.name, test]}
        for run in runs
        if test in run.tests
    }
    samples, taken = [], {}
    for item in next(iter(outputs.values())).values():
        taken[item.language] = taken.get(item.language, 0) + 1
        if taken[item.language] > each:
            continue
        texts = {
            name: rows[item.key].prediction for name, rows in outputs.items() if item.key in rows
        }
        base = place.parent if place else None
        said, meant = item.transcript, item.reference
        samples.append(Sample(test, item.key, item.language, item.source, base, said, meant, texts))
    return samples
