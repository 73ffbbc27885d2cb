"""`metrics.jsonl`: one line an optimizer step, the same in both hosts.

    {"step": 12, "ce": 2.31, "ot": 0.41, "ot/matched": 0.38, "ot/mismatched": 0.52, "layers": [2],
     "lr": 0.0001, "tokens_per_second": 5210.0, "seconds": 0.19}

`ce` is the mean over micro-steps and ranks, the other terms rank 0's. `seconds` is the wall time of
the step, without validation and saving, and `tokens_per_second` the LLM positions (speech, prompt
and answer) of one process, rank 0, over it: not the sum over processes. `<term>/matched` and
`/mismatched` are there every `alignment.diagnose_interval` steps; every
`alignment.insight_interval` steps come `conflict/<layer>/{ce,alignment,cosine}` (see
`objective.conflict`) and `schedule/<layer>/{reward,count,ucb,probability}` of eq. 5-7 (null: never
tried).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from slam_potsa.files import atomic_write

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends the controller's records to a file; `keep_before` drops lines of a run resumed."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, record: dict[str, Any]) -> None:
        line = {
            k: v
            for k, v in record.items()
            if k not in ("tokens", "targets_seen", "pairs_seen", "not_finite")
        }
        line["tokens_per_second"] = round(record["tokens"] / max(record["seconds"], 1e-9), 1)
        line = {k: rounded(v) for k, v in line.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def keep_before(self, step: int) -> None:
        """Forget lines of `step` and later: they will be written again."""
        if self.path.is_file():
            kept = [line for line in read_metrics(self.path) if line["step"] < step]
            atomic_write(self.path, "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line cut off by a crash is left out."""
    lines = []
    for text in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def rounded(value: Any) -> Any:
    """Seven significant digits: what float32 holds. NaN as null, which JSON has."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value
