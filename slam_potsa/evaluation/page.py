"""The frame of a report: style sheet, script and skeleton of one page that needs no network.

The content security policy says so to the browser: nothing but this file's own style, script and
embedded recordings is allowed to load.
"""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #d9dde2;
  --paper: #fff; --panel: #f6f7f9; --mark: #fdf0c8; --edge: #1c202455;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7;
  --c4: #b8860b; --c5: #56b4e9; --c6: #7a5195; --c7: #4d4d4d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ec; --soft: #9ba5b1; --line: #363c44;
  --paper: #15181c; --panel: #1d2126; --mark: #4a3f16; --edge: #000d;
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
.small, figcaption, .below, .caption { font-size: .82rem; color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; margin: 1.25rem 0 1.5rem; padding: .8rem 0;
  border: solid var(--line); border-width: 1px 0; font-size: .9rem; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .2em; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr));
  gap: .9rem 1.5rem; margin: 1.5rem 0; padding: 1.1rem 0; border: solid var(--line);
  border-width: 1px 0; }
dl.facts dt { font-size: .78rem; color: var(--soft); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
.wide { position: relative; overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 40%, transparent) 0 0 / 2.5rem 100% no-repeat local,
  linear-gradient(to left, var(--paper) 40%, transparent) 100% 0 / 2.5rem 100% no-repeat local,
  linear-gradient(to right, var(--edge), transparent) 0 0 / .8rem 100% no-repeat scroll,
  linear-gradient(to left, var(--edge), transparent) 100% 0 / .8rem 100% no-repeat scroll; }
.warning { max-width: none; padding: .7rem .9rem; background: var(--mark);
  border-left: .3rem solid var(--c1); overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.caption { max-width: none; margin: 1.5rem 0 .3rem; }
th, td { padding: .34rem .8rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { padding-left: 0; }
thead th { font-size: .82rem; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
.below { display: block; white-space: nowrap; }
th button { all: unset; cursor: pointer; white-space: nowrap; }
th button::after { content: " ↕"; color: var(--soft); }
th[aria-sort=ascending] button::after { content: " ↑"; color: inherit; }
th[aria-sort=descending] button::after { content: " ↓"; color: inherit; }
tr.opens th { padding-top: .8rem; font-size: .92rem; font-weight: 600; }
td, tbody th { overflow-wrap: break-word; }
mark { background: var(--mark); color: inherit; text-decoration: underline 2px;
  text-underline-offset: .18em; padding: 0 .1em; border-radius: .15em; }
mark.gap { text-decoration: none; font-weight: 700; }
.command { display: flex; flex-wrap: wrap; align-items: end; justify-content: space-between;
  gap: .25rem 1rem; margin: 1.1rem 0 0; }
.flag { white-space: nowrap; }
.command pre { width: 100%; margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.tools { display: flex; flex-wrap: wrap; align-items: baseline; gap: .4rem 1.2rem; }
.tools select, .tools button, .command button { font: inherit; font-size: .85rem; color: inherit;
  background: var(--panel); border: 1px solid var(--soft); border-radius: .3rem;
  padding: .2rem .5rem; }
select:focus-visible, button:focus-visible, a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--c0); outline-offset: 2px; }
.figures + .wide, .wide + .wide, .wide + .figures { margin-top: 1.5rem; }
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
.cards { font-size: .92rem; }
.cards td, .cards tbody th { overflow-wrap: anywhere; }
.sortable td:nth-child(-n+2) { overflow-wrap: normal; }
table:not(.sortable) td:not(.number) { min-width: 7rem; }
tr[hidden] { display: none; }
@media screen and (max-width: 46rem) {
  body { padding-top: 1.5rem; }
  th, td { padding-inline: .3rem; }
  table { font-size: .92rem; }
  .below { font-size: .69rem; }
  th:last-child, td:last-child { padding-right: 0; }
  .cards thead { position: absolute; left: 0; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .cards tr { display: block; padding: .8rem 0; border-bottom: 1px solid var(--line); }
  .cards td { display: grid; grid-template-columns: 6.5rem 1fr; gap: .5rem; padding: .15rem 0;
    border: 0; }
  .cards td::before { content: attr(data-label); font-size: .78rem; color: var(--soft);
    padding-top: .15rem; overflow-wrap: anywhere; }
  .cards tr[hidden] { display: none; }
  .cards tbody th { display: block; padding: 0 0 .15rem; border: 0; font-weight: 600; }
  .cards tr.opens { padding: .8rem 0 .3rem; }
  .cards .number { white-space: normal; text-align: left; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff;
    --panel: #f3f3f3; --mark: #eee; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7;
    --c4: #b8860b; --c5: #56b4e9; --c6: #7a5195; --c7: #4d4d4d; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  audio, nav, .tools, .command button, th button::after { display: none; }
  .wide, pre { overflow: visible; }
  .wide { background: none; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  table, .cards { font-size: 8pt; }
  th, td { padding: .2rem .4rem; }
  .figures { grid-template-columns: 1fr 1fr; gap: .8rem 1.2rem; }
  tr.opens { break-after: avoid; }
  tr, figure, .command { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

# Without it the page is complete: nothing that needs the script stands there before it runs.
SCRIPT = """
const collator = new Intl.Collator(undefined, { numeric: true });
const valueIn = (row, column) =>
  (row.cells[column].dataset.value ?? row.cells[column].textContent).trim();
function compare(a, b) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? collator.compare(a, b) : difference;
}
function make(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(text);
  return element;
}
function choice(label, options, changed) {
  const select = make("select", "");
  options.forEach(([value, text]) => select.append(make("option", text, { value })));
  select.addEventListener("change", () => changed(select.value));
  const whole = make("label", label + " ");
  whole.append(select);
  return whole;
}
document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  const tools = make("div", "", { className: "tools" });
  const count = make("span", "", { className: "small" });
  count.setAttribute("role", "status");
  const orders = [["", "as in the files"]];
  function sort(column, sign) {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    const sorted = [...rows];
    if (column >= 0) {
      heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      sorted.sort((a, b) => sign * compare(valueIn(a, column), valueIn(b, column)));
    }
    body.append(...sorted);
  }
  heads.forEach((head, column) => {
    if (!("sort" in head.dataset)) return;
    orders.push([column, head.textContent]);
    const button = make("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    button.addEventListener("click", () =>
      sort(column, head.getAttribute("aria-sort") === "ascending" ? -1 : 1));
  });
  const languages = [...new Set(rows.map(row => row.dataset.language))];
  if (languages.length > 1) {
    const options = [["", "all"], ...languages.map(name => [name, name])];
    tools.append(choice("Language", options, wanted => {
      rows.forEach(row => { row.hidden = wanted !== "" && row.dataset.language !== wanted; });
      const left = rows.filter(row => !row.hidden).length;
      count.textContent = `${left} of ${rows.length} rows`;
    }));
  }
  tools.append(choice("Sort by", orders, column => sort(column === "" ? -1 : Number(column), 1)));
  tools.append(count);
  table.parentElement.before(tools);
});
document.querySelectorAll(".command").forEach(command => {
  const button = make("button", "Copy", { type: "button" });
  const code = command.querySelector("code");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  command.querySelector("pre").before(button);
});
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
