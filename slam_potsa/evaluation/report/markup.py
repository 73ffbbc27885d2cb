"""The pieces of HTML that sections are made of. Plain text goes in, and is escaped here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from slam_potsa.text import table


@dataclass(frozen=True)
class Table:
    """One table, for the page and for a terminal.

    Attributes:
        head, rows: cells as plain text; what follows a line break in a cell is shown small below.
        text_columns: so many columns on the left are words, the others numbers.
        grouped: so many columns on the left name a group of rows, which the page says once.
        caption: above it.
        cards: on a phone each row stands as a list of its cells; else the table scrolls sideways.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1
    grouped: int = 0
    caption: str = ""
    cards: bool = False

    def text(self) -> str:
        """Aligned plain text."""
        rows = [[" ".join(cell.split("\n")) for cell in row] for row in self.rows]
        return table(self.head, rows, self.text_columns)

    def html(self) -> str:
        if not self.rows:
            return ""
        # Not a <caption>: that is as wide as its table, which a phone shows a part of.
        caption = paragraph(self.caption, "caption") if self.caption else ""
        label = f' aria-label="{escape(self.caption, quote=True)}"' if self.caption else ""
        label += ' class="cards"' if self.cards else ""
        heads = "".join(
            f"<th{self._kind(place)}>{escape(name)}</th>"
            for place, name in enumerate(self.head)
            if place >= self.grouped
        )
        return (
            f'{caption}<div class="wide"><table{label}><thead><tr>{heads}</tr></thead>'
            f"<tbody>{''.join(self._body())}</tbody></table></div>"
        )

    def _body(self) -> Iterable[str]:
        before = None
        for row in self.rows:
            group = tuple(row[: self.grouped])
            if self.grouped and group != before:
                span = len(self.head) - self.grouped
                name = escape(" · ".join(filter(None, group)))
                yield f'<tr class="opens"><th colspan="{span}" scope="rowgroup">{name}</th></tr>'
            before = group
            cells = [self._cell(place, cell) for place, cell in enumerate(row)]
            yield f"<tr>{''.join(cells[self.grouped :])}</tr>"

    def _cell(self, place: int, cell: str) -> str:
        first, _, rest = cell.partition("\n")
        words = escape(first) + (f'<span class="below">{escape(rest)}</span>' if rest else "")
        if place == self.grouped:
            return f'<th scope="row">{words}</th>'
        label = f' data-label="{escape(self.head[place], quote=True)}"' if self.cards else ""
        return f"<td{self._kind(place)}{label}>{words}</td>"

    def _kind(self, place: int) -> str:
        return ' class="number"' if place >= self.text_columns else ""


@dataclass(frozen=True)
class Section:
    """A heading over HTML; without any it is left out of the page."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        """Its id: "what-was-run"."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def html(self) -> str:
        heading = f"<h2>{escape(self.title)}</h2>"
        return f'<section id="{self.anchor}">{heading}{self.body}</section>'


def section(title: str, *parts: str) -> Section:
    return Section(title, "".join(parts))


def contents(sections: Sequence[Section]) -> str:
    """Links to sections of the page."""
    links = "".join(f'<a href="#{item.anchor}">{escape(item.title)}</a>' for item in sections)
    return f'<nav aria-label="Sections">{links}</nav>'


def paragraph(text: str, kind: str = "") -> str:
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{escape(text)}</p>"


def figure(heading: str, drawing: str, caption: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(heading)}</h3>{drawing}{below}</figure>"


def figures(drawn: Iterable[str]) -> str:
    inside = "".join(drawn)
    return f'<div class="figures">{inside}</div>' if inside else ""


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>" if body else ""


def missing(reasons: Iterable[str]) -> str:
    """Why something is not there, one paragraph each."""
    return "".join(paragraph(f"Left out: {reason}", "small") for reason in reasons)


def commands(*lines: Sequence[str], what: str = "These numbers again") -> str:
    """Command lines, each a list of words, to copy."""
    text = "\n".join(map(_unbroken, map(command_line, lines)))
    return (
        f'<div class="command"><span class="small">{escape(what)}</span>'
        f"<pre><code>{text}</code></pre></div>"
    )


def _unbroken(line: str) -> str:
    """HTML of a command whose flags do not break at their hyphens."""
    return re.sub(r"(?<= )--[a-z-]+", r'<span class="flag">\g<0></span>', escape(line))


def command_line(words: Iterable[object]) -> str:
    return shlex.join(["slam-potsa", *map(str, words)])


def duration(seconds: float) -> str:
    """42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
