// A new fit: where its points come from, and what to fit to them.

import { get, post } from "../page/api.js";
import { card, element, field, notice, pill, select, table } from "../page/elements.js";
import { go } from "../page/router.js";
import { ago, fixed, several } from "../page/text.js";
import { fitLink } from "./fit.js";
import { sources } from "./sources.js";

const FAMILIES = [["full", "Full"], ["tied", "Tied"], ["diag", "Diagonal"], ["spherical", "Spherical"]];
const MCLUST = ["EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV"];
const OPTIMIZERS = [["auto", "Let the service choose"], ["em", "EM, accelerated"], ["lbfgs", "L-BFGS"], ["adam", "Adam"], ["sgd", "SGD with momentum"]];
const STARTS = [["kmeans++", "k-means++"], ["kmeans", "k-means"], ["random", "Random"]];
const CRITERIA = [["bic", "BIC"], ["aic", "AIC"], ["icl", "ICL"], ["held_out", "Held-out likelihood"]];

/** Returns "3", "1:6", "1-6" or "2, 4" as a number or a list of numbers. */
export function components(text) {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const numbers = parts.flatMap((part) => {
    const range = part.match(/^(\d{1,4})\s*(?:[:–-]|to|\.\.)\s*(\d{1,4})$/);
    if (!range) return /^\d{1,4}$/.test(part) ? [Number(part)] : [NaN];
    const [from, to] = range.slice(1).map(Number);
    return from <= to ? Array.from({ length: to - from + 1 }, (_, i) => from + i) : [NaN];
  });
  if (!numbers.length || numbers.some((number) => !(number >= 1))) {
    throw new Error("Components must be a number such as 3, or a range to choose from such as 1:6.");
  }
  return numbers.length === 1 ? numbers[0] : [...new Set(numbers)];
}

/** Shows the form of a new fit, with the newest fits under it. */
export async function newFitView(main, _, query, signal) {
  const again = query.get("again") ? (await get(`/v1/fits/${query.get("again")}`, signal)) : null;
  const datasetId = query.get("dataset") ?? again?.dataset_id ?? null;
  const said = element("div");
  const failed = (error) => {
    said.replaceChildren(...(error ? [notice(error)] : []));
    if (error) said.firstChild.focus();
  };
  const settings = settingsForm(again?.request ?? null);
  const start = { kind: datasetId ? "stored" : (query.get("source") ?? "file"), datasetId };
  const data = sources(failed, start, (kind) => settings.suggest(kind));
  const button = element("button", { type: "button", class: "large" }, "Start the fit");
  button.addEventListener("click", async () => {
    failed(null);
    button.disabled = true;
    try {
      const request = settings.request();
      const fit = await post("/v1/fits", { dataset: await data.dataset(), ...request });
      go(`/fits/${fit.id}`);
    } catch (error) {
      failed(error);
    } finally {
      button.disabled = false;
    }
  });
  const recent = element("div");
  main.replaceChildren(
    element("div", { class: "head" }, element("div", {}, element("h1", {}, "Find the groups in your points"),
      element("p", { class: "lead" }, "The service fits a mixture of Gaussians to them by gradient descent: how many groups there are, where they lie, how wide and how tilted they are, and which group each point belongs to."))),
    said,
    element("div", { class: "split new" }, card("1. Points", null, null, data.node), card("2. Model", null, null, settings.node, element("p", { class: "actions start" }, button))),
    recent);
  const { items } = await get("/v1/fits?page_size=5", signal);
  if (items.length) recent.replaceChildren(recentCard(items));
}

function recentCard(items) {
  return card("Newest fits", null, element("a", { href: "#/fits" }, "All fits"), table("Newest fits", [
    { title: "Fit", head: true, cell: fitLink },
    { title: "Status", cell: (fit) => pill(fit.status) },
    { title: "Components", cell: (fit) => several(fit.result?.n_components ?? fit.request.n_components) },
    { title: "Covariances", wide: true, cell: (fit) => several(fit.result?.covariance_type ?? fit.request.covariance_type) },
    { title: "BIC", number: true, cell: (fit) => fixed(fit.result?.bic, 1) },
    { title: "Asked for", wide: true, cell: (fit) => ago(fit.created_at) },
  ], items));
}

function settingsForm(before) {
  const listed = (value) => (Array.isArray(value) ? value : [value]);
  const families = new Set(listed(before?.covariance_type ?? "full"));
  let touched = before !== null;
  const k = element("input", { type: "text", inputmode: "numeric", autocomplete: "off", value: before ? several(before.n_components) : "1:6", oninput: () => { touched = true; } });
  const checks = (names) => element("div", { class: "checks" }, names.map(([name, text]) => element("label", {}, element("input", {
    type: "checkbox", checked: families.has(name), onchange: ({ target }) => (target.checked ? families.add(name) : families.delete(name)),
  }), text)));
  const number = (value, attributes) => element("input", { type: "number", required: true, value, ...attributes });
  const inputs = {
    n_init: number(before?.n_init ?? 8, { min: 1, max: 10000 }),
    seed: number(before?.seed ?? 0, { min: 0 }),
    max_steps: number(before?.max_steps ?? 1000, { min: 1 }),
    tolerance: number(before?.tolerance ?? 1e-6, { min: 0, step: "any" }),
    regularization: number(before?.regularization ?? 1e-6, { min: 0, step: "any" }),
  };
  const criterion = select(CRITERIA, before?.selection.criterion ?? "bic");
  const optimizer = select(OPTIMIZERS, before?.optimizer.name ?? "auto");
  const method = select(STARTS, before?.initialization.method ?? "kmeans++");
  const node = element("div", {},
    field("Components", k, "A number such as 3, or a range such as 1:6 to let the service choose."),
    element("fieldset", {}, element("legend", {}, "Families of covariances"), checks(FAMILIES), element("span", { class: "hint" }, "With several, the service chooses.")),
    element("div", { class: "fields" }, field("Restarts", inputs.n_init, "The best is kept."), field("Seed", inputs.seed, "The same seed gives the same fit."), field("Choose by", criterion, "Where there is a choice.")),
    element("details", {}, element("summary", {}, "More"),
      element("div", { class: "fields" }, field("Optimiser", optimizer), field("Start from", method), field("Steps at most", inputs.max_steps), field("Tolerance", inputs.tolerance), field("Regularisation", inputs.regularization)),
      element("fieldset", {}, element("legend", {}, "Families of mclust"), checks(MCLUST.map((name) => [name, name])), element("span", { class: "hint" }, "Volume, shape and orientation: Equal, Variable, or Identity."))));
  return {
    node,
    suggest: (kind) => { if (!touched) k.value = kind === "gold" ? "3" : "1:6"; },
    request: () => {
      for (const input of Object.values(inputs)) {
        if (!input.checkValidity()) { input.closest("details")?.setAttribute("open", ""); input.reportValidity(); throw new Error(`${input.closest(".field").querySelector("span").textContent}: ${input.validationMessage}`); }
      }
      if (!families.size) throw new Error("Choose at least one family of covariances.");
      const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, Number(input.value)]));
      const chosen = [...families];
      const kept = before && before.optimizer.name === optimizer.value ? before.optimizer : { name: optimizer.value };
      return { ...values, n_components: components(k.value), covariance_type: chosen.length === 1 ? chosen[0] : chosen, optimizer: kept, initialization: { method: method.value }, selection: { criterion: criterion.value } };
    },
  };
}
