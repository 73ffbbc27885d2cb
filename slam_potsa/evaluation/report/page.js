// Without it the page is complete: nothing that needs the script stands there before it runs.
const collator = new Intl.Collator(undefined, { numeric: true });
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
  const count = make("span", "", { className: "small", role: "status" });
  const orders = [["", "as in the files"]];
  function sort(column, sign) {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    const sorted = [...rows], value = row => row.cells[column].dataset.value;
    if (column >= 0) {
      heads[column].setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      sorted.sort((a, b) => sign * compare(value(a), value(b)));
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
      count.textContent = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
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
