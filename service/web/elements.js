// Building blocks of a page: elements, tables and numbers. Text is always set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Returns an element with attributes and children; strings among them become text. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Returns an SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** Returns a swatch in the colour of component k. */
export function swatch(k) {
  return svg("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" },
    svg("circle", { class: `k${k % 8}`, cx: 5, cy: 5, r: 4 }));
}

/**
 * Fills a table. A column is {title, cell: item => text or node, number?: true}.
 * Nothing is touched when nothing has changed, so that a selection or the focus stays.
 */
export function fillTable(table, columns, items, empty) {
  const rows = items.map((item) => columns.map((column) => column.cell(item)));
  const state = JSON.stringify(rows.map((row) => row.map((cell) => cell?.outerHTML ?? cell)));
  if (table.dataset.state === state) return;
  table.dataset.state = state;
  const kind = (column) => (column.number ? { class: "number" } : {});
  const head = element("thead", {}, element("tr", {},
    ...columns.map((column) => element("th", { scope: "col", ...kind(column) }, column.title))));
  const body = element("tbody", {}, ...rows.map((row) => element("tr", {},
    ...row.map((cell, i) => element("td", kind(columns[i]), cell ?? "")))));
  if (!items.length) {
    body.append(element("tr", {}, element("td", { class: "empty", colspan: columns.length }, empty)));
  }
  table.replaceChildren(head, body);
}

/** Returns a number for people; the strings that stand for infinities stay as they are. */
export function shown(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? value.toFixed(digits).replace("-", "−") : value;
}

/** Returns how long ago a time was, in words. */
export function ago(time) {
  const seconds = Math.max(0, (Date.now() - new Date(time)) / 1000);
  if (seconds < 60) return "just now";
  const [unit, length] = seconds < 3600 ? ["minute", 60] : seconds < 86400 ? ["hour", 3600] : ["day", 86400];
  return new Intl.RelativeTimeFormat("en").format(-Math.floor(seconds / length), unit);
}

/** Returns bytes for people. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = count > 0 ? Math.min(Math.floor(Math.log2(count) / 10), units.length - 1) : 0;
  return `${(count / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}
