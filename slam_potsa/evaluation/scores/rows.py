"""A score, a row of scores, and the table that is printed, with the signatures below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Score:
    """A corpus score, with the 95 % interval of its bootstrap distribution where there is one.

    The interval is sacrebleu's: bootstrap mean ± half the distance of the 2.5 % and 97.5 %
    quantiles. It is centred on the bootstrap mean, which small corpora shift from `value`.
    """

    value: float
    mean: float | None = None
    half_width: float | None = None
    signature: str = ""

    @property
    def low(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.mean is None or self.half_width is None else self.mean + self.half_width

    def interval_text(self) -> str:
        """ "7.1 – 9.3", or "" without an interval; cut to 0 … 100, where BLEU and chrF end.

        mean ± half width can leave the scale on a small corpus, though no resample does.
        """
        if self.low is None or self.high is None:
            return ""
        low, high = (min(max(0.0, end), 100.0) for end in (self.low, self.high))
        return f"{low:.1f} – {high:.1f}"

    def cells(self) -> tuple[str, str]:
        return f"{self.value:.1f}", self.interval_text()

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the interval is sacrebleu's mean ± half width, not cut."""
        interval = None if self.low is None else [self.low, self.high]
        return {"score": self.value, "interval_95": interval, "signature": self.signature}


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one corpus.

    Attributes:
        name, kind, group: as of its `Corpus`.
        sentences: how many predictions it is computed from.
        more: further measures by the name of their column: "spBLEU", "COMET", "WER", "CER".
        guards: guard -> share of its sentences that it fired on, 0 to 1; empty for a mean.
        chrf_name: "chrF", or "chrF++" where words count too.
    """

    name: str
    kind: str
    group: str
    sentences: int
    bleu: Score
    chrf: Score
    more: Mapping[str, Score] = field(default_factory=dict)
    guards: Mapping[str, float] = field(default_factory=dict)
    chrf_name: str = "chrF"

    @property
    def scores(self) -> dict[str, Score]:
        """Every measure by its name, in the order of the columns."""
        return {"BLEU": self.bleu, self.chrf_name: self.chrf, **self.more}

    def as_dict(self) -> dict[str, Any]:
        facts = {"name": self.name, "kind": self.kind, "group": self.group}
        scores = {"bleu": self.bleu.as_dict(), "chrf": self.chrf.as_dict()}
        more = {name: found.as_dict() for name, found in self.more.items()}
        rest = {"more": more, "guards": dict(self.guards)}
        return facts | {"sentences": self.sentences} | scores | rest


@dataclass(frozen=True)
class ScoreTable:
    """Languages first, then the groups.

    `guard_signature` says by which rules the rows' guards fired; "" where none were run.
    """

    rows: tuple[ScoreRow, ...]
    guard_signature: str = ""

    def row(self, name: str) -> ScoreRow:
        """The row of this name; KeyError names the rows there are."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no row {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @property
    def signatures(self) -> list[str]:
        """Each signature once, those of BLEU first."""
        found = [
            f"{name}|{row.scores[name].signature}"
            for name in self._columns()
            for row in self.rows
            if name in row.scores and row.scores[name].signature
        ]
        return list(dict.fromkeys(found))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        rows = [row.as_dict() for row in self.rows]
        return {"rows": rows, "guard_signature": self.guard_signature}

    def text(self) -> str:
        """Aligned plain text: the scores, the rates of the guards, and the signatures."""
        parts = [self.scores_text(), "", *self.signatures]
        if self.guard_signature:
            parts[1:1] = ["", self.guards_text()]
        return "\n".join(parts)

    def scores_text(self) -> str:
        columns = self._columns()
        with_interval = {"BLEU", "chrF", "chrF++"} | {
            name for row in self.rows for name, found in row.scores.items() if found.interval_text()
        }
        head = ["", "sentences"]
        for name in columns:
            head += [name, "95 % interval"] if name in with_interval else [name]
        body = []
        for row in self.rows:
            cells = [row.name, str(row.sentences)]
            for name in columns:
                found = row.scores[name].cells() if name in row.scores else ("", "")
                cells += found if name in with_interval else found[:1]
            body.append(cells)
        return aligned([head, *body])

    def guards_text(self) -> str:
        """The share of sentences, in per cent, that each guard fired on, and the rules below."""
        rows = [row for row in self.rows if row.guards]
        names = list(rows[0].guards) if rows else []
        head = ["guard fired, %", *names]
        body = [[row.name, *(f"{100 * row.guards[name]:.1f}" for name in names)] for row in rows]
        return aligned([head, *body]) + f"\n{self.guard_signature}"

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row.scores))


def aligned(lines: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Lines of cells as plain text: the first `text_columns` to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
