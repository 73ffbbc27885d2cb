"""What lies in run directories, as plain records. Scores are computed here; no model is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from slam_potsa.config import PotsaConfig
from slam_potsa.data.manifest import ManifestSummary, Utterance, check_manifest, read_manifest
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, SCHEDULE, read_config
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.analysis import (
    FILE,
    FOLDER,
    RECORD,
    Analysis,
    analyses_of,
    why_analysis_is_outdated,
)
from slam_potsa.evaluation.compare import SUFFIX, find_blind, match
from slam_potsa.evaluation.presets import find_preset
from slam_potsa.evaluation.scores import ScoreTable, score
from slam_potsa.model.metrics import METRICS, read_metrics
from slam_potsa.provenance import Record, read_record

DECODED = "{}.done.json"  # the record of a test's predictions
ANALYSED = Path(FOLDER, FILE).with_suffix(RECORD)


@dataclass(frozen=True)
class Request:
    """How runs are reported; texts are plain."""

    title: str = ""
    summary: str = ""  # a sentence or two
    notes: Sequence[str] = ()  # what a reader must know before quoting a number
    names: Sequence[str] = ()  # one for each run; empty: those of their directories
    heard: Sequence[str] | None = None  # languages; None: of the first run's training manifest
    zero_shot: Sequence[str] | None = None  # never heard; None: all others that were decoded
    manifests: Sequence[Path] = ()  # of tests whose predictions do not say what they are of
    preset: str | None = None  # whose way of scoring, as `slam-potsa score --preset`
    bootstrap: int = 1000  # resamples of the intervals and of the paired tests; 0: neither
    samples: int = 3  # recordings of each language of each test to show
    worst: int = 5  # rows of each test
    titles: Mapping[str, str] = field(default_factory=dict)  # test -> how the page calls it
    retrieval_title: str = "cross-lingual retrieval"  # how the headline calls R@1
    seconds: Mapping[str, float] = field(default_factory=dict)  # phase -> wall time, to be shown
    argv: Sequence[str] = ()  # the command that makes this page, to be shown


@dataclass(frozen=True)
class Run:
    """A run directory, and what was found in it."""

    name: str  # as the page calls it
    path: Path  # as it was given
    config: PotsaConfig = field(default_factory=PotsaConfig)  # with the defaults filled in
    text: str = ""  # config.yaml as it stands there
    # The lines of metrics.jsonl (see model.metrics), each of which may lack any number, and as one
    # more where eq. 5-7 stood when schedule.json was written.
    metrics: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Sequence[Prediction]] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)  # test -> how it was decoded, …
    scored: Mapping[str, ScoreTable] = field(default_factory=dict)  # test -> its scores
    analysis: Analysis | None = None

    def recall(self, group: str) -> float | None:
        """R@1 at the projector's output, 0 to 1: the mean over a group of language pairs."""
        found = self.analysis.taps["projector"].numbers if self.analysis else {}
        return found.get(f"R@1, {group}")

    def series(self, key: str) -> tuple[list[float], list[float]]:
        """(steps, values) of the lines that have a finite one."""
        found = [
            (line["step"], line[key])
            for line in self.metrics
            if "step" in line and line.get(key) is not None and math.isfinite(line[key])
        ]
        return [step for step, _ in found], [value for _, value in found]

    def layers(self, kind: str) -> list[int]:
        """The layers that have numbers `<kind>/<layer>/…`."""
        keys = {key for line in self.metrics for key, value in line.items() if value is not None}
        return sorted({int(key.split("/")[1]) for key in keys if key.startswith(f"{kind}/")})

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
    manifests: Mapping[str, Path] = field(default_factory=dict)  # test -> its, where it is known
    data: Mapping[str, ManifestSummary] = field(default_factory=dict)  # manifest -> what it holds
    # test -> run -> share of its sentences (`sentence_id`, whoever speaks them, in whatever
    # language) that are also in the run's training manifest.
    trained: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()  # what must be known before the scores are read
    left_out: Sequence[str] = ()  # why something is missing

    @property
    def tests(self) -> dict[str, str]:
        """test -> title, of every test that some run decoded; those given a title first."""
        names = dict.fromkeys(test for run in self.runs for test in run.tests)
        titles = self.request.titles
        order = [*(test for test in titles if test in names), *names]
        return {test: titles.get(test, test) for test in order}

    def scores(self, test: str) -> dict[str, ScoreTable]:
        """run -> its scores of a test."""
        return {run.name: run.scored[test] for run in self.runs if test in run.scored}

    @property
    def groups(self) -> list[str]:
        groups = {"seen": self.heard, "zero-shot": self.zero_shot}
        return [group for group, languages in groups.items() if languages] or ["all"]


