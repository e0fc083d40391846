// Datasets and mixtures: their lists, and one of each.

import { get, remove, post } from "../page/api.js";
import { card, confirmed, element, empty, figures, loading, notice, pill, save, table } from "../page/elements.js";
import { go } from "../page/router.js";
import { ago, count, featureName, shown, short } from "../page/text.js";
import { fitLink } from "./fit.js";
import { componentsCard } from "./result_cards.js";
import { scene } from "./scene.js";
import { clouds, extentOf } from "../charts/clouds.js";
import { histogram } from "../charts/histogram.js";

function head(trail, title, note, ...actions) {
  return element("div", { class: "head" }, element("div", {}, trail && element("p", { class: "trail" }, trail), element("h1", {}, title), element("p", { class: "lead" }, note)),
    element("div", { class: "actions" }, actions));
}

function deleting(main, path, title, text, then) {
  return element("button", {
    type: "button", class: "danger", onclick: async () => {
      if (!await confirmed(title, text, "Delete")) return;
      await remove(path).then(() => go(then), (error) => main.prepend(notice(error)));
    },
  }, "Delete");
}

async function listView(main, path, title, note, columns, nothing, query, signal) {
  main.replaceChildren(head(null, title, note), loading());
  const after = query.get("after");
  const page = await get(`/v1/${path}?page_size=25${after ? `&page_token=${after}` : ""}`, signal);
  const body = page.items.length ? table(title, columns, page.items) : empty(nothing[0], nothing[1], element("a", { class: "button", href: "#/" }, "New fit"));
  const older = page.next_page_token && element("p", {}, element("a", { href: `#/${path}?after=${page.next_page_token}` }, "Older"));
  main.replaceChildren(head(null, title, note), element("section", { class: "card", "aria-label": title }, body, older));
}

/** Shows the list of datasets. */
export function datasetsView(main, _, query, signal) {
  return listView(main, "datasets", "Datasets", "Points that were posted or drawn from a known mixture. They never change.", [
    { title: "Dataset", head: true, cell: (row) => element("a", { href: `#/datasets/${row.id}` }, row.name ?? short(row.id)) },
    { title: "Source", cell: (row) => row.source },
    { title: "Points", number: true, cell: (row) => count(row.n_samples) },
    { title: "Features", number: true, cell: (row) => row.n_features },
    { title: "Made", wide: true, cell: (row) => ago(row.created_at) },
    { title: "Action", cell: (row) => element("a", { href: `#/?dataset=${row.id}`, "aria-label": `Fit ${row.name ?? short(row.id)}` }, "Fit") },
  ], ["No datasets yet", "They are stored when you fit a file, pasted points or the gold demo."], query, signal);
}

/** Shows the list of mixtures. */
export function mixturesView(main, _, query, signal) {
  return listView(main, "mixtures", "Mixtures", "What fits end in, and what was given. Each can be asked for samples.", [
    { title: "Mixture", head: true, cell: (row) => element("a", { href: `#/mixtures/${row.id}` }, row.name ?? short(row.id)) },
    { title: "Components", number: true, cell: (row) => row.n_components },
    { title: "Features", number: true, cell: (row) => row.n_features },
    { title: "Covariances", cell: (row) => row.covariance_type },
    { title: "Made", wide: true, cell: (row) => ago(row.created_at) },
  ], ["No mixtures yet", "Every fit that succeeds ends in one."], query, signal);
}

