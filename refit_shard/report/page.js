"use strict";
// Theme: that of the system until the button is pressed.
const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const show = () => button.setAttribute("aria-pressed", String(isDark()));
button.hidden = false;
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  show();
});
dark.addEventListener("change", show);
show();

// Tables: a click on a column's name sorts by that column, a second click reverses the order.
const value = (row, column) => {
  const cell = row.cells[column];
  const number = cell.dataset.v;
  if (number === undefined) return cell.textContent.trim();
  return Number.isNaN(Number(number)) ? -1 : Number(number);
};
const compare = (a, b) =>
  typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
for (const head of document.querySelectorAll("table.sorts th")) {
  const name = document.createElement("button");
  name.type = "button";
  name.append(...head.childNodes);
  head.append(name);
  name.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) => {
      const order = compare(value(a, head.cellIndex), value(b, head.cellIndex));
      return down ? -order : order;
    });
    body.append(...rows);
  });
}

// Charts: the label of the mark under the pointer is shown beside it.
const tip = document.getElementById("tip");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest("svg [aria-label]:not([aria-roledescription='axis'])");
  tip.hidden = !mark || mark.getAttribute("aria-roledescription") === "legend";
  if (tip.hidden) return;
  tip.textContent = mark.getAttribute("aria-label");
  const space = root.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, space))}px`;
  tip.style.top = `${event.clientY + 18}px`;
});
