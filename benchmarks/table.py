"""Performance tables: targets beside what was measured, from benchmarks/results/*.json.

    python benchmarks/table.py      writes README's, benchmarks/results/performance.txt, and that of
                                    docs/scale.md, growth.txt; no model, no torch

A row is {"what", "at_least" or "at_most", "result": [low, median, high], "where"}; `where` the time
goes is shown if the target is missed by the median, or by "worst" where a row has that. The JSON of
a benchmark may hold its rows as "table", beside "machine"; those of `step`, `transport` and
`decode` are made here. Every JSON that is there has its rows, one that is not has none.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from slam_potsa.text import table

RESULTS = Path(__file__).resolve().parent / "results"
# Table -> files KIND.json, KIND_*.json, in this order.
TABLES = {"performance": ("step", "transport", "decode"), "growth": ("growth",)}
OURS, THEIRS = "transport, stored", "SLAM-LLM"
LIBRARIES = ("POT batched, exp", "POT batched, log", "naive, autograd")


def rows_of(kind: str, record: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The rows of one benchmark's record."""
    if "table" in record:
        return record["table"]
    return {"step": _step, "transport": _transport, "decode": _decode}[kind](record)


def _step(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A POTSA step on stored features over SLAM-LLM's of cross-entropy alone, by pairs at once."""
    for one in record["micro_batches"]:
        found = next(v for v in one["variants"] if v["name"] == OURS)
        if THEIRS not in found["ratio"]:
            continue
        spent = {name: t for name, t in found["seconds"].items() if name not in ("step", "host")}
        most = sorted(spent, key=spent.get, reverse=True)[:3]
        yield {
            "what": f"step, stored features / SLAM-LLM's step, {record['size']} sizes, "
            f"{one['micro']} pairs",
            "at_most": 0.55,
            "result": found["ratio"][THEIRS],
            "where": ", ".join(
                f"{name} {100 * spent[name] / sum(spent.values()):.0f} %" for name in most
            ),
        }


def _transport(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Time of each library over ours, over the cases in which its gradient is accurate enough."""
    accuracy = record.get("accuracy", 1e-3)
    ours = {_case(row): row for row in record["rows"] if row["solver"] == "ours"}
    for library in LIBRARIES:
        rows = [row for row in record["rows"] if row["solver"] == library]
        accurate = [row for row in rows if row["gradient_error"] <= accuracy]
        if not accurate:
            continue
        ratios = [row["ratio_to_ours"] for row in accurate]
        least = min(accurate, key=lambda row: row["ratio_to_ours"])
        own = ours[_case(least)]
        yield {
            "what": f"{library} / our transport, {len(ratios)} of {len(rows)} cases",
            "at_least": 1.0,
            "result": [min(ratios), statistics.median(ratios), max(ratios)],
            "worst": min(ratios),  # ahead is ahead in every case
            "where": f"{least['data']}, ε {least['epsilon']}: {least['iterations']} sweeps against "
            f"our {own['iterations']}, which take {own['milliseconds']:.1f} ms",
        }


def _case(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["data"], row["noise"], row["epsilon"]


def _decode(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows a second, ours over SLAM-LLM's with as many at once."""
    rows = {row["name"]: row for row in record["rows"]}
    many = max(record["arguments"]["batch"])
    pairs = [(f"{n} at once", f"{n} at once") for n in record["arguments"]["batch"]]
    pairs += [(f"{many} at once, stored features", f"{many} at once")]
    for own, other in pairs:
        row, to = rows[f"ours, {own}"], f"{THEIRS}, {other}"
        if to not in row["ratio"]:
            continue
        parts, whole = row["parts"], sum(row["parts"].values())
        most = sorted(parts, key=parts.get, reverse=True)[:3]
        where = ", ".join(f"{name} {100 * parts[name] / whole:.0f} %" for name in most)
        yield {
            "what": f"decoding, {record['size']} sizes, {own} / SLAM-LLM's, {other}",
            "at_least": 3.0,
            "result": row["ratio"][to],
            "where": where,
        }


def text(name: str) -> str:
    """The table as the page has it: below a missed target a second line, where the time goes."""
    rows, why = [], []
    for kind in TABLES[name]:
        for path in sorted([*RESULTS.glob(f"{kind}.json"), *RESULTS.glob(f"{kind}_*.json")]):
            record = json.loads(path.read_text())
            machine = record["machine"].removeprefix("Linux ").split(", torch")[0]
            for row in rows_of(kind, record):
                rows.append(_cells(row, machine))
                why.append(f"  misses it: {row['where']}" if _is_missed(row) else "")
    head, *lines = table(("what", "target", "result (spread)", "machine"), rows, left=4).split("\n")
    return "\n".join(
        [head, *(part for pair in zip(lines, why, strict=True) for part in pair if part)]
    )


def _cells(row: dict[str, Any], machine: str) -> tuple[str, ...]:
    low, middle, high = row["result"]
    target = f"<= {row['at_most']:.2f}" if "at_most" in row else f">= {row['at_least']:.2f}"
    return row["what"], target, f"{middle:.2f} ({low:.2f}-{high:.2f})", machine


def _is_missed(row: dict[str, Any]) -> bool:
    worst = row.get("worst", row["result"][1])
    return worst > row["at_most"] if "at_most" in row else worst < row["at_least"]


if __name__ == "__main__":
    for name in TABLES:
        (RESULTS / f"{name}.txt").write_text(text(name) + "\n")
        print(text(name))
