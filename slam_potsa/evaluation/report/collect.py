"""What lies in run directories, as plain records. Scores are computed here; no model is loaded."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.data.manifest import ManifestSummary, Utterance, check_manifest, read_manifest
from slam_potsa.data.predictions import Prediction, read_predictions
from slam_potsa.engine.run_directory import CONFIG, SCHEDULE
from slam_potsa.errors import InputError, collecting, refuse
from slam_potsa.evaluation.analysis import Analysis, analyses_of, why_analysis_is_outdated
from slam_potsa.evaluation.corpora import SUFFIX, find_blind, match
from slam_potsa.evaluation.presets import find_preset
from slam_potsa.evaluation.scores import ScoreTable, score
from slam_potsa.model.metrics import METRICS, read_metrics
from slam_potsa.provenance import Record, read_record

RECORD = ".done.json"


@dataclass(frozen=True)
class Request:
    """How runs are reported.

    Attributes:
        title, summary, notes: the page's headline, a sentence or two, and what a reader must know
            before quoting a number; plain text.
        names: one for each run; empty: the shortest ends of their paths that tell them apart.
        heard: languages of training; None: those of the first run's training manifest.
        zero_shot: languages never heard; None: all others that were decoded.
        manifests: of tests whose predictions do not say what they were decoded from.
        preset: whose way of scoring, as `slam-potsa score --preset`.
        bootstrap: resamples of the intervals and of the paired tests; 0: neither.
        samples: recordings of each language of each test to show. worst: rows of each test.
        titles: test -> how the page calls it. retrieval_title: how the headline calls R@1.
        seconds: phase -> wall time, to be shown.
        argv: the command that makes this page, to be shown.
    """

    title: str = ""
    summary: str = ""
    notes: Sequence[str] = ()
    names: Sequence[str] = ()
    heard: Sequence[str] | None = None
    zero_shot: Sequence[str] | None = None
    manifests: Sequence[Path] = ()
    preset: str | None = None
    bootstrap: int = 1000
    samples: int = 3
    worst: int = 5
    titles: Mapping[str, str] = field(default_factory=dict)
    retrieval_title: str = "cross-lingual retrieval"
    seconds: Mapping[str, float] = field(default_factory=dict)
    argv: Sequence[str] = ()


@dataclass(frozen=True)
class Run:
    """A run directory, and what was found in it.

    Attributes:
        name: as the page calls it.
        path: as it was given, so that commands can be repeated.
        config, text: config.yaml with the defaults filled in, and as it stands there.
        metrics: the lines of metrics.jsonl (see model.metrics_log), and as one more where eq. 5-7
            stood when schedule.json was written; a line may lack any of the numbers.
        tests: test -> what was decoded of it. records: test -> by what command, of what manifest.
        scored: test -> its scores.
        analysis: what `slam-potsa analyze` found.
    """

    name: str
    path: Path
    config: PotsaConfig = field(default_factory=PotsaConfig)
    text: str = ""
    metrics: Sequence[Mapping[str, Any]] = ()
    tests: Mapping[str, Sequence[Prediction]] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)
    scored: Mapping[str, ScoreTable] = field(default_factory=dict)
    analysis: Analysis | None = None

    @property
    def training(self) -> Path:
        return Path(self.config.dataset_config.train_data_path)

    @property
    def validation(self) -> Path:
        return Path(self.config.dataset_config.val_data_path)

    @property
    def aligned(self) -> list[Sequence[int]]:
        """The layers of each step that aligned any."""
        return [line["layers"] for line in self.metrics if line.get("layers")]

    @property
    def seconds(self) -> float | None:
        """Of training, without validation and saving; None where it was not written down."""
        found = self.series("seconds")[1]
        return sum(found) if found else None

    @property
    def recall(self) -> Mapping[str, float]:
        """R@1 at the projector's output: group of language pairs -> mean, 0 to 1."""
        numbers = self.analysis.taps["projector"].numbers if self.analysis else {}
        groups = ("all", "among heard", "with an unheard")
        return {name: numbers[f"R@1, {name}"] for name in groups if f"R@1, {name}" in numbers}

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


