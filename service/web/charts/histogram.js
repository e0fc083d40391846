// One feature: a histogram of the points coloured by component, and the density over it.

import { covarianceOf } from "../page/gaussians.js";
import { chart, colour, grid } from "./plot.js";

const { Plot, d3 } = globalThis;

/** Returns a histogram. `what` has points (n, 1), components, mixture, colours, reference, name and label. */
export function histogram({ points, components, mixture, colours, reference, name, label }) {
  const values = points.map(([value]) => value);
  const bins = d3.bin().thresholds(Math.min(80, Math.max(10, Math.round(2 * Math.sqrt(values.length)))))(values);
  const parts = d3.range((d3.max(components ?? [0]) ?? 0) + 1);
  const rows = bins.flatMap(({ x0, x1 }, place) => parts.map((k) => {
    const inside = values.filter((value, i) => (components?.[i] ?? 0) === k && value >= x0 && (value < x1 || place === bins.length - 1));
    return { x0, x1, k, y: inside.length / (values.length * (x1 - x0 || 1)) };
  })).filter(({ y }) => y > 0);
  const marks = [grid(), Plot.rectY(rows, {
    x1: "x0", x2: "x1", y: "y", fill: (row) => (components ? colour(row.k) : "var(--soft)"), fillOpacity: 0.4,
  })];
  const [low, high] = d3.extent(values);
  const margin = 0.05 * (high - low) || 1;
  const places = d3.range(400).map((i) => low - margin + ((high - low + 2 * margin) * i) / 399);
  if (mixture) {
    mixture.means.forEach((_, k) => marks.push(curve(places, part(mixture, k), colour(colours[k]), null)));
    if (mixture.means.length > 1) marks.push(curve(places, whole(mixture), "var(--ink)", null));
  }
  if (reference) marks.push(curve(places, whole(reference), "var(--ink)", "4,4"));
  return chart(label, (across) => ({
    width: across, height: Math.min(Math.max(0.6 * across, 240), 420), marks, color: { type: "identity" },
    x: { label: name }, y: { label: "density" },
  }));
}

const part = (mixture, k) => {
  const variance = covarianceOf(mixture, k)[0][0];
  const peak = mixture.weights[k] / Math.sqrt(2 * Math.PI * variance);
  return (x) => peak * Math.exp((-0.5 * (x - mixture.means[k][0]) ** 2) / variance);
};

const whole = (mixture) => {
  const parts = mixture.means.map((_, k) => part(mixture, k));
  return (x) => parts.reduce((sum, one) => sum + one(x), 0);
};

function curve(places, value, stroke, strokeDasharray) {
  return Plot.line(places.map((x) => ({ x, y: value(x) })), { x: "x", y: "y", stroke, strokeWidth: 1.8, ...(strokeDasharray && { strokeDasharray }) });
}
