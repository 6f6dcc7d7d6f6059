"use strict";
// sorting, filtering and views of tables; without this the tables are as they were written
const number = (cell) => {
  const text = cell ? cell.dataset.sort : undefined;
  return text === undefined || text === "" ? null : isNaN(text) ? text : Number(text);
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = now === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => [number(row.cells[index]), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
        return sign * (a < b ? -1 : a > b ? 1 : 0);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
const filter = document.querySelector("#filter");
const shown = document.querySelector("#shown");
const published = document.querySelector("#published");
const refresh = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of document.querySelectorAll("#models tbody tr")) {
    const text = row.cells[0].textContent.toLowerCase();
    const theirs = row.classList.contains("published");
    row.hidden = !words.every((w) => text.includes(w)) || (theirs && published && !published.checked);
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = `${count} shown`;
};
const view = () => {
  const chosen = document.querySelector("input[name=view]:checked").value;
  for (const cell of document.querySelectorAll("#models [data-views]")) {
    cell.hidden = !cell.dataset.views.split(" ").includes(chosen);
  }
};
if (filter) {
  document.querySelector("#controls").hidden = false;
  filter.addEventListener("input", refresh);
  if (published) published.addEventListener("change", refresh);
  document.querySelectorAll("input[name=view]").forEach((i) => i.addEventListener("change", view));
  refresh();
  view();
}
// two models side by side; the address says which
const first = document.querySelector("#first");
if (first) {
  const second = document.querySelector("#second");
  const data = JSON.parse(document.querySelector("#data").textContent);
  const body = document.querySelector("#compared tbody");
  const cell = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (tag === "th") made.scope = "row";
    if (kind) made.className = kind;
    return made;
  };
  const fixed = (x) => (x === undefined ? "–" : x.toFixed(2));
  const draw = () => {
    const [a, b] = [data.models[first.value], data.models[second.value]];
    const turned = !((first.value + "|" + second.value) in data.pairs);
    const pair = data.pairs[turned ? second.value + "|" + first.value : first.value + "|" + second.value] || [];
    const rows = [];
    data.columns.forEach((column, i) => {
      if (!(i in a.cells) && !(i in b.cells)) return;
      const row = document.createElement("tr");
      const [x, y] = [a.cells[i], b.cells[i]];
      const entry = pair.find((p) => p.task === column.task && p.corpus === column.corpus);
      let text = "–", kind = "", p = "";
      if (x !== undefined && y !== undefined) {
        const plain = (column.higher ? 1 : -1) * (x - y);
        if (entry && entry.better !== undefined && entry.metric === column.metric) {
          const sign = turned ? -1 : 1;
          const ends = [sign * entry.low, sign * entry.high].sort((u, v) => u - v);
          text = `${fixed(sign * entry.better)} [${fixed(ends[0])}, ${fixed(ends[1])}]`;
          kind = ends[0] > 0 ? "better" : ends[1] < 0 ? "worse" : "";
          p = `p = ${entry.p.toFixed(3)}, ${entry.units} × ${entry.unit}`;
        } else {
          text = fixed(plain);
          p = `not paired${entry && entry.why ? ": " + entry.why : ""}`;
        }
      }
      row.append(cell("th", column.title), cell("td", fixed(x)), cell("td", fixed(y)), cell("td", text, kind), cell("td", p));
      rows.push(row);
    });
    body.replaceChildren(...rows);
    document.querySelector("#name-first").textContent = a.name;
    document.querySelector("#name-second").textContent = b.name;
  };
  const asked = new URLSearchParams(location.hash.slice(1));
  if (asked.get("a") in data.models) first.value = asked.get("a");
  if (asked.get("b") in data.models) second.value = asked.get("b");
  else if (second.options.length > 1) second.selectedIndex = first.selectedIndex === 1 ? 0 : 1;
  const changed = () => {
    history.replaceState(null, "", `#a=${first.value}&b=${second.value}`);
    draw();
  };
  first.addEventListener("change", changed);
  second.addEventListener("change", changed);
  draw();
}