def collect(
    paths: Sequence[str | Path], request: Request | None = None, *, progress: bool = False
) -> Report:
    """Read the runs, and score every prediction file.

    Raises InputError with what `open_runs` refuses. What cannot be scored, for references that are
    not there, is left out and said in the report.
    """
    request = request or Request()
    runs = open_runs(paths, request.names)
    stale = {run.name: why_analysis_is_outdated(run.path) for run in runs}
    runs = [replace(run, analysis=None) if stale[run.name] else run for run in runs]
    rows = {run.name: _rows(run.config.dataset_config.train_data_path) for run in runs}
    heard = {name: sorted({row.language for row in found}) for name, found in rows.items()}
    groups = _groups(runs, request, heard[runs[0].name])
    manifests = find_manifests(runs, request.manifests)
    configs = [run.config.dataset_config for run in runs]
    used = [path for data in configs for path in (data.train_data_path, data.val_data_path)]
    used += manifests.values()
    data = {str(path): check_manifest(path, audio=False) for path in used if _rows(path)}
    trained = {
        test: {
            run.name: _shared(_rows(path), rows[run.name])
            for run in runs
            if test in run.tests and rows[run.name]
        }
        for test, path in manifests.items()
    }
    scored, left_out = _scored(runs, request, groups, progress)
    left_out += [f"{name}, analysis: {reason}" for name, why in stale.items() for reason in why]
    warnings = _warnings(heard, request)
    return Report(scored, request, *groups, manifests, data, trained, warnings, left_out)


def open_runs(paths: Sequence[str | Path], names: Sequence[str] = ()) -> list[Run]:
    """The runs in the order given, without scores yet.

    Raises InputError with every path that is no run directory, every file that cannot be read, and
    names that do not tell the runs apart.
    """
    paths, problems, runs = list(map(Path, paths)), [], []
    own = [path.resolve().name for path in paths]
    names = names or (own if len(set(own)) == len(own) else list(map(str, paths)))
    if not paths or len(paths) != len(names) or len(names) != len(set(names)):
        problems.append(f"runs: found {len(paths)} called {names}; expected one name for each")
    for path, name in zip(paths, names, strict=False):
        with collecting(problems):
            runs.append(_open(path, name))
    analyses: Mapping[Path, Analysis] = {}
    with collecting(problems):
        analyses = analyses_of(paths)
    refuse(problems)
    return [replace(run, analysis=analyses.get(run.path)) for run in runs]


def _open(path: Path, name: str) -> Run:
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: no {CONFIG} there; expected the output_dir of a training run")
    config, text = read_config(path), (path / CONFIG).read_text(encoding="utf-8")
    metrics = read_metrics(path / METRICS) if (path / METRICS).is_file() else []
    if (path / SCHEDULE).is_file():
        metrics.append(_state(json.loads((path / SCHEDULE).read_text(encoding="utf-8"))))
    # Blind controls belong to their test.
    files = [file for file in path.glob(f"*{SUFFIX}") if not file.match(f"*_blind{SUFFIX}")]
    tests = {file.name.removesuffix(SUFFIX): read_predictions(file) for file in sorted(files)}
    places = {"analysis": ANALYSED} | {test: DECODED.format(test) for test in tests}
    records = {name: read_record(path / place) or Record({}) for name, place in places.items()}
    return Run(name, path, config, text, metrics, tests, records)


