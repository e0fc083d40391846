// A fit: live while it runs, its result once it has succeeded.

import { traceChart, Traces } from "../charts/fit_lines.js";
import { follow, get, hasEnded, post, remove } from "../page/api.js";
import { card, confirmed, element, figures, loading, notice, pill, save } from "../page/elements.js";
import { go } from "../page/router.js";
import { ago, count, duration, fixed, several, short } from "../page/text.js";
import { choiceCard, componentsCard, recoveryCard, requestDetails, restartsCard, resultFigures } from "./result_cards.js";
import { look, pointsFigure, scene } from "./scene.js";

/** Shows a fit. */
export async function fitView(main, [id], query, signal) {
  main.replaceChildren(loading("Fetching the fit"));
  let fit = await get(`/v1/fits/${id}`, signal);
  const traces = new Traces();
  if (!hasEnded(fit)) {
    const live = liveView(fit, traces);
    main.replaceChildren(live.node);
    await follow(id, live.heard, signal);
    fit = await get(`/v1/fits/${id}`, signal);
  } else {
    await follow(id, (type, data) => { if (type === "progress") traces.add(data.traces); }, signal);
  }
  await ended(main, fit, traces, query, signal);
}

/** Returns the title of a fit. */
export function titleOf(fit) {
  const { n_components: k, covariance_type: family } = fit.result ?? fit.request;
  return `${several(k)} component${String(several(k)) === "1" ? "" : "s"}, ${several(family)}`;
}

function head(fit, note, ...actions) {
  return element("div", { class: "head" }, element("div", {},
    element("p", { class: "trail" }, element("a", { href: "#/fits" }, "Fits"), ` / ${fit.id}`),
    element("div", { class: "title" }, element("h1", {}, titleOf(fit)), pill(fit.status)),
    element("p", { class: "lead" }, note)), element("div", { class: "actions" }, actions));
}

function liveView(fit, traces) {
  const status = pill(fit.status);
  const bar = element("progress", { max: 1, value: 0, "aria-label": "Progress of the fit" });
  const numbers = element("div");
  const said = element("div");
  const lines = traceChart(traces);
  const cancel = element("button", {
    type: "button", class: "danger", onclick: async () => {
      cancel.disabled = true;
      await post(`/v1/fits/${fit.id}/cancel`, {}).catch((error) => { said.replaceChildren(notice(error)); cancel.disabled = false; });
    },
  }, "Cancel");
  const top = head(fit, `Asked for ${ago(fit.created_at)}. It goes on if you close this page; its address brings you back.`, cancel);
  top.querySelector(".pill").replaceWith(status);
  const show = (progress) => {
    const running = Math.max(0, progress.n_init - progress.restarts_done);
    bar.value = Math.min(1, (progress.restarts_done + (running * progress.step) / progress.max_steps / Math.max(running, 1)) / progress.n_init);
    numbers.replaceChildren(figures([
      ["Best log-likelihood", fixed(progress.log_likelihood), "nats"], ["Step", count(progress.step), `of at most ${count(progress.max_steps)}`],
      ["Restarts done", `${count(progress.restarts_done)}`, `of ${count(progress.n_init)}`], ["Elapsed", duration(progress.elapsed_seconds)],
      ["Left, at most", duration(progress.remaining_seconds)],
    ]));
  };
  let waiting = false;
  const heard = (type, data) => {
    if (type === "status") { status.textContent = data.status; status.className = `pill ${data.status}`; }
    if (type !== "progress") return;
    traces.add(data.traces);
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; show(data); lines.redraw(); });
  };
  const body = card("Log-likelihood by step", "A line for each restart, as it happens.", null, bar, numbers, lines);
  if (fit.status === "queued") numbers.append(loading("Waiting for a worker"));
  return { node: element("div", {}, top, said, body, requestDetails(fit)), heard };
}

