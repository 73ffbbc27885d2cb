"""What an analysis found: as data, as JSON, as a table; and the difference of two."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slam_potsa.errors import InputError
from slam_potsa.evaluation.analysis.measures import TapMeasures
from slam_potsa.evaluation.analysis.settings import Settings
from slam_potsa.files import atomic_write
from slam_potsa.text import table

# Written beside the numbers; the functions that compute them say more.
DEFINITIONS = {
    "R@1": "share of recordings whose nearest recording of the other language (cosine of mean-"
    "pooled tokens, the mean of all taken away) is the same sentence; ordered language pairs",
    "1-JSD": "1 minus the Jensen-Shannon divergence (bits) of two languages' histograms of k-means "
    "codes of tokens; each query's mean is taken away first; POTSA does not define it",
    "1-JSD, ceiling": "1-JSD with languages exchanged at random within each sentence",
    "1-JSD / ceiling": "mean of 1-JSD over mean of its ceiling, or of one pair over its own: what "
    "runs are compared by, since the ceiling moves with a run as much as 1-JSD does",
    "1-JSD, spread": "standard deviation over codebooks of the mean of 1-JSD over pairs",
    "language probe": "balanced accuracy of logistic regression on pooled vectors, cross-validated "
    "by sentence; on recordings that the biases were estimated on it can fall below chance",
    "OT matched": "mean transport cost <Gamma, C> of recordings of one sentence in two languages, "
    "C the squared Euclidean distance, divided by nothing",
    "OT mismatched": "the same with the second recordings of other sentences",
    "OT ratio": "matched / mismatched; both falling together is collapse",
    "effective rank": "exp of the entropy of the normalised singular values (Roy & Vetterli 2007) "
    "of centered vectors; tokens: each query's mean is taken away",
    "language share": "share of the variance of pooled vectors that lies between languages",
    "query share": "share of token variance that lies between queries; 1: nothing but the query",
}
NOT_COMPARED = ("1-JSD, spread",)  # says how sure another number is
# Of two runs these differ by chance together: the table of differences shows their ratio instead.
ONLY_TOGETHER = ("1-JSD, all", "1-JSD, ceiling")
# (heading of the table, key of TapMeasures.headline, factor, decimals)
COLUMNS = (
    ("R@1 %", "R@1, all", 100, 1),
    ("heard", "R@1, among heard", 100, 1),
    ("unheard", "R@1, with an unheard", 100, 1),
    ("1-JSD", "1-JSD, all", 1, 3),
    ("±", "1-JSD, spread", 1, 3),
    ("ceiling", "1-JSD, ceiling", 1, 3),
    ("1-JSD/ceil.", "1-JSD / ceiling, all", 1, 3),
    ("probe %", "language probe", 100, 1),
    ("OT same", "OT matched, all", 1, 1),
    ("other", "OT mismatched, all", 1, 1),
    ("ratio", "OT ratio, all", 1, 3),
    ("rank", "effective rank, pooled", 1, 1),
    ("tokens", "effective rank, tokens", 1, 1),
    ("query %", "query share", 100, 1),
)


@dataclass(frozen=True)
class View:
    """Pooled vectors of some recordings in the plane.

    Attributes:
        tap: where they were recorded.
        method: "pca" or "tsne".
        points, languages: one a recording.
        explained: of PCA, the share of the variance that each axis shows.
    """

    tap: str
    method: str
    points: tuple[tuple[float, float], ...]
    languages: tuple[str, ...]
    explained: tuple[float, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """One model on one set of recordings.

    Attributes:
        name: of the run, for tables and figures.
        taps: tap -> its measures, in the order of the forward pass.
        views: for figures.
        settings, manifests: what it depends on.
        heard: languages of training, or None where they are not known.
        recordings: language -> how many.
        sentences, detail_sentences: distinct sentences, and those whose tokens were looked at.
    """

    name: str
    taps: Mapping[str, TapMeasures]
    settings: Settings
    manifests: Sequence[str]
    heard: Sequence[str] | None
    recordings: Mapping[str, int]
    sentences: int
    detail_sentences: int
    views: Sequence[View] = field(default=(), repr=False)

    @property
    def languages(self) -> list[str]:
        """Those heard in training first."""
        heard = self.heard or ()
        return sorted(self.recordings, key=lambda name: (name not in heard, name))

    def as_dict(self) -> dict[str, Any]:
        """For JSON: everything, with the definitions."""
        return {
            "name": self.name,
            "manifests": list(self.manifests),
            "heard": None if self.heard is None else list(self.heard),
            "recordings": dict(self.recordings),
            "sentences": self.sentences,
            "detail_sentences": self.detail_sentences,
            "settings": asdict(self.settings),
            "definitions": DEFINITIONS,
            "taps": {tap: found.as_dict() for tap, found in self.taps.items()},
            "views": [asdict(view) for view in self.views],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Analysis:
        """The inverse of `as_dict`."""
        views = [
            View(
                view["tap"],
                view["method"],
                tuple((x, y) for x, y in view["points"]),
                tuple(view["languages"]),
                tuple(view["explained"]),
            )
            for view in found["views"]
        ]
        return cls(
            found["name"],
            {tap: TapMeasures.from_dict(row) for tap, row in found["taps"].items()},
            Settings(**found["settings"]),
            tuple(found["manifests"]),
            None if found["heard"] is None else tuple(found["heard"]),
            found["recordings"],
            found["sentences"],
            found["detail_sentences"],
            tuple(views),
        )

    def text(self) -> str:
        """What was analysed, and a row a tap."""
        spoken = ", ".join(f"{name} {self.recordings[name]}" for name in self.languages)
        heard = "unknown" if self.heard is None else ", ".join(self.heard)
        lines = [
            f"{self.name}: {self.sentences} sentences, recordings {spoken}; heard: {heard}",
            _table({tap: found.headline() for tap, found in self.taps.items()}),
        ]
        chance = next(iter(self.taps.values())).probe.chance if self.taps else 0.0
        return "\n".join([*lines, f"probe: chance {100 * chance:.1f} %"])


def differences(analysis: Analysis, baseline: Analysis) -> dict[str, dict[str, float]]:
    """tap -> measure -> analysis − baseline, at the taps and measures that both have.

    Raises InputError where the two were not made of the same recordings with the same settings.
    """
    names = ("manifests", "recordings", "sentences", "settings", "heard")
    problems = [
        f"{name}: {getattr(analysis, name)} and {getattr(baseline, name)}; expected the same, so "
        "analyse both runs anew on the same manifests"
        for name in names
        if getattr(analysis, name) != getattr(baseline, name)
    ]
    if problems:
        raise InputError(problems)
    found = {}
    for tap in analysis.taps:
        if tap in baseline.taps:
            ours, theirs = analysis.taps[tap].headline(), baseline.taps[tap].headline()
            shared = [key for key in ours if key in theirs and key not in NOT_COMPARED]
            found[tap] = {key: ours[key] - theirs[key] for key in shared}
    return found


def differences_text(analysis: Analysis, baseline: Analysis) -> str:
    """The table of `differences`, signed; of 1 − JSD only that of its share of the ceiling."""
    rows = {
        tap: {key: value for key, value in found.items() if key not in ONLY_TOGETHER}
        for tap, found in differences(analysis, baseline).items()
    }
    return f"{analysis.name} − {baseline.name}\n{_table(rows, sign='+')}"


def pair_places(found: TapMeasures) -> dict[tuple[str, str], tuple[float, float]]:
    """(R@1, 1 − JSD) of each unordered language pair; R@1 is the mean of both directions."""
    return _beside_recall(found, found.overlap.pairs)


def relative_places(
    found: TapMeasures, *, own: bool = True
) -> dict[tuple[str, str], tuple[float, float]]:
    """(R@1, 1 − JSD / ceiling) of each unordered language pair; `own` as `Overlap.relatives`."""
    return _beside_recall(found, found.overlap.relatives(own=own))


def _beside_recall(
    found: TapMeasures, overlaps: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], tuple[float, float]]:
    recalls = {pair: recall.recall for pair, recall in found.retrieval.pairs.items()}
    return {
        (a, b): ((recalls[a, b] + recalls[b, a]) / 2, overlap)
        for (a, b), overlap in overlaps.items()
        if (a, b) in recalls
    }


def own_ceilings(*found: TapMeasures) -> bool:
    """Whether all know the ceiling of each pair; older analyses know the mean only."""
    return all(set(each.overlap.pairs) <= set(each.overlap.ceilings) for each in found)


def write_analysis(path: str | Path, analysis: Analysis, baseline: Analysis | None = None) -> None:
    """analysis.json: {"analysis": …}, with a baseline also {"baseline": …, "differences": …,
    "arrows": tap -> pair -> "from" (the baseline) and "to" (the analysis), each [R@1, 1 − JSD], and
    "ceilings" and "relative" (1 − JSD / ceiling), each [of the baseline, of the analysis]}.
    """
    content: dict[str, Any] = {"analysis": analysis.as_dict()}
    if baseline is not None:
        content["baseline"] = baseline.as_dict()
        content["differences"] = differences(analysis, baseline)
        content["arrows"] = {
            tap: _arrows(baseline.taps[tap], analysis.taps[tap]) for tap in content["differences"]
        }
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_analysis(path: str | Path) -> tuple[Analysis, Analysis | None]:
    """(analysis, baseline or None) of an analysis.json."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        baseline = content.get("baseline")
        return (
            Analysis.from_dict(content["analysis"]),
            None if baseline is None else Analysis.from_dict(baseline),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: {error!r}; expected the analysis.json of `slam-potsa analyze`"
        ) from None


def _arrows(before: TapMeasures, after: TapMeasures) -> dict[str, dict[str, Any]]:
    places, own = pair_places(after), own_ceilings(before, after)
    ceilings = [
        found.overlap.ceilings if own else dict.fromkeys(places, found.overlap.ceiling)
        for found in (before, after)
    ]
    relative = [found.overlap.relatives(own=own) for found in (before, after)]
    return {
        f"{a}–{b}": {
            "from": place,
            "to": places[a, b],
            "ceilings": [each.get((a, b)) for each in ceilings],
            "relative": [each.get((a, b)) for each in relative],
        }
        for (a, b), place in pair_places(before).items()
        if (a, b) in places
    }


def _table(rows: Mapping[str, Mapping[str, float]], sign: str = "") -> str:
    shown = [column for column in COLUMNS if any(column[1] in row for row in rows.values())]
    lines = [["tap", *(column[0] for column in shown)]]
    for tap, row in rows.items():
        cells = [
            f"{row[key] * factor:{sign}.{decimals}f}" if key in row else ""
            for _, key, factor, decimals in shown
        ]
        lines.append([tap, *cells])
    return table(lines[0], lines[1:])
