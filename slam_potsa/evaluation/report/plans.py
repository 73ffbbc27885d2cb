"""Transport plans of a few pairs of recordings: which ones, their numbers, their drawing.

Pairs are chosen by their order in the manifest, never by how the plan looks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from slam_potsa.data.manifest import Utterance
from slam_potsa.engine.run_directory import MODEL
from slam_potsa.errors import InputError
from slam_potsa.evaluation.report.analyses import FOLDER, is_newer
from slam_potsa.evaluation.report.contents import Run
from slam_potsa.evaluation.report.manifests import Manifests
from slam_potsa.evaluation.report.models import Models
from slam_potsa.files import atomic_write

PAIRS, FILE = 3, "plans.json"


@dataclass(frozen=True)
class Spoken:
    """One recording of a pair; `spans` [N][2] are the seconds that each token attends to."""

    key: str
    language: str
    transcript: str | None
    spans: list[list[float]]


@dataclass(frozen=True)
class Plan:
    """`transport_view.TransportView`, as plain numbers."""

    first: Spoken
    second: Spoken
    layer: int
    plan: list[list[float]]
    cost: float
    diagonal: float

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Plan:
        sides = {side: Spoken(**found[side]) for side in ("first", "second")}
        return cls(**found | sides)


Pair = tuple[Path, str, str]  # manifest, key, key


def with_plans(
    runs: Sequence[Run], pairs: Sequence[Pair], models: Models
) -> tuple[list[Run], list[str]]:
    """(the runs with the plans of `pairs`, why others have none); all at one layer."""
    if not pairs:
        return list(runs), ["no two recordings of one sentence lie in one manifest"]
    layer, found, reasons = aligned_layer(runs), [], []
    for run in runs:
        try:
            found.append(
                run.having(plans=_kept(run, pairs, layer) or _new(run, pairs, layer, models))
            )
        except InputError as error:
            found.append(run)
            reasons += [f"{run.name}: {problem}" for problem in error.problems]
    return found, reasons


def aligned_layer(runs: Sequence[Run]) -> int:
    """The layer that was aligned most often in these trainings; 2 where none was, as `single`."""
    chosen = Counter(
        layer for run in runs for line in run.metrics for layer in line.get("layers") or ()
    )
    layers = min(run.config.model_config.qformer_layers for run in runs)
    within = {layer: count for layer, count in chosen.items() if layer <= layers}
    return max(within, key=within.get) if within else min(2, layers)


def choose_pairs(paths: Sequence[Path], heard: Sequence[str], manifests: Manifests) -> list[Pair]:
    """Up to PAIRS sentences: of two heard languages, of one, of none, by turns."""
    kinds: dict[int, list[tuple[Path, str, str]]] = {}
    for path in paths:
        rows = manifests.utterances(path) or []
        languages = sorted(
            {row.language for row in rows}, key=lambda name: (name not in heard, name)
        )
        for a, b in combinations(languages, 2):
            kinds.setdefault((a not in heard) + (b not in heard), []).append((path, a, b))
    turns = [kinds[kind] for kind in sorted(kinds)]
    order = [
        of[place]
        for place in range(max(map(len, turns), default=0))
        for of in turns
        if place < len(of)
    ]
    pairs = []
    for path, a, b in order:
        used = {key for _, *keys in pairs for key in keys}
        found = next(_shared(manifests.utterances(path) or [], a, b, used), None)
        pairs += [(path, *found)] if found else []
    return pairs[:PAIRS]


def _shared(rows: Sequence[Utterance], a: str, b: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Keys of the sentences spoken in both languages, the first recording of each, in order."""
    first: dict[tuple[str, str], Utterance] = {}
    for row in rows:
        first.setdefault((row.sentence_id, row.language), row)
    for (sentence, language), row in first.items():
        other = first.get((sentence, b))
        if language == a and other and not {row.key, other.key} & used:
            yield row.key, other.key


def _kept(run: Run, pairs: Sequence[Pair], layer: int) -> list[Plan]:
    """Plans of an earlier report about the same pairs; [] where the model is newer."""
    path = run.path / FOLDER / FILE
    if not path.is_file() or not is_newer(path, [run.path / MODEL, *(pair[0] for pair in pairs)]):
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        plans = [Plan.from_dict(found) for found in content["plans"]]
    except (ValueError, KeyError, TypeError):
        return []
    same = content.get("pairs") == _named(pairs) and all(plan.layer == layer for plan in plans)
    return plans if same else []


def _new(run: Run, pairs: Sequence[Pair], layer: int, models: Models) -> list[Plan]:
    from slam_potsa.evaluation.transport_view import transport_view

    translator = models.of(run)
    views = [transport_view(translator, path, a, b, layer=layer) for path, a, b in pairs]
    plans = [
        Plan(
            *(_spoken(side) for side in (view.first, view.second)),
            view.layer,
            [[float(f"{value:.4g}") for value in row] for row in view.plan.tolist()],
            view.cost,
            view.diagonal,
        )
        for view in views
    ]
    content = {"pairs": _named(pairs), "plans": [asdict(plan) for plan in plans]}
    models.keep(lambda: atomic_write(run.path / FOLDER / FILE, json.dumps(content) + "\n"))
    return plans


def _spoken(side: Any) -> Spoken:
    said = side.utterance
    spans = [[round(begin, 2), round(end, 2)] for begin, end in side.spans.tolist()]
    return Spoken(said.key, said.language, said.transcript, spans)


def _named(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[str(path), a, b] for path, a, b in pairs]
