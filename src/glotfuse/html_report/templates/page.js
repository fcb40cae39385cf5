"use strict";
const data = JSON.parse(document.getElementById("page-data").textContent);
const SVG = "http://www.w3.org/2000/svg";

// Texts only ever become text nodes, so nothing in them is read as markup.
function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

function options(select, entries) {
  select.replaceChildren(...entries.map(([value, name]) => element("option", { value }, name)));
}

function percent(value, sign) {
  if (value === null || value === undefined) return "–";
  const shown = (Math.round(value * 1000) / 10 + 0).toFixed(1);
  return (sign && value > 0 && !shown.startsWith("-") ? "+" : "") + (shown === "-0.0" ? "0.0" : shown);
}

function pValue(value) {
  if (value === null || value === undefined) return "–";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

function interval([value, low, high], from, to, hollow) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", hollow ? "interval hollow" : "interval");
  svg.setAttribute("aria-hidden", "true");
  if (value === null) return svg;
  const place = (x) => `${Math.min(Math.max(((x - from) / (to - from)) * 100, 0), 100).toFixed(1)}%`;
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, at] of Object.entries(attributes)) shape.setAttribute(name, at);
    svg.append(shape);
  };
  for (const share of [0, 25, 50, 75, 100]) {
    const style = share === 50 && from < 0 ? "grid middle" : "grid";
    draw("line", { class: style, x1: `${share}%`, x2: `${share}%`, y1: "0", y2: "100%" });
  }
  if (low !== null && high !== null) draw("line", { class: "range", x1: place(low), x2: place(high), y1: "50%", y2: "50%" });
  draw("circle", { cx: place(value), cy: "50%", r: "4" });
  return svg;
}

// A table from columns {name, number, first, plot: [from, middle, to]} and rows of cells {show, value}.
function fillTable(table, caption, columns, rows) {
  const head = columns.map((column) => {
    if (column.plot) {
      const axis = element("span", { class: "axis" }, ...column.plot.map((label) => element("span", {}, label)));
      return element("th", { scope: "col", class: "plot" }, axis, element("span", { class: "hidden" }, column.name));
    }
    const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
    const button = element("button", { type: "button", class: "sorter", "data-first": column.first || "descending" }, column.name, arrow);
    return element("th", { scope: "col", class: column.number ? "number" : "" }, button);
  });
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, i) => {
    const attributes = { class: columns[i].plot ? "plot" : columns[i].number ? "number" : "" };
    if (cell.value !== undefined) attributes["data-value"] = cell.value === null ? "" : cell.value;
    if (i === 0) attributes.scope = "row";
    return element(i === 0 ? "th" : "td", attributes, ...cell.show);
  })));
  table.replaceChildren(element("caption", {}, element("span", {}, caption)), element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
}

function sortBy(button) {
  const heading = button.closest("th");
  const table = heading.closest("table");
  const column = heading.cellIndex;
  const now = heading.getAttribute("aria-sort");
  const direction = now ? (now === "ascending" ? "descending" : "ascending") : button.dataset.first;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  sortRows(table, column, direction, heading.dataset.metricColumn !== undefined);
}

function sortRows(table, column, direction, byMetric) {
  const key = byMetric ? document.getElementById("main").dataset.metric : "value";
  const factor = direction === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => [row.cells[column].dataset[key] ?? row.cells[column].textContent.trim(), row]);
  const numeric = keyed.every(([value]) => value === "" || Number.isFinite(Number(value)));
  keyed.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // missing values come last either way
    return factor * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en"));
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function filterRows(id) {
  const table = document.getElementById(id);
  const wanted = document.querySelector(`[data-filters="${id}"]`).value.trim().toLowerCase();
  const lowOnly = document.querySelector(`[data-low-resource="${id}"]`).checked;
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !row.dataset.search.toLowerCase().includes(wanted) || (lowOnly && row.dataset.low !== "1");
    shown += !row.hidden;
  }
  const all = table.tBodies[0].rows.length;
  document.querySelector(`[data-counts="${id}"]`).textContent = shown === all ? `${all} languages` : `${shown} of ${all} languages`;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.sorter");
  if (button) sortBy(button);
});
document.addEventListener("input", (event) => {
  const id = event.target.dataset.filters || event.target.dataset.lowResource;
  if (id) filterRows(id);
});