def _state(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule.json as a line of metrics."""
    layers = schedule["layers"].items()
    numbers = {f"schedule/{n}/{name}": v for n, state in layers for name, v in state.items()}
    return {"step": schedule["step"], **numbers}


def _rows(manifest: str | Path) -> list[Utterance]:
    """None where it is missing or broken."""
    with suppress(InputError):
        return read_manifest(manifest) if Path(manifest).is_file() else []
    return []


def _shared(tested: Sequence[Utterance], trained: Sequence[Utterance]) -> float:
    """The share of sentences that were trained on too."""
    tested, trained = ({row.sentence_id for row in rows} for rows in (tested, trained))
    return len(tested & trained) / len(tested)


def find_manifests(runs: Sequence[Run], given: Sequence[Path] = ()) -> dict[str, Path]:
    """test -> the manifest that was decoded, where it is there and holds the recordings."""
    found: dict[str, Path] = {}
    for run in runs:
        for test, items in run.tests.items():
            wanted = {(item.key, item.source) for item in items}
            decoded = run.records[test].notes.get("manifest", "")
            for path in map(Path, (decoded, *given, run.config.dataset_config.test_data_path)):
                if wanted <= {(row.key, row.audio) for row in _rows(path)}:
                    found.setdefault(test, path)
    return found


def _groups(
    runs: Sequence[Run], request: Request, trained: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(heard, zero-shot) languages; both empty where nobody knows what was heard."""
    heard = list(trained if request.heard is None else request.heard)
    spoken = {item.language for run in runs for items in run.tests.values() for item in items}
    unheard = sorted(spoken - {*heard}) if heard else []
    unheard = unheard if request.zero_shot is None else list(request.zero_shot)
    return [language for language in heard if language not in unheard], unheard


def _warnings(heard: Mapping[str, Sequence[str]], request: Request) -> list[str]:
    """That the groups are those of the first run, where others heard other languages."""
    told = {name: ", ".join(found) or "languages not known" for name, found in heard.items()}
    given = request.heard is not None or request.zero_shot is not None
    if given or len(set(told.values())) < 2:
        return []
    named = "; ".join(f"{name} on {found}" for name, found in told.items())
    return [
        f"The runs were trained on different languages: {named}. “Seen” and “zero-shot” below are "
        f"those of {next(iter(told))}, and false for a run that heard others. Give --heard and "
        "--zero-shot to group all runs alike."
    ]


def _scored(
    runs: Sequence[Run], request: Request, groups: Sequence[Sequence[str]], progress: bool
) -> tuple[list[Run], list[str]]:
    """(the runs with their scores, why some have none or are not compared)."""
    asked = {"convention": find_preset(request.preset), "bootstrap": request.bootstrap}
    asked |= {"samples": request.bootstrap or None, "worst": request.worst}
    asked |= dict(zip(("seen", "zero_shot"), groups, strict=True))
    found, reasons = [], []
    for run in tqdm(runs, desc="scoring", unit="run", disable=not progress, leave=False):
        scored = {}
        for test, items in run.tests.items():
            first = runs[0].tests.get(test, ()) if request.bootstrap and run is not runs[0] else ()
            why: list[str] = []
            blind: Sequence[Prediction] = ()
            against: Sequence[Prediction] = ()
            with collecting(why):
                blind = find_blind(run.path / f"{test}{SUFFIX}", items)
            with collecting(why, f"not compared with {runs[0].name}"):
                match(first or items, items)
                against = first
            with collecting(why):
                scored[test] = score(items, baseline=against, blind=blind, **asked)
            reasons += [f"{run.name}, {test}: {reason}" for reason in why]
        found.append(replace(run, scored=scored))
    return found, reasons