@dataclass(frozen=True)
class Report:
    """All that the page shows. The first run is the one that others are compared with.

    Attributes:
        heard, zero_shot: the groups of the scores.
        manifests: test -> the manifest that it is of, where that is known.
        data: manifest of training, validation or a test -> what it holds, where it is there.
        trained: test -> run -> share of its sentences (`sentence_id`, whoever speaks them, in
            whatever language) that are also in the run's training manifest.
        warnings: what must be known before the scores are read; plain text.
        left_out: why something is missing.
    """

    runs: Sequence[Run]
    request: Request = field(default_factory=Request)
    heard: Sequence[str] = ()
    zero_shot: Sequence[str] = ()
    manifests: Mapping[str, Path] = field(default_factory=dict)
    data: Mapping[Path, ManifestSummary] = field(default_factory=dict)
    trained: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    left_out: Sequence[str] = ()

    @property
    def tests(self) -> dict[str, str]:
        """test -> title, of every test that some run decoded; those given a title first."""
        names = dict.fromkeys(test for run in self.runs for test in run.tests)
        titles = self.request.titles
        order = [*(test for test in titles if test in names), *names]
        return {test: titles.get(test, test) for test in order}

    def samples(self, test: str) -> list[tuple[Prediction, dict[str, str]]]:
        """(row, run -> its text) of the first recordings of every language, by order alone."""
        texts: dict[str, dict[str, str]] = {}
        for run in self.runs:
            for item in run.tests.get(test, ()):
                texts.setdefault(item.key, {})[run.name] = item.prediction
        chosen, taken = [], Counter[str]()
        for item in next(run.tests[test] for run in self.runs if test in run.tests):
            taken[item.language] += 1
            if taken[item.language] <= self.request.samples:
                chosen.append((item, texts[item.key]))
        return chosen


def collect(
    paths: Sequence[str | Path], request: Request | None = None, *, progress: bool = False
) -> Report:
    """Read the runs, and score every prediction file.

    Raises:
        InputError: paths that are no runs, files that cannot be read, a request that does not fit;
            everything at once, before anything is scored. What cannot be scored, for references
            that are not there, is left out and said in the report.
    """
    request = request or Request()
    runs = open_runs(paths, request.names)
    heard = {run.name: _languages(_utterances(run.training)) for run in runs}
    groups = _groups(runs, request, heard[runs[0].name])
    manifests = find_manifests(runs, request.manifests)
    used = [path for run in runs for path in (run.training, run.validation)]
    used += manifests.values()
    data = {path: check_manifest(path, audio=False) for path in used if _utterances(path)}
    trained = {test: _trained(runs, test, path) for test, path in manifests.items()}
    warnings = _warnings(heard, request)
    runs, left_out = _scored(runs, request, groups, progress)
    for run in runs:
        left_out += [f"{run.name}, analysis: {why}" for why in why_analysis_is_outdated(run.path)]
    return Report(runs, request, *groups, manifests, data, trained, warnings, left_out)


def open_runs(paths: Sequence[str | Path], names: Sequence[str] = ()) -> list[Run]:
    """The runs in the order given, without scores yet.

    Raises InputError with every path that is no run directory, or given twice, and every file that
    cannot be read.
    """
    problems = [] if paths else ["found no run, expected at least one run directory"]
    resolved = [Path(path).resolve() for path in paths]
    twice = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    problems += [f"{path}: given twice; expected each run once" for path in twice]
    if names and len(names) != len(set(names)) or len(names) not in (0, len(paths)):
        problems.append(f"--names: found {list(names)}, expected {len(paths)} that differ")
        names = ()
    runs = []
    for path, name in zip(paths, names or ends(paths), strict=True):
        try:
            runs.append(_open(Path(path), name))
        except InputError as error:
            problems += error.problems
    analyses: Mapping[Path, Analysis] = {}
    with collecting(problems):
        analyses = analyses_of([run.path for run in runs])
    refuse(problems)
    return [replace(run, analysis=_named(analyses.get(run.path), run.name)) for run in runs]


def _named(analysis: Analysis | None, name: str) -> Analysis | None:
    return None if analysis is None else replace(analysis, name=name)


