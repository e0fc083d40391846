// Small mathematics on what the API answers: projections of mixtures, ellipses, densities, condition numbers.

/** Returns eigenvalues, falling, and their vectors of a symmetric matrix, by Jacobi's rotations. */
export function eigen(matrix) {
  const n = matrix.length;
  const a = matrix.map((row) => [...row]);
  const v = a.map((_, i) => a.map((__, j) => (i === j ? 1 : 0)));
  for (let sweep = 0; sweep < 60; sweep += 1) {
    let off = 0;
    for (let p = 0; p < n; p += 1) for (let q = p + 1; q < n; q += 1) off += a[p][q] ** 2;
    if (off <= 1e-30 * a.reduce((sum, row, i) => sum + row[i] ** 2, 0)) break;
    for (let p = 0; p < n; p += 1) for (let q = p + 1; q < n; q += 1) if (a[p][q] !== 0) rotate(a, v, p, q);
  }
  const order = a.map((_, i) => i).sort((i, j) => a[j][j] - a[i][i]);
  return { values: order.map((i) => a[i][i]), vectors: order.map((i) => v.map((row) => row[i])) };
}

function rotate(a, v, p, q) {
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (let k = 0; k < a.length; k += 1) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
  for (let k = 0; k < a.length; k += 1) {
    [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
    [v[k][p], v[k][q]] = [c * v[k][p] - s * v[k][q], s * v[k][p] + c * v[k][q]];
  }
}

/** Returns the covariance (D, D) of component k, whatever the covariance_type. */
export function covarianceOf(mixture, k) {
  const { covariances, covariance_type: type } = mixture;
  const diagonal = (values) => values.map((value, i) => values.map((_, j) => (i === j ? value : 0)));
  if (type === "tied") return covariances;
  if (type === "diag") return diagonal(covariances[k]);
  if (type === "spherical") return diagonal(mixture.means[k].map(() => covariances[k]));
  return covariances[k];
}

/** Returns the condition number of a covariance: its largest eigenvalue by its smallest. */
export function conditionNumber(covariance) {
  const { values } = eigen(covariance);
  return values[0] / values.at(-1);
}

/** Returns two directions (2, D) that pick a pair of features. */
export function pairDirections(features, nFeatures) {
  return features.map((feature) => Array.from({ length: nFeatures }, (_, i) => (i === feature ? 1 : 0)));
}

/** Returns the two directions in which standardised points spread most, and the shares of variance they hold. */
export function principal(points) {
  const n = points.length;
  const mean = points[0].map((_, i) => points.reduce((sum, point) => sum + point[i], 0) / n);
  const scale = mean.map((m, i) => Math.sqrt(points.reduce((sum, point) => sum + (point[i] - m) ** 2, 0) / n) || 1);
  const z = points.map((point) => point.map((value, i) => (value - mean[i]) / scale[i]));
  const correlations = mean.map((_, i) => mean.map((__, j) => z.reduce((sum, row) => sum + row[i] * row[j], 0) / n));
  const { values, vectors } = eigen(correlations);
  const total = values.reduce((sum, value) => sum + value, 0);
  return {
    directions: vectors.slice(0, 2).map((vector) => vector.map((value, i) => value / scale[i])),
    shares: values.slice(0, 2).map((value) => value / total),
    mean,
  };
}

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);

/** Returns points (N, D) along two directions (2, D), from an origin. */
export function projected(points, directions, origin) {
  const from = directions.map((direction) => (origin ? dot(direction, origin) : 0));
  return points.map((point) => directions.map((direction, i) => dot(direction, point) - from[i]));
}

/** Returns a mixture as its two-dimensional marginal along two directions: {weights, means, covariances}. */
export function marginal(mixture, directions, origin) {
  const covariances = mixture.means.map((_, k) => {
    const covariance = covarianceOf(mixture, k);
    const half = directions.map((direction) => covariance.map((row) => dot(row, direction)));
    return directions.map((direction) => half.map((column) => dot(direction, column)));
  });
  return { weights: mixture.weights, means: projected(mixture.means, directions, origin), covariances };
}

/** Returns the outline of {x : Mahalanobis distance = times} around a mean, (n, 2). */
export function ellipse(mean, [[a, b], [, d]], times, n = 72) {
  const l = Math.sqrt(a);
  const [m, o] = [b / l, Math.sqrt(Math.max(d - (b / l) ** 2, 0))];
  return Array.from({ length: n + 1 }, (_, i) => {
    const [c, s] = [Math.cos((2 * Math.PI * i) / n), Math.sin((2 * Math.PI * i) / n)];
    return [mean[0] + times * l * c, mean[1] + times * (m * c + o * s)];
  });
}

/** Returns the density of a two-dimensional mixture as a function of x and y. */
export function density({ weights, means, covariances }) {
  const parts = covariances.map(([[a, b], [, d]], k) => {
    const determinant = a * d - b * b;
    const peak = weights[k] / (2 * Math.PI * Math.sqrt(determinant));
    return { mean: means[k], a: d / determinant, b: -b / determinant, d: a / determinant, peak };
  });
  return (x, y) => parts.reduce((sum, { mean, a, b, d, peak }) => {
    const [u, v] = [x - mean[0], y - mean[1]];
    return sum + peak * Math.exp(-0.5 * (a * u * u + 2 * b * u * v + d * v * v));
  }, 0);
}
