"""What lies in run directories, as plain records. Scores are computed here; no model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slam_potsa.config import PotsaConfig
from slam_potsa.data.jsonl import read_log
from slam_potsa.data.predictions import Origin, Prediction, read_predictions, read_texts
from slam_potsa.engine.run_directory import CONFIG, read_config
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.analysis import (
    FILE,
    FOLDER,
    RECORD,
    Analysis,
    heard_in_training,
    read_analysis,
)
from slam_potsa.evaluation.compare import SUFFIX, find_blind, match
from slam_potsa.evaluation.scores import ScoreTable, score
from slam_potsa.evaluation.text_metrics import Score, find_preset
from slam_potsa.model.metrics import METRICS
from slam_potsa.provenance import Record, read_record

DECODED = "{}.done.json"  # the record of a test's predictions


@dataclass(frozen=True)
class Request:
    """How runs are reported; texts are plain."""

    title: str = ""
    summary: str = ""  # a sentence or two
    notes: Sequence[str] = ()  # what a reader must know before quoting a number
    names: Sequence[str] = ()  # one for each run; empty: those of their directories
    heard: Sequence[str] | None = None  # languages; None: of the first run's training manifest
    preset: str | None = None  # whose way of scoring, as `slam-potsa score --preset`
    bootstrap: int = 1000  # resamples of the intervals and of the paired tests; 0: neither
    samples: int = 3  # recordings of each language of each test to show
    worst: int = 5  # rows of each test
    titles: Mapping[str, str] = field(default_factory=dict)  # test -> how the page calls it
    # What SLAM-LLM's _pred files of a run do not say; of its own predictions.jsonl nothing.
    origin: Origin = field(default_factory=Origin)
    audio_roots: Sequence[Path] = ()  # folders whose recordings may be in the page too
    argv: Sequence[str] = ()  # the command that makes this page, to be shown


@dataclass(frozen=True)
class Run:
    """A run directory, and what was found in it."""

    name: str  # as the page calls it
    path: Path  # as it was given
    config: PotsaConfig = field(default_factory=PotsaConfig)  # with the defaults filled in
    text: str = ""  # config.yaml as it stands there
    # The lines of metrics.jsonl (see model.metrics), each of which may lack any number.
    metrics: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Sequence[Prediction]] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)  # test -> how it was decoded, …
    scored: Mapping[str, ScoreTable] = field(default_factory=dict)  # test -> its scores
    analysis: Analysis | None = None

    def recall(self, group: str) -> Score | None:
        """R@1 at the projector's output in per cent, the mean over a group of language pairs."""
        numbers = self.analysis.numbers["projector"] if self.analysis else {}
        names = [f"{name}, {group}" for name in ("R@1", "R@1 low", "R@1 high")]
        return Score(*(100 * numbers[n] for n in names)) if names[0] in numbers else None

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """(steps, values) of the lines that have a finite one."""
        found = [
            (line["step"], line[key])
            for line in self.metrics
            if line.get(key) is not None and math.isfinite(line[key])
        ]
        return [step for step, _ in found], [value for _, value in found]

    @property
    def aligned(self) -> dict[int, Sequence[int]]:
        """step -> its layers, of those that aligned any."""
        return {line["step"]: line["layers"] for line in self.metrics if line.get("layers")}


@dataclass(frozen=True)
class Report:
    """All that the page shows. The first run is the one that others are compared with."""

    runs: Sequence[Run]
    request: Request = field(default_factory=Request)
    heard: Sequence[str] = ()  # the groups of the scores
    zero_shot: Sequence[str] = ()
    joined: Sequence[str] = ()
    left_out: Sequence[str] = ()  # why something is missing

    @property
    def tests(self) -> dict[str, str]:
        """test -> title, of every test that some run decoded; those given a title first."""
        names, titles = {test for run in self.runs for test in run.tests}, self.request.titles
        order = [*(test for test in titles if test in names), *sorted(names - titles.keys())]
        return {test: titles.get(test, test) for test in order}

    def manifest(self, test: str) -> Path | None:
        """The one that was decoded, as far as it is known and there."""
        records = (run.records[test] for run in self.runs if test in run.tests)
        paths = (Path(record.notes.get("manifest", "")) for record in records)
        return next((path for path in paths if path.is_file()), None)

    def scores(self, test: str) -> dict[str, ScoreTable]:
        """run -> its scores of a test."""
        return {run.name: run.scored[test] for run in self.runs if test in run.scored}

    @property
    def groups(self) -> list[str]:
        groups = {"seen": self.heard, "joined": self.joined, "zero-shot": self.zero_shot}
        return [group for group, languages in groups.items() if languages] or ["all"]


