// The data of a fit with its mixture over them, and samples of the mixture beside them.

import { clouds, extentOf } from "../charts/clouds.js";
import { histogram } from "../charts/histogram.js";
import { get, post } from "../page/api.js";
import { card, element, field, loading, notice, save, segments, select, swatch } from "../page/elements.js";
import { marginal, pairDirections, principal, projected } from "../page/gaussians.js";
import { remember } from "../page/router.js";
import { count, csv, featureName } from "../page/text.js";

const SHOWN_POINTS = 3000;

/** Returns what is shown of a dataset: a sample of its points, with what the mixture says of each. */
export async function look(datasetId, mixtureId, signal) {
  const sample = await get(`/v1/datasets/${datasetId}/points?sample=${SHOWN_POINTS}`, signal);
  if (!mixtureId) return sample;
  const { responsibilities, labels } = await post(`/v1/mixtures/${mixtureId}/responsibilities`, { points: sample.points }, signal);
  return { ...sample, labels, uncertainty: responsibilities.map((row) => 1 - Math.max(...row)) };
}

/** Returns the projections to choose from, and the one that parameters ask for: {directions, origin, names}. */
function projections(points, columns) {
  const nFeatures = points[0].length;
  const name = (feature) => featureName(columns, feature);
  return {
    pair: (features) => ({ directions: pairDirections(features, nFeatures), origin: null, names: features.map(name) }),
    pca: () => {
      const { directions, shares, mean } = principal(points);
      const names = shares.map((share, i) => `principal component ${i + 1} (${Math.round(100 * share)} % of the variance)`);
      return { directions, origin: mean, names };
    },
  };
}

/**
 * Returns the card of data and samples.
 * @param {object} what {sample, mixture, mixtureId, columns, colours, truth: whether the true components are known}
 * @param {URLSearchParams} query
 */
export function scene(what, query) {
  const nFeatures = what.mixture.means[0].length;
  const asked = (query.get("features") ?? "0,1").split(",").map(Number);
  const valid = asked.length === 2 && asked.every((feature) => Number.isInteger(feature) && feature >= 0 && feature < nFeatures);
  const state = {
    view: query.get("view") === "pca" && nFeatures > 2 ? "pca" : "pair", features: valid ? asked : [0, Math.min(1, nFeatures - 1)],
    colour: query.get("colour") ?? "component", ellipses: true, contours: true, samples: null,
  };
  const left = element("figure");
  const right = element("figure");
  const draw = () => {
    left.replaceChildren(...dataFigure(what, state));
    right.replaceChildren(...sampleFigure(what, state));
  };
  const choose = (name, value) => { state[name] = value; remember(name, value === "component" || value === "pair" ? null : value); draw(); };
  const body = element("div", { class: "pair" }, left, element("div", {}, right, sampling(what, state, draw)));
  draw();
  return card("Data and mixture", subtitle(what.sample), null, toolbar(what, state, choose, draw, nFeatures), body);
}

function subtitle(sample) {
  const shown = sample.points.length;
  if (shown === sample.n_samples) return `All ${count(shown)} points, with ellipses at 1 and 2 standard deviations.`;
  return `${count(shown)} of ${count(sample.n_samples)} points, drawn by the server; ellipses at 1 and 2 standard deviations.`;
}

function toolbar(what, state, choose, draw, nFeatures) {
  const colours = [["component", "Component"], ["uncertainty", "Uncertainty"], ...(what.sample.components ? [["truth", "True component"]] : [])];
  const check = (name, text) => element("label", { class: "check" }, element("input", {
    type: "checkbox", checked: state[name], onchange: ({ target }) => { state[name] = target.checked; draw(); },
  }), text);
  const parts = [segments("Colour the points by", colours, state.colour, (value) => choose("colour", value))];
  if (nFeatures > 2) parts.push(chooser(what, state, choose));
  if (nFeatures > 1) parts.push(check("ellipses", "Ellipses"), check("contours", "Density"));
  return element("div", { class: "toolbar" }, parts);
}

