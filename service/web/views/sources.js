// Where the points of a new fit come from: a file, pasted text, a known mixture, or a stored dataset.

import { get, post, send } from "../page/api.js";
import { element, field, loading, segments, select } from "../page/elements.js";
import { count, short } from "../page/text.js";
import { preview } from "./collections.js";

const { d3 } = globalThis;
const BINARY = { npy: "application/x-npy", arrow: "application/vnd.apache.arrow.stream", arrows: "application/vnd.apache.arrow.stream", parquet: "application/vnd.apache.parquet" };
const GOLD = {
  weights: [0.2, 0.4, 0.4], means: [[-1, -1], [-1, 1], [1, 1]],
  covariances: [[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
};
const EXAMPLE = "length,width\n5.1,3.5\n4.9,3.0\n6.3,3.3\n5.8,2.7";

/** Returns text of numbers as the body of a dataset: rows of numbers, with names where the first row has them. */
export function parsed(text, name) {
  if (/^\s*[[{]/.test(text)) {
    const content = JSON.parse(text);
    return { ...(Array.isArray(content) ? { points: content } : content), ...(name && !content.name && { name }) };
  }
  const delimiter = [",", ";", "\t"].find((one) => text.split("\n", 1)[0].includes(one));
  const lines = delimiter ? d3.dsvFormat(delimiter).parseRows(text) : text.split("\n").map((line) => line.trim().split(/\s+/));
  const rows = lines.map((row) => row.map((cell) => cell.trim())).filter((row) => row.some((cell) => cell !== ""));
  if (!rows.length) throw new Error("There are no points yet: one per line, its numbers separated by commas, tabs or spaces.");
  const columns = rows[0].some((cell) => Number.isNaN(Number(cell))) ? rows.shift() : null;
  const points = rows.map((row, i) => row.map((cell) => {
    if (cell === "" || Number.isNaN(Number(cell))) throw new Error(`Point ${i + 1} has ${cell === "" ? "an empty place" : `“${cell.slice(0, 40)}”`} where a number should be.`);
    return Number(cell);
  }));
  return { points, ...(columns && { columns }), ...(name && { name }) };
}

async function uploaded(file) {
  const ending = file.name.split(".").at(-1).toLowerCase();
  const name = file.name.slice(0, 200);
  if (BINARY[ending]) return send(`/v1/datasets?name=${encodeURIComponent(name)}`, file, BINARY[ending]);
  try {
    return await post("/v1/datasets", parsed(await file.text(), name));
  } catch (error) {
    if (error instanceof SyntaxError) throw new Error(`${file.name} is no valid JSON: ${error.message}`);
    throw error;
  }
}

/**
 * Returns {node, dataset}: controls that choose a source, and what resolves with the dataset of a fit's request.
 * @param {(error: Error) => void} failed shows what went wrong
 * @param {{kind: string, datasetId: ?string}} start
 */
export function sources(failed, start, changed) {
  const place = element("div");
  const makers = { file: fileSource, paste: pasteSource, gold: goldSource, stored: storedSource };
  let current;
  const choose = (kind) => {
    current = makers[kind](failed, start, changed);
    place.replaceChildren(current.node);
    changed(kind);
  };
  const choices = [["file", "File"], ["paste", "Paste"], ["gold", "Gold demo"], ["stored", "Stored"]];
  const node = element("div", {}, segments("Source of the points", choices, start.kind, choose), place);
  choose(start.kind);
  return { node, dataset: () => current.dataset() };
}

function shownDataset(place, id) {
  place.replaceChildren(loading("Reading"));
  return Promise.all([get(`/v1/datasets/${id}`), get(`/v1/datasets/${id}/points?sample=1500`)]).then(([dataset, sample]) => {
    place.replaceChildren(element("p", {}, element("strong", {}, dataset.name ?? short(id)), ` has ${count(dataset.n_samples)} points of ${dataset.n_features} features.`), preview(dataset, sample));
  });
}

function fileSource(failed) {
  let dataset = null;
  const place = element("div", { "aria-live": "polite" });
  const take = async (file) => {
    if (!file) return;
    dataset = null;
    failed(null);
    place.replaceChildren(loading(`Reading ${file.name}`));
    try {
      dataset = await uploaded(file);
      await shownDataset(place, dataset.id);
    } catch (error) {
      place.replaceChildren();
      failed(error);
    }
  };
  const input = element("input", { type: "file", accept: ".csv,.tsv,.txt,.json,.npy,.arrow,.arrows,.parquet", onchange: ({ target }) => take(target.files[0]) });
  const drop = element("label", { class: "drop" }, element("strong", {}, "Drop a file here, or choose one"), element("span", {}, "CSV, JSON, NPY, Arrow or Parquet; one row per point, numbers only"), input);
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); });
  return {
    node: element("div", {}, drop, place),
    dataset: async () => {
      if (!dataset) throw new Error("Choose a file first, or another source of points.");
      return { id: dataset.id };
    },
  };
}

function pasteSource() {
  const text = element("textarea", { spellcheck: "false", placeholder: EXAMPLE });
  return {
    node: field("Points", text, "One point per line, numbers separated by commas, tabs or spaces; a first line of names is fine. JSON too."),
    dataset: async () => ({ id: (await post("/v1/datasets", parsed(text.value, null))).id }),
  };
}

function goldSource() {
  const number = element("input", { type: "number", min: 10, max: 10000000, value: 1000, required: true });
  const seed = element("input", { type: "number", min: 0, value: 0, required: true });
  return {
    node: element("div", {}, element("p", { class: "hint" }, "Draws points from a known mixture of three Gaussians in the plane, hides the answer, and compares what is learned with it."),
      element("div", { class: "fields" }, field("Points", number), field("Seed of the points", seed))),
    dataset: async () => ({ gold: GOLD, n_samples: Number(number.value), seed: Number(seed.value) }),
  };
}

function storedSource(failed, start) {
  const place = element("div", { "aria-live": "polite" });
  const control = element("div", {}, loading());
  let chosen = start.datasetId ?? null;
  const show = () => { if (chosen) shownDataset(place, chosen).catch((error) => { place.replaceChildren(); failed(error); }); };
  get("/v1/datasets?page_size=100").then(({ items }) => {
    if (!items.length && !chosen) { control.replaceChildren(element("p", { class: "hint" }, "There are no stored datasets yet.")); return; }
    if (chosen && !items.some(({ id }) => id === chosen)) items.unshift({ id: chosen, name: short(chosen), n_samples: 0, n_features: 0 });
    chosen ??= items[0].id;
    const choices = items.map((row) => [row.id, `${row.name ?? short(row.id)}${row.n_samples ? `, ${count(row.n_samples)} × ${row.n_features}` : ""}`]);
    control.replaceChildren(field("Dataset", select(choices, chosen, { onchange: ({ target }) => { chosen = target.value; show(); } })));
    show();
  }, failed);
  return {
    node: element("div", {}, control, place),
    dataset: async () => {
      if (!chosen) throw new Error("There is no stored dataset to fit; choose another source of points.");
      return { id: chosen };
    },
  };
}