def collect(paths: Sequence[str | Path], request: Request | None = None) -> Report:
    """Read the runs, and score every prediction file.

    What cannot be scored, for references that are not there, or is outdated, as an analysis of
    another checkpoint, is left out and said in the report.

    Raises InputError with every path that is no run directory, every file that cannot be read, and
    names that do not tell the runs apart.
    """
    request, paths, problems, left_out = request or Request(), [*map(Path, paths)], [], []
    names = request.names or [path.resolve().name for path in paths]
    if not paths or len(paths) != len(names) or len(names) != len(set(names)):
        problems.append(f"runs: found {len(paths)} called {names}; expected one --names for each")
    runs = []
    for path, name in zip(paths, names, strict=False):
        with collecting(problems):
            runs.append(_open(path, name, left_out, request.origin))
    refuse(problems)
    known, first = request.heard is not None, runs[0].config
    own = {*first.dataset_config.joining}
    heard = request.heard if known else [h for h in heard_in_training(first) if h not in own]
    joining = {language for run in runs for language in run.config.dataset_config.joining}
    spoken = {item.language for run in runs for items in run.tests.values() for item in items}
    joined = sorted(spoken & joining - {*heard}) if heard else []
    zero_shot = sorted(spoken - {*heard, *joined}) if heard else []
    asked = {"convention": find_preset(request.preset), "bootstrap": request.bootstrap}
    asked |= {"samples": request.bootstrap or 1000, "worst": request.worst}
    asked |= {"seen": heard, "zero_shot": zero_shot, "joined": joined}
    scored = [
        replace(run, scored=_scored(run, runs[0], asked, left_out))
        for run in tqdm(runs, desc="scoring", unit="run", disable=None, leave=False)
    ]
    return Report(scored, request, heard, zero_shot, joined, left_out)


def _open(path: Path, name: str, left_out: list[str], origin: Origin) -> Run:
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: no {CONFIG} there; expected the output_dir of a training run")
    # Blind controls belong to their test.
    files = [file for file in path.glob(f"*{SUFFIX}") if not file.match(f"*_blind{SUFFIX}")]
    tests = {file.name.removesuffix(SUFFIX): read_predictions(file) for file in sorted(files)}
    slam = [f for f in path.glob("*_pred") if not f.with_name(f"{f.name}ictions.jsonl").exists()]
    for file in sorted(slam):
        with collecting(left_out, name):
            tests[file.name.removesuffix("_pred")] = read_texts(file, origin)
    places = {FOLDER: f"{FOLDER}/{RECORD}"} | {test: DECODED.format(test) for test in tests}
    log = path / METRICS
    metrics, written = (read_log(log), log.read_bytes().splitlines()) if log.is_file() else ([], [])
    if lost := len(written) - len(metrics):
        told = f"damaged or cut off after {len(metrics)} lines"
        left_out.append(f"{name}: {METRICS} is {told}, the other {lost} are left out")
    analysis = None
    if (path / FOLDER / FILE).is_file():
        with collecting(left_out, name):
            analysis = read_analysis(path)
    return Run(
        name,
        path,
        config=read_config(path),
        text=(path / CONFIG).read_text(encoding="utf-8"),
        metrics=metrics,
        tests=tests,
        records={made: read_record(path / place) or Record({}) for made, place in places.items()},
        analysis=analysis,
    )


def _scored(
    run: Run, first: Run, asked: Mapping[str, Any], left_out: list[str]
) -> dict[str, ScoreTable]:
    """test -> its scores, against those of the `first` run where that is another one."""
    scored = {}
    for test, items in run.tests.items():
        theirs = first.tests.get(test, ()) if asked["bootstrap"] and run is not first else ()
        blind, against, why = (), (), []
        with collecting(why):
            blind = find_blind(run.path / f"{test}{SUFFIX}", items)
        with collecting(why, f"not compared with {first.name}"):
            match(theirs or items, items)
            against = theirs
        with collecting(why):
            scored[test] = score(items, baseline=against, blind=blind, **asked)
        left_out += [f"{run.name}, {test}: {reason}" for reason in why]
    return scored