def ends(paths: Sequence[str | Path]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    >>> ends(["a/ours/seed1", "a/baseline/seed1"])
    ['ours/seed1', 'baseline/seed1']
    """
    parts = [Path(path).resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def _open(path: Path, name: str) -> Run:
    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: no {CONFIG} there; expected the output_dir of a training run")
    text = (path / CONFIG).read_text(encoding="utf-8")
    try:
        config = defaults(PotsaConfig, yaml.safe_load(text))
    except (yaml.YAMLError, InputError) as error:
        raise InputError(f"{path / CONFIG}: {error}; expected what training wrote there") from None
    metrics = read_metrics(path / METRICS) if (path / METRICS).is_file() else []
    # Blind controls belong to their test.
    files = [file for file in path.glob(f"*{SUFFIX}") if not file.match(f"*_blind{SUFFIX}")]
    tests = {file.name.removesuffix(SUFFIX): read_predictions(file) for file in sorted(files)}
    records = {test: read_record(path / f"{test}{RECORD}") or Record({}) for test in tests}
    if (path / SCHEDULE).is_file():
        metrics.append(_state(json.loads((path / SCHEDULE).read_text(encoding="utf-8"))))
    return Run(name, path, config, text, metrics, tests, records)


def _state(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule.json as a line of metrics."""
    layers = schedule["layers"].items()
    numbers = {f"schedule/{n}/{name}": v for n, state in layers for name, v in state.items()}
    return {"step": schedule["step"], **numbers}


def _utterances(path: Path) -> list[Utterance] | None:
    """The rows of a manifest; None where it is missing or broken."""
    try:
        return read_manifest(path) if path.is_file() else None
    except InputError:
        return None


def _languages(rows: Sequence[Utterance] | None) -> list[str] | None:
    return None if rows is None else sorted({row.language for row in rows})


def find_manifests(runs: Sequence[Run], given: Sequence[Path] = ()) -> dict[str, Path]:
    """test -> the manifest that was decoded, where it is there and holds the recordings."""
    found: dict[str, Path] = {}
    for run in runs:
        for test, items in run.tests.items():
            wanted = {(item.key, item.source) for item in items}
            decoded = run.records[test].notes.get("manifest", "")
            for path in map(Path, (decoded, *given, run.config.dataset_config.test_data_path)):
                if wanted <= {(row.key, row.audio) for row in _utterances(path) or ()}:
                    found.setdefault(test, path)
    return found


def parallel_manifests(runs: Sequence[Run]) -> list[Path]:
    """What to analyse: the tests, as far as they are parallel, else validation or training set.

    FLEURS' seen and unheard languages lie in two manifests and are parallel; two tests of different
    sentences are not, and few of them would be compared in any two languages. Of those it is the
    one with the most languages.
    """
    for paths in (find_manifests(runs).values(), [runs[0].validation], [runs[0].training]):
        rows = {path: _utterances(path) or [] for path in paths}
        spoken = {path: {row.sentence_id for row in found} for path, found in rows.items()}
        languages = {path: {row.language for row in found} for path, found in rows.items()}
        first = max(rows, key=lambda path: len(languages[path]), default=None)
        shared = {path: len(spoken[path] & spoken[first]) for path in rows}
        chosen = [path for path in rows if 2 * shared[path] >= len(spoken[path])]
        if len(set().union(*(languages[path] for path in chosen))) > 1:
            return chosen
    raise InputError("no manifest with the same sentences in two languages; give --manifest")


def _groups(
    runs: Sequence[Run], request: Request, heard: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """(heard, zero-shot) languages; both empty where nobody knows what was heard."""
    known, unheard = request.heard, request.zero_shot
    known = heard if known is None else known
    if known is None:
        return [], list(unheard or ())
    spoken = {item.language for run in runs for items in run.tests.values() for item in items}
    unheard = sorted(spoken - {*known}) if unheard is None else list(unheard)
    return [language for language in known if language not in unheard], unheard


def _warnings(heard: Mapping[str, Sequence[str] | None], request: Request) -> list[str]:
    """That the groups are those of the first run, where others heard other languages."""
    told = [
        f"{name} on {', '.join(found or ['languages not known'])}" for name, found in heard.items()
    ]
    alike = len({None if found is None else tuple(found) for found in heard.values()}) == 1
    if alike or request.heard is not None or request.zero_shot is not None:
        return []
    return [
        f"The runs were trained on different languages: {'; '.join(told)}. “Seen” and “zero-shot” "
        f"below are those of {next(iter(heard))}, and false for a run that heard others. Give "
        "--heard and --zero-shot to group all runs alike."
    ]


def _scored(
    runs: Sequence[Run], request: Request, groups: Sequence[Sequence[str]], progress: bool
) -> tuple[list[Run], list[str]]:
    """(the runs with their scores, why some have none or are not compared)."""
    heard, zero_shot = groups
    asked = {"seen": heard, "zero_shot": zero_shot, "convention": find_preset(request.preset)}
    asked |= {"bootstrap": request.bootstrap, "samples": request.bootstrap or None}
    found, reasons = [], []
    for run in tqdm(runs, desc="scoring", unit="run", disable=not progress, leave=False):
        scored = {}
        for test, items in run.tests.items():
            compared = request.bootstrap and run is not runs[0]
            first = runs[0].tests.get(test, ()) if compared else ()
            blind, why = find_blind(run.path / f"{test}{SUFFIX}", items)
            try:
                match(first or items, items)
            except InputError as error:
                why += [f"not compared with {runs[0].name}: {reason}" for reason in error.problems]
                first = ()
            files = {"predictions": items, "baseline": first, "blind": blind}
            try:
                scored[test] = score(**files, **asked, worst=request.worst)
            except InputError as error:
                why += error.problems
            reasons += [f"{run.name}, {test}: {reason}" for reason in why]
        found.append(replace(run, scored=scored))
    return found, reasons


def _trained(runs: Sequence[Run], test: str, path: Path) -> dict[str, float]:
    """run -> share of the sentences of a test that are in its training manifest."""
    tested = {row.sentence_id for row in _utterances(path) or ()}
    known = {run.name: _utterances(run.training) for run in runs if test in run.tests}
    return {
        name: len(tested & {row.sentence_id for row in found}) / len(tested)
        for name, found in known.items()
        if found is not None
    }
