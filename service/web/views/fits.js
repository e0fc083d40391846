// The list of fits, and two of them side by side.

import { get, hasEnded, post, remove } from "../page/api.js";
import { card, confirmed, element, empty, loading, notice, pill, segments, table } from "../page/elements.js";
import { go, remember } from "../page/router.js";
import { ago, duration, fixed, several, short } from "../page/text.js";
import { coloursOf, fitLink, titleOf } from "./fit.js";
import { componentsCard, resultFigures } from "./result_cards.js";
import { look, pointsFigure } from "./scene.js";

const REFRESH_MILLISECONDS = 2000;
const STATUSES = [["", "All"], ["queued", "Queued"], ["running", "Running"], ["succeeded", "Succeeded"], ["failed", "Failed"], ["cancelled", "Cancelled"]];

/** Shows the list of fits, kept fresh. */
export async function fitsView(main, _, query, signal) {
  const chosen = new Set();
  const state = { status: query.get("status") ?? "", after: query.get("after") ?? "", seen: "" };
  const place = element("div", {}, loading());
  const said = element("div");
  const compare = element("button", { type: "button", class: "plain", disabled: true, onclick: () => go(`/compare?fits=${[...chosen].join(",")}`) }, "Compare two");
  const act = async (work) => { await work().catch((error) => said.replaceChildren(notice(error))); state.seen = ""; await refresh(); };
  const pick = (fit, on) => { if (on) chosen.add(fit.id); else chosen.delete(fit.id); compare.disabled = chosen.size !== 2; };
  async function refresh() {
    const path = `/v1/fits?page_size=25${state.status && `&status=${state.status}`}${state.after && `&page_token=${state.after}`}`;
    const page = await get(path, signal);
    const text = JSON.stringify(page);
    if (text === state.seen || place.contains(document.activeElement?.closest?.("td"))) return;
    state.seen = text;
    place.replaceChildren(page.items.length ? list(page.items, chosen, pick, act) : empty("No fits here", "A fit finds the mixture that your points came from.", element("a", { class: "button", href: "#/" }, "New fit")), older(page));
  }
  const older = (page) => (page.next_page_token ? element("p", {}, element("a", { href: `#/fits?after=${page.next_page_token}${state.status && `&status=${state.status}`}` }, "Older fits")) : "");
  const choose = (status) => { state.status = status; state.after = ""; remember("after", ""); remember("status", status); refresh(); };
  main.replaceChildren(
    element("div", { class: "head" }, element("div", {}, element("h1", {}, "Fits"), element("p", { class: "lead" }, "Newest first. Choose two to see them side by side.")),
      element("div", { class: "actions" }, compare, element("a", { class: "button", href: "#/" }, "New fit"))),
    said, element("div", { class: "toolbar" }, segments("Status", STATUSES, state.status, choose)), element("section", { class: "card", "aria-label": "Fits" }, place));
  await refresh();
  const timer = setInterval(() => { if (!document.hidden) refresh().catch(() => {}); }, REFRESH_MILLISECONDS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function list(fits, chosen, pick, act) {
  return table("Fits", [
    { title: "Compare", cell: (fit) => element("input", { type: "checkbox", "aria-label": `Compare ${short(fit.id)}`, checked: chosen.has(fit.id), disabled: fit.status !== "succeeded", onchange: ({ target }) => pick(fit, target.checked) }) },
    { title: "Fit", head: true, cell: fitLink },
    { title: "Status", cell: (fit) => pill(fit.status) },
    { title: "Components", cell: (fit) => several(fit.result?.n_components ?? fit.request.n_components) },
    { title: "Covariances", wide: true, cell: (fit) => several(fit.result?.covariance_type ?? fit.request.covariance_type) },
    { title: "Log-likelihood", number: true, wide: true, cell: (fit) => fixed(fit.result?.log_likelihood ?? fit.progress?.log_likelihood) },
    { title: "BIC", number: true, cell: (fit) => fixed(fit.result?.bic, 1) },
    { title: "Took", number: true, wide: true, cell: (fit) => duration(fit.result?.elapsed_seconds ?? fit.progress?.elapsed_seconds) },
    { title: "Asked for", wide: true, cell: (fit) => ago(fit.created_at) },
    { title: "Action", cell: (fit) => action(fit, act) },
  ], fits);
}

function action(fit, act) {
  if (!hasEnded(fit)) {
    return element("button", { type: "button", class: "quiet danger", "aria-label": `Cancel ${short(fit.id)}`, onclick: ({ target }) => { target.blur(); act(() => post(`/v1/fits/${fit.id}/cancel`, {})); } }, "Cancel");
  }
  return element("button", {
    type: "button", class: "quiet danger", "aria-label": `Delete ${short(fit.id)}`, onclick: async ({ target }) => {
      if (!await confirmed("Delete this fit?", "Its events go with it. Its mixture stays.", "Delete")) return;
      target.blur();
      await act(() => remove(`/v1/fits/${fit.id}`));
    },
  }, "Delete");
}

/** Shows two fits side by side. */
export async function compareView(main, _, query, signal) {
  main.replaceChildren(loading("Fetching both fits"));
  const ids = (query.get("fits") ?? "").split(",").filter(Boolean);
  if (ids.length !== 2) throw new Error("Two fits can be compared: choose them in the list of fits.");
  const fits = await Promise.all(ids.map((id) => get(`/v1/fits/${id}`, signal)));
  const columns = await Promise.all(fits.map((fit) => column(fit, signal)));
  main.replaceChildren(
    element("div", { class: "head" }, element("div", {}, element("p", { class: "trail" }, element("a", { href: "#/fits" }, "Fits"), " / compare"), element("h1", {}, "Two fits side by side"),
      fits[0].dataset_id !== fits[1].dataset_id && element("p", { class: "lead" }, "They were fitted to different datasets: their criteria cannot be compared."))),
    differences(fits), element("div", { class: "split" }, columns));
}

function differences([first, second]) {
  const names = [["log_likelihood", "Log-likelihood", 1], ["bic", "BIC", -1], ["aic", "AIC", -1], ["icl", "ICL", -1], ["n_parameters", "Free parameters", 0], ["elapsed_seconds", "Took", 0]];
  const comparable = first.dataset_id === second.dataset_id;
  const written = { n_parameters: (value) => fixed(value, 0), elapsed_seconds: duration };
  const mark = (name, ours, theirs, sign) => (written[name] ?? fixed)(ours) + (comparable && sign && Math.sign(ours - theirs) === sign ? " ✓" : "");
  return card("Figures", comparable && "The better one of each is marked; BIC, AIC and ICL are better when lower.", null, table("Figures of both fits", [
    { title: "Figure", head: true, cell: ([, title]) => title },
    { title: `${titleOf(first)} ${short(first.id)}`, number: true, cell: ([name, , sign]) => mark(name, first.result?.[name], second.result?.[name], sign) },
    { title: `${titleOf(second)} ${short(second.id)}`, number: true, cell: ([name, , sign]) => mark(name, second.result?.[name], first.result?.[name], sign) },
  ], names));
}

async function column(fit, signal) {
  const top = element("div", { class: "title" }, element("h2", {}, element("a", { href: `#/fits/${fit.id}` }, titleOf(fit))), pill(fit.status));
  if (!fit.result) return element("div", {}, element("section", { class: "card" }, top, element("p", {}, fit.error?.message ?? "It has no result.")));
  const { result } = fit;
  const colours = coloursOf(result);
  let picture;
  let columns = null;
  try {
    const [dataset, sample] = await Promise.all([get(`/v1/datasets/${fit.dataset_id}`, signal), look(fit.dataset_id, result.mixture_id, signal)]);
    columns = dataset.columns;
    const state = { view: dataset.n_features > 2 ? "pca" : "pair", features: [0, 1], colour: "component", ellipses: true, contours: true };
    const points = { points: sample.points, components: sample.labels.map((k) => colours[k]) };
    picture = pointsFigure({ mixture: result.mixture, columns, colours, points, base: sample.points }, state, `Data under ${titleOf(fit)}`);
  } catch (error) {
    picture = notice(error);
  }
  return element("div", {}, element("section", { class: "card", "aria-label": titleOf(fit) }, top, element("p"), picture), resultFigures(result), componentsCard(result.mixture, columns, colours));
}
