"""The analysis of each run's model: one that is there and fresh, or a new one.

`slam-potsa analyze RUN` leaves RUN/analysis/analysis.json. It is used here if it is newer than the
model and the manifests, and made of what is asked for; what is not asked for (manifests, number of
sentences) is taken as it finds it there. A new one goes to RUN/analysis/report.json, so that the
user's own stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from slam_potsa.engine.run_directory import MODEL
from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis import (
    Analysis,
    Settings,
    analyze,
    read_analysis,
    read_recordings,
    require_packages,
    write_analysis,
)
from slam_potsa.evaluation.report.contents import Run
from slam_potsa.evaluation.report.models import Models
from slam_potsa.evaluation.report.request import SENTENCES, ReportRequest

FOLDER, FILES = "analysis", ("analysis.json", "report.json")


@dataclass(frozen=True)
class Wanted:
    """What runs are analysed on, alike for all, so that they can be compared."""

    manifests: tuple[Path, ...]
    settings: Settings
    heard: tuple[str, ...] | None

    def matches(self, found: Analysis) -> bool:
        same = found.settings == self.settings and found.heard == self.heard
        return same and _resolved(found.manifests) == _resolved(self.manifests)


def analyse(
    runs: Sequence[Run],
    request: ReportRequest,
    heard: Sequence[str] | None,
    manifests: Sequence[Sequence[Path]],
    models: Models,
    *,
    progress: bool = False,
) -> tuple[list[Run], list[str]]:
    """(the runs with their analyses where there are any, why others have none).

    Args:
        heard: languages of training, or None where they are not known.
        manifests: choices in order; the first with parallel sentences is taken.
    """
    try:
        wanted = _wanted(runs, request, heard, manifests)
    except InputError as error:
        return list(runs), error.problems
    found, reasons = [], []
    for run in runs:
        fresh = next((item for item in _fresh(run) if wanted.matches(item)), None)
        try:
            result = fresh or _new(run, wanted, models, progress)
            # Called alike in all runs: they are compared by these names.
            called = {"name": run.name, "manifests": tuple(map(str, wanted.manifests))}
            found.append(run.having(analysis=replace(result, **called)))
        except InputError as error:
            found.append(run)
            reasons += [f"{run.name}: {problem}" for problem in error.problems]
    return found, reasons


def _wanted(
    runs: Sequence[Run],
    request: ReportRequest,
    heard: Sequence[str] | None,
    manifests: Sequence[Sequence[Path]],
) -> Wanted:
    """Those of an analysis that is there and fits the request, else the request's."""
    for run in runs:
        for found in _fresh(run):
            wanted = Wanted(tuple(map(Path, found.manifests)), found.settings, found.heard)
            if _fits(wanted, found, request, heard):
                return wanted
    require_packages()
    count = SENTENCES if request.sentences is None else request.sentences
    settings = Settings(sentences=count or None)
    problems: list[str] = []
    for choice in manifests:
        try:
            spoken = set(read_recordings(choice, settings).languages)
        except InputError as error:
            problems += error.problems
            continue
        known = None if heard is None else tuple(sorted(spoken & set(heard)))
        return Wanted(tuple(choice), settings, known)
    hint = "no manifest with the same sentences in two languages was found; give --manifest"
    raise InputError([hint, *dict.fromkeys(problems)])


def _fits(
    wanted: Wanted, found: Analysis, request: ReportRequest, heard: Sequence[str] | None
) -> bool:
    asked = request.sentences
    if asked is not None and found.settings != Settings(sentences=asked or None):
        return False
    if request.manifests and _resolved(wanted.manifests) != _resolved(request.manifests):
        return False
    known = None if heard is None else tuple(sorted(set(heard) & set(found.recordings)))
    return known is None or set(found.heard or ()) == set(known)


def _fresh(run: Run) -> list[Analysis]:
    """Analyses of the run that are newer than its model and their manifests."""
    model, found = run.path / MODEL, []
    for name in FILES:
        path = run.path / FOLDER / name
        if not path.is_file() or not model.is_file():
            continue
        try:
            analysis, _ = read_analysis(path)
        except InputError:  # of another version
            continue
        if is_newer(path, [model, *map(Path, analysis.manifests)]):
            found.append(analysis)
    return found


def _new(run: Run, wanted: Wanted, models: Models, progress: bool) -> Analysis:
    options = {"heard": wanted.heard, "settings": wanted.settings, "progress": progress}
    found = analyze(models.of(run), list(wanted.manifests), name=run.name, **options)
    models.keep(lambda: write_analysis(run.path / FOLDER / FILES[1], found))
    return found


def is_newer(path: Path, than: Sequence[Path]) -> bool:
    """Whether `path` was written after all the others; one that is gone is older."""
    age = path.stat().st_mtime
    return all(not other.is_file() or other.stat().st_mtime <= age for other in than)


def _resolved(paths: Sequence[str | Path]) -> list[Path]:
    return [Path(path).resolve() for path in paths]
