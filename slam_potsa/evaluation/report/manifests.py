"""The manifests that runs were trained and tested on, found through their configurations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slam_potsa.data.manifest import Utterance, check_manifest, read_manifest
from slam_potsa.data.predictions import Prediction
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report.contents import Data, Run


class Manifests:
    """Manifests, read once. One that is missing or broken counts as not there."""

    def __init__(self) -> None:
        self._read: dict[Path, list[Utterance] | None] = {}

    def utterances(self, path: str | Path) -> list[Utterance] | None:
        """The rows, or None."""
        path = Path(path)
        if path not in self._read:
            try:
                self._read[path] = read_manifest(path) if path.is_file() else None
            except InputError:
                self._read[path] = None
        return self._read[path]

    def decoded(
        self, test: str, predictions: Sequence[Prediction], candidates: Iterable[Path]
    ) -> Path | None:
        """The manifest that these are predictions of: it has all their keys and recordings."""
        wanted = {(item.key, item.source) for item in predictions}
        for path in sorted(candidates, key=lambda path: path.stem != test):
            held = {(row.key, row.audio) for row in self.utterances(path) or ()}
            if wanted <= held:
                return path
        return None

    def together(self, paths: Sequence[Path]) -> list[Path]:
        """The one with the most languages, and those that speak the same sentences.

        FLEURS' seen and unheard languages lie in two manifests and are parallel; two tests of
        different sentences are not, and few of them would be compared in any two languages.
        """
        rows = {path: self.utterances(path) or [] for path in dict.fromkeys(paths)}
        if not rows:
            return []
        spoken = {path: {row.sentence_id for row in found} for path, found in rows.items()}
        first = max(rows, key=lambda path: len({row.language for row in rows[path]}))
        return [path for path in rows if 2 * len(spoken[path] & spoken[first]) >= len(spoken[path])]

    def heard(self, run: Run) -> list[str] | None:
        """The languages of a run's training manifest; None where it is gone."""
        rows = self.utterances(run.config.dataset_config.train_data_path)
        return None if rows is None else sorted({row.language for row in rows})


def candidates(run: Run, given: Sequence[Path]) -> list[Path]:
    """Where a test's manifest may be: those given, those configured, and their neighbours.

    `slam-potsa decode RUN FOLDER/test.jsonl` writes RUN/test_predictions.jsonl, and nothing in RUN
    names the folder: it is looked for beside the manifests of the configuration.
    """
    data = run.config.dataset_config
    configured = [data.test_data_path, data.val_data_path, data.train_data_path]
    paths = [Path(path) for path in configured if path]
    neighbours = [path.parent / f"{test}.jsonl" for path in paths for test in run.tests]
    return [path for path in dict.fromkeys([*given, *neighbours, *paths]) if path.is_file()]


def describe(runs: Sequence[Run], tests: Mapping[str, Path], manifests: Manifests) -> list[Data]:
    """What each run was trained, validated and tested on, each manifest once."""
    uses: dict[str, list[str]] = {}
    for run in runs:
        data = run.config.dataset_config
        for use, path in (("training", data.train_data_path), ("validation", data.val_data_path)):
            if path:
                uses.setdefault(str(path), []).append(use)
    tested: dict[str, list[str]] = {}
    for test, path in tests.items():
        uses.setdefault(str(path), []).append(f"test “{test}”")
        tested.setdefault(str(path), []).append(test)
    found = []
    for path, names in uses.items():
        decoded = tested.get(path, [])
        trained = _trained(path, [run for run in runs if {*decoded} & {*run.tests}], manifests)
        use = ", ".join(dict.fromkeys(names))
        found.append(Data(path, use, _held(path), tuple(decoded), trained))
    return found


def _trained(path: str, runs: Sequence[Run], manifests: Manifests) -> dict[str, float]:
    """run -> share of the sentences of `path` that are in its training manifest."""
    tested = {row.sentence_id for row in manifests.utterances(path) or ()}
    found = {}
    for run in runs:
        rows = manifests.utterances(run.config.dataset_config.train_data_path)
        if tested and rows is not None:
            found[run.name] = len(tested & {row.sentence_id for row in rows}) / len(tested)
    return found


def _held(path: str):
    try:
        return check_manifest(path, audio=False)
    except InputError:
        return None
