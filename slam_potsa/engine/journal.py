"""What a decoding has answered so far, on disk, so that an interrupted one continues.

`<prefix>_partial.jsonl` (of process r > 0: `<prefix>_partial.r.jsonl`): the first line is the
fingerprint of all that the answers depend on, each other line one utterance's:

    {"fingerprint": "9f86d0..."}
    {"key": "fr-hello", "texts": ["Hello.", "Hi."], "scores": [-0.21, -0.87]}
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slam_potsa.data.jsonl import read_log
from slam_potsa.files import atomic_write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """A model's raw texts for one utterance, best first, with their scores where n were asked."""

    key: str
    texts: tuple[str, ...]
    scores: tuple[float, ...] | None = None


class Journal:
    """Answers by key; with a `prefix`, each batch is on disk before the next one begins.

    Args:
        prefix: of the files; None keeps the answers in memory only.
        fingerprint: see `fingerprint`; files with another one are not continued.
        rank: of this process, which writes a file of its own and reads all.
    """

    def __init__(self, prefix: str | Path | None = None, fingerprint: str = "", rank: int = 0):
        self.answers: dict[str, Answer] = {}
        self._file = None
        if prefix is None:
            return
        path = Path(f"{prefix}_partial{f'.{rank}' if rank else ''}.jsonl")
        for found in partial_files(prefix):
            self.answers |= _read(found, fingerprint)
        # Written anew, not only appended to: a line may have been cut off half-way.
        own = _read(path, fingerprint) if path.is_file() else {}
        lines = [json.dumps({"fingerprint": fingerprint}), *map(_line, own.values())]
        atomic_write(path, "".join(line + "\n" for line in lines))
        self._file = path.open("a", encoding="utf-8")

    def __contains__(self, key: str) -> bool:
        return key in self.answers

    def add(self, answers: Iterable[Answer]) -> None:
        """One batch; on disk when this returns."""
        answers = list(answers)
        self.answers |= {answer.key: answer for answer in answers}
        if self._file is not None:
            self._file.write("".join(_line(answer) + "\n" for answer in answers))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_error: Any) -> None:
        self.close()


def fingerprint(**parts: Any) -> str:
    """A hash of JSON-able `parts`: equal parts, equal hash, in any order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def partial_files(prefix: str | Path) -> list[Path]:
    """Those of every process that decoded to `prefix`."""
    name = glob.escape(str(prefix))
    patterns = (f"{name}_partial.jsonl", f"{name}_partial.[0-9]*.jsonl")
    return sorted(Path(path) for pattern in patterns for path in glob.glob(pattern))


def remove_partial(prefix: str | Path) -> None:
    """To be called when the predictions are written."""
    for path in partial_files(prefix):
        path.unlink(missing_ok=True)


def _line(answer: Answer) -> str:
    return json.dumps(vars(answer), ensure_ascii=False)


def _read(path: Path, wanted: str) -> dict[str, Answer]:
    """The answers of a file up to a line that was cut off; none where the fingerprint differs."""
    rows = read_log(path)
    if not rows or rows[0].get("fingerprint") != wanted:
        logger.info("%s is of another model, manifest or configuration: decoding anew", path)
        return {}
    return {row["key"]: _answer(row) for row in rows[1:]}


def _answer(row: dict[str, Any]) -> Answer:
    scores = row["scores"]
    return Answer(row["key"], tuple(row["texts"]), None if scores is None else tuple(scores))
