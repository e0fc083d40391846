// The cards of a result: components, choice, restarts, recovery, request.

import { criterionChart, familiesOf, traceChart } from "../charts/fit_lines.js";
import { card, element, figures, segments, swatch, table } from "../page/elements.js";
import { conditionNumber, covarianceOf } from "../page/gaussians.js";
import { featureName, fixed, several, shown } from "../page/text.js";
import { remember } from "../page/router.js";

const SHOWN_FEATURES = 8;

/** Returns the table of components. */
export function componentsCard(mixture, columns, colours) {
  const features = mixture.means[0].map((_, i) => i).slice(0, SHOWN_FEATURES);
  const left = mixture.means[0].length - features.length;
  const rows = mixture.weights.map((weight, k) => ({ k, weight, mean: mixture.means[k], covariance: covarianceOf(mixture, k) }));
  const note = left ? `The first ${SHOWN_FEATURES} features; the parameters that you can download have ${left} more.` : null;
  return card("Components", note, null, table("Components", [
    { title: "Component", head: true, cell: ({ k }) => element("span", {}, swatch(colours[k]), `${k + 1}`) },
    { title: "Weight", number: true, cell: ({ weight }) => `${fixed(100 * weight, 1)} %` },
    ...features.map((i) => ({ title: `Mean of ${featureName(columns, i)}`, number: true, cell: ({ mean }) => shown(mean[i]) })),
    ...features.map((i) => ({ title: `SD of ${featureName(columns, i)}`, number: true, cell: ({ covariance }) => shown(Math.sqrt(covariance[i][i])) })),
    { title: "Condition number", number: true, cell: ({ covariance }) => shown(conditionNumber(covariance), 3) },
  ], rows));
}

/** Returns the card of candidates, for a fit that chose among several. */
export function choiceCard(fit, query) {
  const { result, request } = fit;
  const own = request.selection.criterion;
  const criteria = [["bic", "BIC"], ["aic", "AIC"], ["icl", "ICL"], ...(own === "held_out" ? [["held_out", "Held out"]] : [])];
  const asked = criteria.some(([name]) => name === query.get("criterion")) ? query.get("criterion") : own;
  const place = element("div");
  const legend = element("ul", { class: "legend" }, familiesOf(result.candidates).map((family, i) => element("li", {}, swatch(i), family)));
  const draw = (criterion) => place.replaceChildren(criterionChart(result.candidates, criterion, result), legend);
  draw(asked);
  const choose = (criterion) => { remember("criterion", criterion === own ? null : criterion); draw(criterion); };
  const isChosen = (row) => row.n_components === result.n_components && row.covariance_type === result.covariance_type;
  const name = own === "held_out" ? "held-out log-likelihood" : own.toUpperCase();
  return card("Choice of the model", `Chosen by ${name}: ${result.n_components} components, ${result.covariance_type} covariances.`,
    segments("Criterion", criteria, asked, choose), element("div", { class: "pair" }, place, table("Candidates", [
      { title: "K", number: true, cell: (row) => row.n_components },
      { title: "Family", cell: (row) => (isChosen(row) ? `${row.covariance_type} ✓` : row.covariance_type) },
      { title: "Log-likelihood", number: true, cell: (row) => fixed(row.log_likelihood) },
      ...["bic", "aic", "icl"].map((criterion) => ({ title: criterion.toUpperCase(), number: true, wide: criterion !== "bic", cell: (row) => fixed(row[criterion], 1) })),
      { title: "Outcome", wide: true, cell: (row) => row.outcome.replaceAll("_", " ") },
    ], [...result.candidates].sort((a, b) => (a.bic ?? Infinity) - (b.bic ?? Infinity)), (row) => isChosen(row) && "chosen")));
}

/** Returns the card of restarts: their log-likelihoods by step, and the optima they ended in. */
export function restartsCard(result, traces) {
  const total = result.optima.reduce((sum, optimum) => sum + optimum.hits, 0);
  const lines = traceChart(traces);
  const best = result.optima[0].hits;
  const note = `${best} of ${total} restarts ended in the best optimum${best === 1 && total > 1 ? "; ask for more to be sure of it" : ""}.`;
  return card("Restarts", note, null, element("div", { class: "pair" },
    element("figure", {}, element("figcaption", {}, "Log-likelihood by step"), lines),
    element("figure", {}, element("figcaption", {}, "Optima found"), table("Optima found", [
      { title: "Per point, nats", number: true, cell: (row) => shown(row.mean_log_likelihood, 7) },
      { title: "Hits", number: true, cell: (row) => row.hits },
      { title: "Outcome", cell: (row) => row.outcome.replaceAll("_", " ") + (row.spurious ? ", spurious" : "") },
      { title: "Smallest eigenvalue", number: true, wide: true, cell: (row) => shown(row.smallest_eigenvalue, 3) },
      { title: "Smallest weight", number: true, wide: true, cell: (row) => shown(row.smallest_weight, 3) },
    ], result.optima))));
}

/** Returns the figures of how well a gold mixture was recovered, and the parameters side by side. */
export function recoveryCard(gold, mixture, recovery, columns, panels) {
  const features = mixture.means[0].map((_, i) => i).slice(0, 4);
  const both = (title, value) => ({
    title, number: true, cell: ({ gold_component: g, fitted_component: f }) => element("span", {}, element("span", { class: "was" }, `${shown(value(gold, g), 3)} → `), shown(value(mixture, f), 3)),
  });
  const deviation = (i) => (m, k) => Math.sqrt(covarianceOf(m, k)[i][i]);
  const note = "The points were drawn from a known mixture. On the left it is with its points, on the right what was learned, with the truth dashed.";
  return card("The truth, and what was learned", note, null, panels, table("True and learned parameters", [
    { title: "Component", head: true, cell: (pair) => element("span", {}, swatch(pair.gold_component), `${pair.gold_component + 1}`) },
    both("Weight", (m, k) => m.weights[k]),
    ...features.map((i) => both(`Mean of ${featureName(columns, i)}`, (m, k) => m.means[k][i])),
    ...features.map((i) => both(`SD of ${featureName(columns, i)}`, deviation(i))),
  ], recovery.matching), figures([
    ["KL(true ‖ learned)", shown(recovery.kl.value, 3), `± ${shown(recovery.kl.standard_error, 2)} nats`],
    ["Adjusted Rand index", fixed(recovery.adjusted_rand_index, 3)],
    ["Largest weight error", shown(recovery.largest_weight_error, 2)],
    ["Largest mean error", shown(recovery.largest_mean_error, 2)],
    ["Largest covariance error", shown(recovery.largest_covariance_error, 2)],
  ]));
}

/** Returns the figures at the top of a result. */
export function resultFigures(result) {
  return figures([
    ["Log-likelihood", fixed(result.log_likelihood), "nats"],
    ["Per point", shown(result.mean_log_likelihood, 5), "nats"],
    ["BIC", fixed(result.bic, 1)],
    ["AIC", fixed(result.aic, 1)],
    ["ICL", fixed(result.icl, 1)],
    ["Free parameters", String(result.n_parameters)],
    ["Steps", String(result.n_steps), result.outcome.replaceAll("_", " ")],
  ]);
}

/** Returns the request of a fit, folded up. */
export function requestDetails(fit) {
  return element("details", {}, element("summary", {}, `The request: ${several(fit.request.n_components)} components, seed ${fit.request.seed}`),
    element("pre", { tabindex: "0" }, JSON.stringify(fit.request, null, 2)));
}
