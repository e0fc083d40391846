// A scatter of two-dimensional points, coloured by component, with 1 and 2 standard-deviation ellipses.

import { svg } from "./elements.js";

const SIDE = 380; // of the square within the axes, so that a unit is as long across as it is down
const EDGE = { left: 34, right: 8, top: 8, bottom: 26 };

/** Returns the square that holds all points, with a margin: {x: [from, to], y: [from, to]}, one unit alike on both. */
export function extentOf(points) {
  const ranges = [0, 1].map((d) => {
    const values = points.map((point) => point[d]);
    return [Math.min(...values), Math.max(...values)];
  });
  const half = 0.53 * Math.max(...ranges.map(([low, high]) => high - low), 1e-12);
  const [x, y] = ranges.map(([low, high]) => [(low + high) / 2 - half, (low + high) / 2 + half]);
  return { x, y };
}

/**
 * Returns an SVG drawing.
 *
 * @param points (N, 2)
 * @param components (N) the colour of each point
 * @param mixture {means (K, 2), covariances (K, 2, 2)}
 * @param colours (K) the colour of each component
 * @param extent of the axes
 * @param label what a screen reader says
 * @param reference another mixture, drawn dashed
 */
export function scatter({ points, components, mixture, colours, extent, label, reference }) {
  const unit = SIDE / (extent.x[1] - extent.x[0]);
  const x = (value) => EDGE.left + unit * (value - extent.x[0]);
  const y = (value) => EDGE.top + unit * (extent.y[1] - value);
  const box = `0 0 ${EDGE.left + SIDE + EDGE.right} ${EDGE.top + SIDE + EDGE.bottom}`;
  const drawing = svg("svg", { class: "scatter", viewBox: box, role: "img", "aria-label": label });
  drawing.append(...axes(extent, x, y));
  points.forEach((point, i) => drawing.append(svg("circle", {
    class: `point k${components[i] % 8}`, cx: x(point[0]).toFixed(1), cy: y(point[1]).toFixed(1), r: 2.1,
  })));
  mixture.means.forEach((mean, k) => {
    const colour = `k${colours[k] % 8}`;
    for (const [times, kind] of [[2, "ellipse outer"], [1, "ellipse"]]) {
      drawing.append(ellipse(mean, mixture.covariances[k], times, x, y, unit, `${kind} ${colour}`));
    }
    drawing.append(svg("circle", { class: `mean ${colour}`, cx: x(mean[0]), cy: y(mean[1]), r: 4 }));
  });
  reference?.means.forEach((mean, k) => {
    for (const times of [2, 1]) {
      drawing.append(ellipse(mean, reference.covariances[k], times, x, y, unit, "reference"));
    }
  });
  return drawing;
}

function axes(extent, x, y) {
  const [left, right, top, bottom] = [EDGE.left, EDGE.left + SIDE, EDGE.top, EDGE.top + SIDE];
  const marks = [];
  for (const value of ticks(extent.x)) {
    marks.push(svg("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: bottom }));
    marks.push(svg("text", { x: x(value), y: bottom + 17, "text-anchor": "middle" }, tick(value)));
  }
  for (const value of ticks(extent.y)) {
    marks.push(svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
    marks.push(svg("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, tick(value)));
  }
  return [...marks, svg("rect", { class: "frame", x: left, y: top, width: right - left, height: bottom - top })];
}

/** Returns four to eight round values within a range. */
function ticks([low, high]) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

function tick(value) {
  return String(Number(value.toPrecision(6))).replace("-", "−");
}

/** The ellipse at a number of standard deviations: eigenvectors of the covariance are its axes. */
function ellipse(mean, [[a, b], [, d]], times, x, y, unit, kind) {
  const middle = (a + d) / 2;
  const spread = Math.hypot((a - d) / 2, b);
  const angle = -(Math.atan2(2 * b, a - d) / 2) * (180 / Math.PI);
  return svg("ellipse", {
    class: kind, cx: x(mean[0]), cy: y(mean[1]),
    rx: times * unit * Math.sqrt(middle + spread), ry: times * unit * Math.sqrt(Math.max(middle - spread, 0)),
    transform: `rotate(${angle} ${x(mean[0])} ${y(mean[1])})`,
  });
}
