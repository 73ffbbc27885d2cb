"""The tables and the chart of benchmarks/evidence.py.

For each system the mean difference of cross-entropy (nats a token) from the system of the same seed
that it is compared with, over the sentences of a place and then over seeds, with a 95 % interval
over seeds (Student's t), and p corrected by Holm over all comparisons of the place. A place is a
language of a test, or `heard`: the mean of those that are translated in training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from slam_potsa.evaluation.figures import bar_chart
from slam_potsa.text import table

HEARD = ("test/en", "test/es", "test/ru")
PLACES = {
    "ce": {
        "heard": "en es ru",
        "test/it": "it",
        "test/fr": "fr",
        "test_new_voices/it": "it, new voice",
        "test_new_voices/fr": "fr, new voice",
    },
    "bleu": {"test/en": "en", "test/it": "it", "test/fr": "fr"},
}
CHARTED = ("join", "join_shuffled", "pseudo", "ceiling")
SURE = 0.05
Row = dict[str, Any]


def summarise(
    results: Mapping[Any, Mapping[str, Mapping[str, Any]]], earlier: Sequence[Row] = ()
) -> list[Row]:
    """A row a system and what joins: by place its means over seeds, and what differs.

    Args:
        results: run -> place -> {"ce": sentence id -> nats a token, "bleu"}; a run has `system`,
            `language` and `pairs` of what joins, `seed`, and `against`, a run or None.
        earlier: rows whose seeds are kept beside; of a seed in both, the earlier one.
    """
    found = {(row["system"], row["joins"], row["pairs"]): row for row in earlier}
    groups: dict[tuple, list[Any]] = {}
    for run in results:
        key = run.system, run.language, run.pairs
        if run.seed not in found.get(key, {"seeds": ()})["seeds"]:
            groups.setdefault(key, []).append(run)
    means = {run: _means(result) for run, result in results.items()}
    for key, group in groups.items():
        system, joins, pairs = key
        row = {"system": system, "joins": joins, "pairs": pairs, "seeds": [r.seed for r in group]}
        row |= {kind: _over(means[run][kind] for run in group) for kind in ("ce", "bleu")}
        both = [(means[run], means[run.against]) for run in group if run.against in means]
        if both:
            row["against"] = group[0].against.system
            for kind in ("ce", "bleu"):
                row[f"delta_{kind}"] = {
                    place: interval([own[kind][place] - other[kind][place] for own, other in both])
                    for place in row[kind]
                }
        found[key] = together(found[key], row) if key in found else row
    _holm([row["delta_ce"] for row in found.values() if "delta_ce" in row])
    return list(found.values())


def together(row: Row, other: Row) -> Row:
    """One row of what two say of a system, of different seeds."""
    counts = [len(each["seeds"]) for each in (row, other)]
    whole = row | {"seeds": row["seeds"] + other["seeds"]}
    for kind in ("ce", "bleu"):
        whole[kind] = {
            place: round(statistics.fmean((mean, other[kind][place]), counts), 4)
            for place, mean in row[kind].items()
        }
        if (delta := f"delta_{kind}") in row:
            whole[delta] = {
                place: interval(found["each"] + other[delta][place]["each"])
                for place, found in row[delta].items()
            }
    return whole


def _means(result: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of one run, by place: "ce" and, where it was measured, "bleu"."""
    ce = {place: statistics.fmean(found["ce"].values()) for place, found in result.items()}
    ce["heard"] = statistics.fmean(ce[place] for place in HEARD)
    return {"ce": ce, "bleu": {p: found["bleu"] for p, found in result.items() if "bleu" in found}}


def _over(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    runs = list(runs)
    return {place: round(statistics.fmean(r[place] for r in runs), 4) for place in runs[0]}


def interval(differences: Sequence[float]) -> dict[str, Any]:
    """Mean of the seeds' differences, half of its 95 % interval, two-sided p (Student's t)."""
    from scipy import stats

    each = [round(value, 4) for value in differences]
    found = {"mean": round(statistics.fmean(differences), 4), "each": each}
    count = len(differences)
    if count > 1:
        error = statistics.stdev(differences) / count**0.5
        found["half"] = round(float(stats.t.ppf(0.975, count - 1)) * error, 4)
        if error:  # else all are the same, as where nothing was touched
            found["p"] = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return found


def _holm(comparisons: Sequence[Mapping[str, dict[str, Any]]]) -> None:
    """`p_holm` of each, over all comparisons of one place."""
    for place in dict.fromkeys(place for found in comparisons for place in found):
        family = [found[place] for found in comparisons if "p" in found.get(place, {})]
        highest = 0.0
        for rank, found in enumerate(sorted(family, key=lambda each: each["p"])):
            highest = max(highest, min(1.0, found["p"] * (len(family) - rank)))
            found["p_holm"] = highest


# -- as text and chart -----------------------------------------------------------------------------


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """What differs in cross-entropy and in BLEU, and both by themselves."""
    parts = [
        (f"change of CE, nats a token; * p < {SURE} (Holm)", "delta_ce", _change),
        ("change of BLEU", "delta_bleu", partial(_change, digits=1)),
        ("CE, nats a token", "ce", "{:.3f}".format),
        ("BLEU", "bleu", "{:.1f}".format),
    ]
    return "\n\n".join(f"{title}\n\n{_table(rows, *part)}" for title, *part in parts)


def _table(rows: Sequence[Mapping[str, Any]], kind: str, shown: Callable[[Any], str]) -> str:
    rows = [row for row in rows if kind in row]
    places = PLACES[kind.removeprefix("delta_")]
    versus = ["against"] if kind.startswith("delta") else []
    head = ["system", *versus, "seeds", *places.values()]
    lines = []
    for row in rows:
        cells = [shown(row[kind][place]) if place in row[kind] else None for place in places]
        against = [row["against"]] if versus else []
        lines.append([name_of(row), *against, len(row["seeds"]), *cells])
    return table(head, lines, left=1 + len(versus))


def name_of(row: Mapping[str, Any]) -> str:
    return f"{row['system']} ({row['joins']}, {row['pairs']})" if row["joins"] else row["system"]


def _change(found: Mapping[str, Any], digits: int = 3) -> str:
    half = f" ± {found['half']:.{digits}f}" if "half" in found else ""
    star = "*" if found.get("p_holm", 1.0) < SURE else " "
    return f"{found['mean']:+.{digits}f}{half}{star}"


class Bar(NamedTuple):
    """What `bar_chart` draws."""

    value: float
    low: float | None
    high: float | None


def chart(rows: Sequence[Mapping[str, Any]], systems: Sequence[str] = CHARTED) -> str:
    """Change of cross-entropy by place, with its interval, of what has several seeds."""
    drawn = [r for r in rows if r["system"] in systems and len(r["seeds"]) > 1 and "delta_ce" in r]
    places = PLACES["ce"]
    bars = {name_of(row): [_bar(row["delta_ce"][place]) for place in places] for row in drawn}
    title = "Change of cross-entropy against as many steps without, nats a token"
    return bar_chart(list(places.values()), bars, title=title, y_label="change of CE")


def _bar(found: Mapping[str, Any]) -> Bar:
    half = found.get("half", math.nan)
    return Bar(found["mean"], found["mean"] - half, found["mean"] + half)
