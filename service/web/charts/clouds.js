// Points of two dimensions with the mixture over them: dots, ellipses at 1 and 2 standard deviations, contours.

import { density, ellipse } from "../page/gaussians.js";
import { chart, colour, grid } from "./plot.js";

const { Plot, d3 } = globalThis;
const GRID = 90;
const MASSES = [0.02, 0.08, 0.2, 0.4, 0.65];

/** Returns the ranges of points and of ellipses at 2 standard deviations, with a margin: {x, y}. */
export function extentOf(points, mixtures) {
  const outlines = mixtures.flatMap(({ means, covariances }) => means.flatMap((mean, k) => ellipse(mean, covariances[k], 2, 16)));
  const [x, y] = [0, 1].map((i) => {
    const [low, high] = d3.extent([...points, ...outlines], (point) => point[i]);
    const margin = 0.04 * (high - low) || 1;
    return [low - margin, high + margin];
  });
  return { x, y };
}

/**
 * Returns a scatter.
 * @param {object} what
 *   points (n, 2); components (n) or null; uncertainty (n) or null, which then colours; mixture {weights, means,
 *   covariances} of two dimensions or null; colours (K) of its components; reference, a mixture drawn dashed;
 *   names of the axes; extent {x, y}; ellipses and contours: whether to draw them; label
 */
export function clouds(what) {
  const { points, components, uncertainty, extent, names, label } = what;
  const rows = points.map(([x, y], i) => ({
    x, y, fill: uncertainty ? certainty(uncertainty[i]) : components ? colour(components[i]) : "var(--soft)",
    r: uncertainty ? 2 + 2.4 * uncertainty[i] : radius(points.length),
  }));
  const marks = [grid()];
  if (what.contours && what.mixture) marks.push(contours(what.mixture, extent));
  marks.push(Plot.dot(rows, { x: "x", y: "y", r: (row) => row.r, fill: (row) => row.fill, fillOpacity: 0.6 }));
  if (what.ellipses && what.mixture) marks.push(...outlines(what.mixture, what.colours, null));
  if (what.reference) marks.push(...outlines(what.reference, null, "4,4"));
  return chart(label, (width) => ({
    width, height: Math.min(Math.max(0.78 * width, 260), 520), marks,
    x: { domain: extent.x, label: names[0], nice: false }, y: { domain: extent.y, label: names[1], nice: false },
    r: { type: "identity" }, color: { type: "identity" }, clip: true,
  }));
}

const radius = (n) => Math.max(1.3, 2.6 - n / 2500);

function certainty(value) {
  return `color-mix(in oklab, var(--uncertain) ${Math.round(100 * Math.min(2 * value, 1))}%, var(--certain))`;
}

function outlines(mixture, colours, dashed) {
  const rings = mixture.means.flatMap((mean, k) => [2, 1].map((times) => ({ k, times, line: ellipse(mean, mixture.covariances[k], times) })));
  const points = rings.flatMap(({ k, times, line }) => line.map(([x, y]) => ({ x, y, ring: `${k} ${times}`, k, times })));
  const stroke = (row) => (dashed ? "var(--ink)" : colour(colours[row.k]));
  const lines = Plot.line(points, {
    x: "x", y: "y", z: "ring", stroke, strokeWidth: dashed ? 1.3 : 2, strokeDasharray: dashed ?? undefined, strokeOpacity: dashed ? 0.75 : 1,
  });
  if (dashed) return [lines];
  const centers = mixture.means.map(([x, y], k) => ({ x, y, k }));
  return [lines, Plot.dot(centers, { x: "x", y: "y", r: 4.5, fill: stroke, stroke: "var(--surface)", strokeWidth: 1.5 })];
}

function contours(mixture, { x, y }) {
  const value = density(mixture);
  const across = d3.scaleLinear([0, GRID - 1], x);
  const up = d3.scaleLinear([0, GRID - 1], y);
  const values = Float64Array.from({ length: GRID * GRID }, (_, i) => value(across(i % GRID), up(Math.floor(i / GRID))));
  const top = d3.max(values);
  const shapes = d3.contours().size([GRID, GRID]).thresholds(MASSES.map((share) => share * top))(values);
  const placed = shapes.map(({ coordinates }) => ({
    type: "MultiPolygon",
    coordinates: coordinates.map((polygon) => polygon.map((ring) => ring.map(([i, j]) => [across(i - 0.5), up(j - 0.5)]))),
  }));
  return Plot.geo(placed, { fill: "var(--accent)", fillOpacity: 0.055, stroke: "var(--soft)", strokeOpacity: 0.45, strokeWidth: 0.8 });
}