async function ended(main, fit, traces, query, signal) {
  const again = element("a", { class: "button plain", href: `#/?again=${fit.id}` }, "Fit again");
  const gone = element("button", {
    type: "button", class: "danger", onclick: async () => {
      if (!await confirmed("Delete this fit?", "Its events go with it. Its mixture stays.", "Delete")) return;
      await remove(`/v1/fits/${fit.id}`).then(() => go("/fits"), (error) => main.prepend(notice(error)));
    },
  }, "Delete");
  if (fit.status !== "succeeded") {
    const why = fit.error ?? { code: "CANCELLED", message: "It was cancelled before it had ended." };
    const parts = [head(fit, `Ended ${ago(fit.finished_at)}.`, again, gone),
      element("div", { class: "notice bad", role: "alert" }, element("strong", {}, why.code.replaceAll("_", " ").toLowerCase()), why.message)];
    if (traces.list().length) parts.push(card("Log-likelihood by step", "As far as it came.", null, traceChart(traces)));
    main.replaceChildren(...parts, requestDetails(fit));
    return;
  }
  const { result } = fit;
  const download = element("button", {
    type: "button", class: "plain", onclick: () => save(`${result.mixture_id}.json`, "application/json", `${JSON.stringify(result.mixture, null, 2)}\n`),
  }, "Download parameters");
  const when = `Fitted ${ago(fit.finished_at)} in ${duration(result.elapsed_seconds)} by ${result.optimizer.name ?? result.optimizer} on ${result.device}.`;
  const place = element("div", {}, loading("Fetching the points"));
  const rest = element("div");
  main.replaceChildren(head(fit, when, download, again, gone), resultFigures(result), place, rest);
  const colours = coloursOf(result);
  const mixture = await get(`/v1/mixtures/${result.mixture_id}`, signal).catch(() => null);
  rest.append(componentsCard(result.mixture, mixture?.columns, colours));
  if (result.candidates) rest.append(choiceCard(fit, query));
  rest.append(restartsCard(result, traces));
  rest.append(requestDetails(fit));
  await showData(place, fit, mixture, colours, query, signal);
}

async function showData(place, fit, mixture, colours, query, signal) {
  const { result } = fit;
  try {
    const [dataset, sample] = await Promise.all([
      get(`/v1/datasets/${fit.dataset_id}`, signal), look(fit.dataset_id, mixture && result.mixture_id, signal),
    ]);
    if (!mixture) throw new Error("The mixture of this fit has been deleted, so it cannot be asked about the points.");
    const what = { sample, mixture: result.mixture, mixtureId: result.mixture_id, columns: dataset.columns, colours };
    const cards = [scene(what, query)];
    if (result.recovery) cards.push(await recovery(what, dataset, result, signal));
    place.replaceChildren(...cards);
  } catch (error) {
    if (!signal.aborted) place.replaceChildren(notice(error));
  }
}

async function recovery(what, dataset, result, signal) {
  const samples = await post(`/v1/mixtures/${result.mixture_id}/samples`, { n_samples: Math.min(what.sample.points.length, 1500), seed: 1 }, signal);
  const state = { view: "pair", features: [0, Math.min(1, dataset.n_features - 1)], colour: "component", ellipses: true, contours: false };
  const base = what.sample.points;
  const shown = dataset.gold.weights.map((_, k) => k);
  const truth = { ...what, base, mixture: dataset.gold, colours: shown, points: { points: base, components: what.sample.components } };
  const learned = { ...what, base, reference: dataset.gold, points: { points: samples.points, components: samples.components.map((k) => what.colours[k]) } };
  const panels = element("div", { class: "pair" },
    element("figure", {}, element("figcaption", {}, "Truth"), pointsFigure(truth, state, "Points of the gold mixture, with its ellipses")),
    element("figure", {}, element("figcaption", {}, "Learned"), pointsFigure(learned, state, "Samples of the learned mixture, with its ellipses and the true ones dashed")));
  return recoveryCard(dataset.gold, result.mixture, result.recovery, dataset.columns, panels);
}

/** Returns the colour of each learned component: that of the gold one it was matched with, if there is one. */
export function coloursOf(result) {
  const { weights } = result.mixture;
  if (!result.recovery) return weights.map((_, k) => k);
  const partner = new Map(result.recovery.matching.map((pair) => [pair.fitted_component, pair.gold_component]));
  let next = Math.max(...partner.values()) + 1;
  return weights.map((_, k) => (partner.has(k) ? partner.get(k) : next++));
}

/** Returns a link to a fit. */
export function fitLink(fit) {
  return element("a", { class: "id", href: `#/fits/${fit.id}` }, short(fit.id));
}
