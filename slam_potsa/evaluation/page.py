"""The frame of the report: style sheet, script and skeleton of one page that needs no network.

The content security policy says so to the browser: nothing but this file's own style, script and
embedded recordings is allowed to load.
"""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #d9dde2;
  --paper: #fff; --panel: #f6f7f9;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7;
  --c4: #b8860b; --c5: #56b4e9; --c6: #7a5195; --c7: #4d4d4d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #9ba5b1; --line: #363c44;
  --paper: #15181c; --panel: #1d2126;
  --c0: #4aa8e0; --c1: #f0843a; --c2: #2cc295; --c3: #e29bc3;
  --c4: #e6b93d; --c5: #9ad6f7; --c6: #b995d6; --c7: #b8b8b8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -.015em; }
h2 { margin: 3.25rem 0 .6rem; font-size: 1.25rem; letter-spacing: -.01em; }
h3 { margin: 1.6rem 0 .4rem; font-size: .95rem; }
p { max-width: 44rem; margin: .5rem 0 .9rem; }
p.small { overflow-wrap: anywhere; }
.lead { margin-top: .75rem; font-size: 1.1rem; color: var(--soft); }
.small, figcaption, .interval, caption { font-size: .82rem; color: var(--soft); }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr));
  gap: .9rem 1.5rem; margin: 1.5rem 0; padding: 1.1rem 0; border: solid var(--line);
  border-width: 1px 0; }
dl.facts dt { font-size: .78rem; color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .4rem; text-align: left; }
th, td { padding: .42rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
thead th { font-size: .82rem; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
.interval { display: block; }
thead .span { text-align: center; border-bottom-color: var(--soft); }
tr.group th, tr.group td { background: var(--panel); }
tr.group th:first-child { padding-left: .5rem; font-weight: 600; }
tr.first th, tr.first td { border-top: 2px solid var(--soft); }
th button { all: unset; cursor: pointer; white-space: nowrap; }
th button:focus-visible { outline: 2px solid var(--c0); outline-offset: 3px; }
th button::after { content: " ↕"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " ↑"; color: inherit; }
th[aria-sort=descending] button::after { content: " ↓"; color: inherit; }
.strong { font-weight: 600; }
.headline .opens th { padding-top: 1rem; font-weight: 600; }
.figures + .wide { margin-top: 1.25rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr));
  gap: 1.5rem 2rem; }
figure { margin: 0; break-inside: avoid; }
figure h3 { margin: 0 0 .35rem; }
figcaption { margin-top: .25rem; max-width: 34rem; }
.chart { display: block; width: 100%; height: auto; }
.chart .grid { stroke: currentColor; stroke-width: .6; opacity: .2; fill: none; }
.chart .whisker { stroke: currentColor; stroke-width: 1.2; fill: none; }
audio { display: block; width: 11rem; height: 2.1rem; }
pre { overflow-x: auto; padding: .9rem 1rem; background: var(--panel); font-size: .8rem;
  line-height: 1.45; }
summary { cursor: pointer; }
details { margin: .6rem 0; }
.notes li { max-width: 44rem; margin-bottom: .4rem; }
.samples td { overflow-wrap: anywhere; }
@media (max-width: 46rem) {
  body { padding-top: 1.5rem; }
  th, td { padding-inline: .4rem; }
  th:last-child, td:last-child { padding-right: 0; }
  .samples thead { position: absolute; clip-path: inset(50%); }
  .samples tr { display: block; padding: .8rem 0; border-bottom: 1px solid var(--line); }
  .samples td { display: grid; grid-template-columns: 6.5rem 1fr; gap: .5rem; padding: .15rem 0;
    border: 0; }
  .samples td::before { content: attr(data-label); font-size: .78rem; color: var(--soft);
    padding-top: .15rem; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff;
    --panel: #f3f3f3; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #b8860b;
    --c5: #56b4e9; --c6: #7a5195; --c7: #4d4d4d; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  audio, th button::after { display: none; }
  tr, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

SCRIPT = """
const order = new Intl.Collator(undefined, { numeric: true }).compare;
document.querySelectorAll("table.sortable thead button").forEach(button =>
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = row => row.cells[head.cellIndex].textContent.trim();
    [...body.rows].sort((a, b) => sign * order(value(a), value(b)))
      .forEach(row => body.append(row));
  }));
document.addEventListener("play", event =>
  document.querySelectorAll("audio").forEach(other => other === event.target || other.pause()),
  true);
"""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "media-src data:; img-src data:"
)


def page(title: str, body: str) -> str:
    """The whole document around `body` (HTML; `title` is text)."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
