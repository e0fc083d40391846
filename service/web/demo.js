// The gold demo: points from a known mixture, a fit by the public API, the truth beside what was learned.

import { call, follow } from "./api.js";
import { element, fillTable, shown, swatch } from "./elements.js";
import { extentOf, scatter } from "./scatter.js";

const GOLD = {
  weights: [0.2, 0.4, 0.4],
  means: [[-1, -1], [-1, 1], [1, 1]],
  covariances: [[[0.25, 0], [0, 0.04]], [[0.09, 0], [0, 0.09]], [[0.16, 0.16], [0.16, 0.25]]],
};
const N_SAMPLES = 1000;

/** Runs the demo and shows it; `say(text)` tells how far it has come. Throws with a sentence when it fails. */
export async function runDemo(say) {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  say("Fitting …");
  const submitted = await call("/v1/fits", {
    dataset: { gold: GOLD, n_samples: N_SAMPLES, seed }, n_components: 3, metadata: { from: "the demo on the page" },
  });
  const fit = await follow(submitted, (progress) => say(`Step ${progress.step} of at most ${progress.max_steps}`));
  if (fit.status !== "succeeded") throw new Error(fit.error?.message ?? `the fit was ${fit.status}`);
  const [drawn, samples] = await Promise.all([
    call(`/v1/datasets/${fit.dataset_id}/points?limit=${N_SAMPLES}`),
    call(`/v1/mixtures/${fit.result.mixture_id}/samples`, { n_samples: N_SAMPLES, seed: 1 }),
  ]);
  show(fit, drawn, samples);
  const milliseconds = Math.round(1000 * fit.result.elapsed_seconds);
  say(`Fitted ${N_SAMPLES} points (seed ${seed}) in ${milliseconds} ms, ${fit.result.n_steps} steps, by ${fit.result.device}.`);
}

function show(fit, drawn, samples) {
  const { mixture, recovery } = fit.result;
  // A learned component has the colour of the true one that it was matched with.
  const colours = mixture.weights.map((_, k) => recovery.matching.find((pair) => pair.fitted_component === k)?.gold_component ?? 7);
  const extent = extentOf([...drawn.points, ...samples.points]);
  document.querySelector("#demo-truth").replaceChildren(scatter({
    points: drawn.points, components: drawn.components, mixture: GOLD, colours: [0, 1, 2], extent,
    label: "Scatter of the points drawn from the gold mixture, with its ellipses",
  }));
  document.querySelector("#demo-learned").replaceChildren(scatter({
    points: samples.points, components: samples.components.map((k) => colours[k]), mixture, colours, extent,
    reference: GOLD, label: "Scatter of samples of the learned mixture, with its ellipses and the true ones dashed",
  }));
  showParameters(mixture, recovery);
  showFigures(fit.result);
  document.querySelector("#demo-result").hidden = false;
}

function showParameters(mixture, recovery) {
  const both = (title, value, digits = 3) => ({
    title,
    cell: ({ gold_component: gold, fitted_component: fitted }) => element("span", {},
      element("span", { class: "was" }, `${shown(value(GOLD, gold), digits)} → `), shown(value(mixture, fitted), digits)),
  });
  const correlation = ([[a, b], [, d]]) => b / Math.sqrt(a * d);
  fillTable(document.querySelector("#demo-parameters"), [
    { title: "Component", cell: (pair) => element("span", {}, swatch(pair.gold_component), `${pair.gold_component + 1}`) },
    both("Weight, true → learned", (m, k) => m.weights[k]),
    both("Mean of x", (m, k) => m.means[k][0]),
    both("Mean of y", (m, k) => m.means[k][1]),
    both("Deviation of x", (m, k) => Math.sqrt(m.covariances[k][0][0])),
    both("Deviation of y", (m, k) => Math.sqrt(m.covariances[k][1][1])),
    both("Correlation", (m, k) => correlation(m.covariances[k])),
  ], recovery.matching, "");
}

function showFigures(result) {
  const { recovery } = result;
  const figures = [
    ["Log-likelihood, nats", shown(result.log_likelihood, 2)],
    ["KL(true ‖ learned), nats", `${shown(recovery.kl.value, 4)} ± ${shown(recovery.kl.standard_error, 4)}`],
    ["Adjusted Rand index", shown(recovery.adjusted_rand_index)],
    ["Restarts that agree", `${result.optima[0].hits} of ${result.optima.reduce((sum, optimum) => sum + optimum.hits, 0)}`],
  ];
  document.querySelector("#demo-figures").replaceChildren(...figures.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}
