"""Run directories, opened: configuration, metrics, prediction files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slam_potsa.config import PotsaConfig, defaults
from slam_potsa.engine.run_directory import CONFIG, SCHEDULE
from slam_potsa.errors import InputError
from slam_potsa.evaluation.file_scores import SUFFIX
from slam_potsa.evaluation.report.contents import Run
from slam_potsa.model.metrics import METRICS, read_metrics


def open_runs(paths: Sequence[str | Path], names: Sequence[str] = ()) -> list[Run]:
    """The runs in the order given, without scores yet.

    Raises InputError with every path that is no run directory, or given twice.
    """
    paths = [Path(path) for path in paths]
    problems = [] if paths else ["found no run, expected at least one run directory"]
    resolved = [path.resolve() for path in paths]
    twice = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    problems += [f"{path}: given twice; expected each run once" for path in twice]
    runs = []
    for path, name in zip(paths, names or ends(paths), strict=True):
        try:
            runs.append(_open(path, name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return runs


def ends(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart.

    >>> ends([Path("a/ours/seed1"), Path("a/baseline/seed1")])
    ['ours/seed1', 'baseline/seed1']
    """
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _open(path: Path, name: str) -> Run:
    import yaml

    if not (path / CONFIG).is_file():
        raise InputError(f"{path}: no {CONFIG} there; expected the output_dir of a training run")
    text = (path / CONFIG).read_text(encoding="utf-8")
    try:
        config = defaults(PotsaConfig, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise InputError(f"{path / CONFIG}: {error}; expected what training wrote there") from None
    except InputError as error:
        raise InputError([f"{path / CONFIG}: {problem}" for problem in error.problems]) from None
    metrics = read_metrics(path / METRICS) if (path / METRICS).is_file() else []
    return Run(name, path, config, text, metrics, _schedule(path / SCHEDULE), _tests(path))


def _schedule(path: Path) -> dict[str, Any]:
    """`{"step": …, "layers": {"1": {"reward": …, …}}}`; empty where there is none to read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            "step": int(found["step"]),
            "layers": {int(n): dict(v) for n, v in found["layers"].items()},
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _tests(path: Path) -> dict[str, Path]:
    """test -> file; blind controls belong to their test."""
    found = sorted(path.glob(f"*{SUFFIX}"))
    names = {file: file.name.removesuffix(SUFFIX) for file in found}
    return {name: file for file, name in names.items() if not name.endswith("_blind")}
