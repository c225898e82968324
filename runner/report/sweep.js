"use strict";
const table = document.querySelector("#jobs table");
const body = table.tBodies[0];

function value(row, column) {
  const text = row.cells[column].dataset.by;
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function sort(head) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  const rows = [...body.rows].map(row => [value(row, head.cellIndex), row]);
  const order = up ? 1 : -1;
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : order * compare(a, b));
  for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows.map(([, row]) => row));
}

function show(jobs) {
  for (const each of document.querySelectorAll(".chosen")) each.classList.remove("chosen");
  for (const each of document.querySelectorAll("[data-job]")) {
    if (each.dataset.job.split(" ").some(job => jobs.includes(job))) each.classList.add("chosen");
  }
  document.body.classList.toggle("choosing", jobs.length > 0);
}

for (const button of table.querySelectorAll("thead button")) {
  button.addEventListener("click", () => sort(button.closest("th")));
}
let kept = [];
for (const each of document.querySelectorAll("[data-job]")) {
  const jobs = each.dataset.job.split(" ");
  each.addEventListener("mouseenter", () => show(jobs));
  each.addEventListener("mouseleave", () => show(kept));
  each.addEventListener("click", () => {
    kept = kept.join() === jobs.join() ? [] : jobs;
    show(kept);
  });
}
