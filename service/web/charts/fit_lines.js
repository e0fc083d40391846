// What a fit tells of itself: the log-likelihood of every restart by step, and the criterion by K and family.

import { chart, colour, grid } from "./plot.js";

const { Plot } = globalThis;
const MOST_LINES = 256;

/** Collects the `traces` of progress events into whole ones. */
export class Traces {
  #whole = new Map();

  /** Takes what is new. */
  add(parts) {
    for (const part of parts ?? []) {
      const key = `${part.n_components} ${part.covariance_type} ${part.restart}`;
      if (!this.#whole.has(key)) this.#whole.set(key, { ...part, points: new Map() });
      const { points } = this.#whole.get(key);
      part.steps.forEach((step, i) => points.set(step, part.log_likelihoods[i]));
    }
  }

  /** Returns {n_components, covariance_type, restart, points: [[step, log_likelihood]] in order} for each. */
  list() {
    return [...this.#whole.values()].map((trace) => ({ ...trace, points: [...trace.points].sort(([a], [b]) => a - b) }));
  }
}

/** Returns a chart of all traces, which `redraw()` draws anew with what has come since. */
export function traceChart(traces) {
  return chart("Log-likelihood by step, a line for each restart", (width) => {
    const list = traces.list().slice(0, MOST_LINES);
    const candidates = [...new Set(list.map((trace) => `${trace.n_components} ${trace.covariance_type}`))];
    const colourOf = (trace) => colour(candidates.length > 1 ? candidates.indexOf(`${trace.n_components} ${trace.covariance_type}`) : trace.restart);
    const rows = list.flatMap((trace, line) => trace.points.map(([step, value]) => ({
      step, value, line, stroke: colourOf(trace), name: `${trace.n_components} ${trace.covariance_type}, restart ${trace.restart + 1}`,
    })));
    const ends = list.map((trace) => ({ step: trace.points.at(-1)[0], value: trace.points.at(-1)[1], stroke: colourOf(trace) }));
    return {
      width, height: Math.min(Math.max(0.5 * width, 240), 400), color: { type: "identity" }, marginLeft: 68,
      x: { type: "log", label: "step", ticks: 6, tickFormat: "~s" }, y: { label: "log-likelihood, nats" },
      marks: [
        grid(),
        Plot.line(rows, { x: "step", y: "value", z: "line", stroke: "stroke", strokeWidth: 1.4, strokeOpacity: 0.85 }),
        Plot.dot(ends, { x: "step", y: "value", fill: "stroke", r: 2.8 }),
        Plot.tip(rows, Plot.pointer({ x: "step", y: "value", title: (row) => `${row.name}\nstep ${row.step}\n${row.value.toFixed(2)} nats`, fill: "var(--surface)" })),
      ],
    };
  });
}

/** Returns the families among the candidates of a fit; their places are their colours. */
export function familiesOf(candidates) {
  return [...new Set(candidates.map((row) => row.covariance_type))];
}

/** Returns a chart of a criterion over the candidates of a fit, with a ring around the chosen one. */
export function criterionChart(candidates, criterion, chosen) {
  const name = criterion === "held_out" ? "held_out_log_likelihood" : criterion;
  const families = familiesOf(candidates);
  const rows = candidates.filter((row) => Number.isFinite(row[name])).map((row) => ({
    k: row.n_components, value: row[name], family: row.covariance_type, stroke: colour(families.indexOf(row.covariance_type)),
    chosen: row.n_components === chosen.n_components && row.covariance_type === chosen.covariance_type,
  }));
  return chart(`${criterion} by number of components, a line for each family of covariances`, (width) => ({
    width, height: Math.min(Math.max(0.55 * width, 240), 400), color: { type: "identity" }, marginLeft: 62,
    x: { label: "components", ticks: [...new Set(rows.map((row) => row.k))], tickFormat: "d" },
    y: { label: criterion === "held_out" ? "held-out log-likelihood (higher is better)" : `${criterion.toUpperCase()} (lower is better)` },
    marks: [
      grid(),
      Plot.line(rows, { x: "k", y: "value", z: "family", stroke: "stroke", strokeWidth: 1.8 }),
      Plot.dot(rows, { x: "k", y: "value", fill: "stroke", r: 3.4 }),
      Plot.dot(rows.filter((row) => row.chosen), { x: "k", y: "value", r: 8, stroke: "var(--ink)", strokeWidth: 2 }),
    ],
  }));
}
