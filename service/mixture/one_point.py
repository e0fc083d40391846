"""Answers about a single point, by NumPy: the latency of a request, where each call of torch counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class OnePoint:
    """What questions about one point need, in the centred form of `density`.

    Attributes:
        means: (K, D).
        precisions_cholesky: (K, D, D), upper triangular, or (K, D), where that is diagonal.
        log_peaks: (K,), the log of each weight and of its component's density at its mean, in nats.
    """

    means: Floats
    precisions_cholesky: Floats
    log_peaks: Floats

    def log_density(self, point: Floats) -> Floats | None:
        """Log sum_k weight_k N(x; mean_k, covariance_k) of a point (1, D): (1,), nats; None if not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            answer: Floats = np.logaddexp.reduce(self._joint(point), keepdims=True)
        return answer if math.isfinite(answer[0]) else None

    def responsibilities(self, point: Floats) -> Floats | None:
        """Posterior over the components of a point (1, D): (1, K); None where all densities underflow."""
        with np.errstate(over="ignore", invalid="ignore"):
            joint = self._joint(point)
            largest = np.maximum.reduce(joint)
            if not np.isfinite(largest):
                return None
            scaled = np.exp(joint - largest)
        posterior: Floats = scaled / np.add.reduce(scaled)
        return posterior[None]

    def _joint(self, point: Floats) -> Floats:
        differences = point - self.means
        if self.precisions_cholesky.ndim == 2:
            whitened = differences * self.precisions_cholesky
        else:
            whitened = np.matmul(differences[:, None, :], self.precisions_cholesky)[:, 0]
        joint: Floats = self.log_peaks - 0.5 * np.vecdot(whitened, whitened)
        return joint