/** Shows a dataset: its points, its figures, its fits. */
export async function datasetView(main, [id], query, signal) {
  main.replaceChildren(loading("Fetching the dataset"));
  const [dataset, sample, { items }] = await Promise.all([
    get(`/v1/datasets/${id}`, signal), get(`/v1/datasets/${id}/points?sample=3000`, signal), get(`/v1/fits?dataset_id=${id}&page_size=10`, signal),
  ]);
  const statistics = dataset.statistics?.mean.map((mean, i) => ({ i, mean, ...Object.fromEntries(["standard_deviation", "minimum", "maximum"].map((name) => [name, dataset.statistics[name][i]])) }));
  const title = dataset.name ?? `Dataset ${short(id)}`;
  main.replaceChildren(
    head(element("span", {}, element("a", { href: "#/datasets" }, "Datasets"), ` / ${id}`), title, `${count(dataset.n_samples)} points of ${dataset.n_features} features, ${came(dataset)} ${ago(dataset.created_at)}.`,
      element("a", { class: "button", href: `#/?dataset=${id}` }, "Fit these points"), deleting(main, `/v1/datasets/${id}`, "Delete this dataset?", "Fits and mixtures made from it stay.", "/datasets")),
    element("div", { class: "split" },
      card("Points", sample.points.length < dataset.n_samples ? `${count(sample.points.length)} of them, drawn by the server.` : null, null, preview(dataset, sample)),
      card("Features", statistics ? null : "Their points stay where they are and were not read.", null, table("Features", [
        { title: "Feature", head: true, cell: ({ i }) => featureName(dataset.columns, i) },
        ...(statistics ? [["mean", "Mean"], ["standard_deviation", "SD"], ["minimum", "Minimum"], ["maximum", "Maximum"]] : []).map(([name, text]) => ({ title: text, number: true, cell: (row) => shown(row[name]) })),
      ], statistics ?? Array.from({ length: dataset.n_features }, (_, i) => ({ i }))))),
    card("Fits of these points", null, null, items.length ? table("Fits", [
      { title: "Fit", head: true, cell: fitLink }, { title: "Status", cell: (fit) => pill(fit.status) },
      { title: "Components", cell: (fit) => String(fit.result?.n_components ?? fit.request.n_components) }, { title: "BIC", number: true, cell: (fit) => shown(fit.result?.bic, 7) },
    ], items) : empty("None yet", "Fit these points to see what they came from.")));
}

/** Returns where a dataset's points came from. */
function came({ source, url }) {
  return { gold: "drawn from a gold mixture", upload: "posted", url: `registered at ${url}` }[source];
}

/** Returns a picture of points alone. */
export function preview(dataset, sample) {
  const label = `${sample.points.length} points of ${dataset.name ?? "the dataset"}`;
  if (dataset.n_features === 1) return histogram({ points: sample.points, components: sample.components, name: featureName(dataset.columns, 0), label });
  const points = sample.points.map(([x, y]) => [x, y]);
  const names = [0, 1].map((i) => featureName(dataset.columns, i));
  return clouds({ points, components: sample.components, extent: extentOf(points, []), names, label });
}

/** Shows a mixture with samples of it. */
export async function mixtureView(main, [id], query, signal) {
  main.replaceChildren(loading("Fetching the mixture"));
  const [mixture, samples] = await Promise.all([get(`/v1/mixtures/${id}`, signal), post(`/v1/mixtures/${id}/samples`, { n_samples: 2000, seed: 0 }, signal)]);
  const colours = mixture.weights.map((_, k) => k);
  const { responsibilities } = await post(`/v1/mixtures/${id}/responsibilities`, { points: samples.points }, signal);
  const sample = { points: samples.points, labels: samples.components, uncertainty: responsibilities.map((row) => 1 - Math.max(...row)), n_samples: samples.points.length };
  const parameters = Object.fromEntries(["weights", "means", "covariances", "covariance_type"].map((name) => [name, mixture[name]]));
  const download = element("button", { type: "button", class: "plain", onclick: () => save(`${id}.json`, "application/json", `${JSON.stringify(parameters, null, 2)}\n`) }, "Download parameters");
  main.replaceChildren(
    head(element("span", {}, element("a", { href: "#/mixtures" }, "Mixtures"), ` / ${id}`), mixture.name ?? `${mixture.n_components} components, ${mixture.covariance_type}`,
      mixture.fit_id ? element("a", { href: `#/fits/${mixture.fit_id}` }, "The fit that it came from") : "Given, not fitted.", download,
      deleting(main, `/v1/mixtures/${id}`, "Delete this mixture?", "The fit that made it keeps its result.", "/mixtures")),
    figures([["Components", String(mixture.n_components)], ["Features", String(mixture.n_features)], ["Covariances", mixture.covariance_type]]),
    scene({ sample, mixture, mixtureId: id, columns: mixture.columns, colours }, query), componentsCard(mixture, mixture.columns, colours));
}
