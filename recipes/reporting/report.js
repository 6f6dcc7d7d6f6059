"use strict";
// sorting and filtering; without this the page is as it was written
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const value = (cell) => {
  const text = cell.dataset.sort === undefined ? cell.textContent.replaceAll(",", "").trim() : cell.dataset.sort;
  return text === "" || text === "–" ? null : isNaN(text) ? text : Number(text);
};
for (const table of all("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[index]), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
        return sign * (a < b ? -1 : a > b ? 1 : 0);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
const filter = document.querySelector("#filter");
const task = document.querySelector("#task");
const refresh = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (name) => words.every((w) => name.toLowerCase().includes(w));
  const only = task.value;
  let count = 0;
  for (const row of all("table.by-upstream tbody tr")) {
    row.hidden = !fits(row.cells[0].textContent);
    count += row.hidden || !row.closest("#scores") ? 0 : 1;
  }
  for (const run of all("[data-upstream]")) run.hidden = !fits(run.dataset.upstream);
  for (const part of all("section[data-task], nav li[data-task], figure[data-task]")) {
    part.hidden = only !== "" && part.dataset.task !== only;
  }
  const table = document.querySelector("#scores table");
  [...table.tHead.rows[0].cells].forEach((head, index) => {
    const gone = only !== "" && Boolean(head.dataset.task) && head.dataset.task !== only;
    for (const row of table.rows) row.cells[index].hidden = gone;
  });
  document.querySelector("#shown").textContent = `${count} shown`;
};
filter.addEventListener("input", refresh);
task.addEventListener("change", refresh);
document.querySelector("#controls").hidden = false;
refresh();
// what is folded on the screen is open on paper
let folded = [];
addEventListener("beforeprint", () => {
  folded = all("details:not([open])");
  folded.forEach((d) => (d.open = true));
});
addEventListener("afterprint", () => folded.forEach((d) => (d.open = false)));