function chooser(what, state, choose) {
  const names = what.mixture.means[0].map((_, feature) => [feature, featureName(what.columns, feature)]);
  const axis = (i, label) => field(label, select(names, state.features[i], {
    onchange: ({ target }) => {
      const other = state.features[1 - i] === Number(target.value) ? state.features[i] : state.features[1 - i];
      const features = i ? [other, Number(target.value)] : [Number(target.value), other];
      axes.querySelectorAll("select").forEach((control, place) => { control.value = features[place]; });
      state.features = features;
      choose("features", features);
    },
  }));
  const axes = element("span", { class: "toolbar axes" }, axis(0, "Across"), axis(1, "Up"));
  axes.hidden = state.view === "pca";
  return element("div", { class: "toolbar axes" }, segments("Which two dimensions", [["pair", "Two features"], ["pca", "PCA"]], state.view, (value) => {
    axes.hidden = value === "pca";
    choose("view", value);
  }), axes);
}

/** Returns the figure of points under a mixture, of one dimension or two. */
export function pointsFigure(what, state, label) {
  const { mixture, columns, colours } = what;
  const components = state.colour === "truth" ? what.points.truth : what.points.components;
  if (mixture.means[0].length === 1) {
    return histogram({ points: what.points.points, components, mixture, colours, reference: what.reference, name: featureName(columns, 0), label });
  }
  const { directions, origin, names } = state.view === "pca" ? projections(what.base, columns).pca() : projections(what.base, columns).pair(state.features);
  const flat = (one) => one && marginal(one, directions, origin);
  const points = projected(what.points.points, directions, origin);
  const extent = extentOf(projected(what.base, directions, origin), [flat(mixture), flat(what.reference)].filter(Boolean));
  return clouds({
    points, components, colours, names, label, extent, mixture: flat(mixture), reference: flat(what.reference),
    uncertainty: state.colour === "uncertainty" ? what.points.uncertainty : null, ellipses: state.ellipses, contours: state.contours,
  });
}

function dataFigure(what, state) {
  const { sample, colours } = what;
  const points = { points: sample.points, components: sample.labels.map((k) => colours[k]), truth: sample.components, uncertainty: sample.uncertainty };
  const label = `${sample.points.length} data points coloured by ${state.colour}, under the fitted mixture`;
  const legend = state.colour === "uncertainty"
    ? element("p", { class: "legend" }, element("span", {}, "certain", element("span", { class: "ramp" }), "undecided: 1 − largest responsibility, 0 to ½ and more"))
    : element("ul", { class: "legend" }, (state.colour === "truth" ? [...new Set(sample.components)].sort((a, b) => a - b) : what.mixture.weights.map((_, k) => k))
      .map((k) => element("li", {}, swatch(state.colour === "truth" ? k : colours[k]), `${state.colour === "truth" ? "true " : ""}component ${k + 1}`)));
  return [element("figcaption", {}, "The data"), pointsFigure({ ...what, points, base: sample.points }, state, label), legend];
}

function sampleFigure(what, state) {
  if (!state.samples) return [];
  const { points, components, seed } = state.samples;
  const drawn = { points, components: components.map((k) => what.colours[k]) };
  const label = `${points.length} samples of the fitted mixture`;
  const plain = { ...state, colour: "component" };
  return [
    element("figcaption", {}, "Samples of the mixture", element("small", {}, `${count(points.length)} points, seed ${seed}`)),
    pointsFigure({ ...what, points: drawn, base: what.sample.points }, plain, label),
  ];
}

function sampling(what, state, draw) {
  const number = element("input", { type: "number", min: 1, max: 100000, value: 1000, required: true });
  const seed = element("input", { type: "number", min: 0, placeholder: "any" });
  const said = element("div");
  const names = what.columns ?? what.mixture.means[0].map((_, i) => `x${i + 1}`);
  const download = element("button", {
    type: "button", class: "plain", hidden: true,
    onclick: () => save(`samples-${state.samples.seed}.csv`, "text/csv", csv([...names, "component"], state.samples.points.map((point, i) => [...point, state.samples.components[i]]))),
  }, "Download CSV");
  const drawn = async (fixedSeed) => {
    if (!number.reportValidity() || !seed.reportValidity()) return;
    said.replaceChildren(loading("Drawing"));
    try {
      const wanted = seed.value === "" ? fixedSeed : Number(seed.value);
      state.samples = await post(`/v1/mixtures/${what.mixtureId}/samples`, { n_samples: Number(number.value), ...(wanted !== undefined && { seed: wanted }) });
      download.hidden = false;
      said.replaceChildren();
      draw();
    } catch (error) {
      said.replaceChildren(notice(error));
    }
  };
  const start = element("button", { type: "button", onclick: () => drawn() }, "Draw samples");
  drawn(0);
  return element("div", {}, element("div", { class: "toolbar" }, field("Samples", number), field("Seed", seed), start, download), said);
}
