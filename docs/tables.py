"""The measured tables of README.md and docs/: written from benchmarks/results/, never by hand.

    python docs/tables.py

After `<!-- FILE -->` or `<!-- FILE: TITLE -->` the next block of text is FILE's content, or its
part of that title (that begins with TITLE; a line alone has the table after it).
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(<!-- (benchmarks/results/\S+?)(?:: (.+?))? -->\n+```text\n)(?:(?!```).)*```", re.S
)


def filled(page: str) -> str:
    """The page with every such block as it was measured last."""
    return BLOCK.sub(lambda found: f"{found[1]}{_part(found[2], found[3])}\n```", page)


def _part(file: str, title: str | None) -> str:
    content = (ROOT / file).read_text().strip()
    if title is None:
        return content
    parts = content.split("\n\n")
    place = next(number for number, part in enumerate(parts) if part.startswith(title))
    below = "\n" not in parts[place]
    return "\n\n".join(parts[place : place + 1 + below])


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
