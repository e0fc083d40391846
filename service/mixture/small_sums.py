"""The hot loop where a pass is so little work that waking other threads would be most of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from service.mixture.threads import threads_for

Array = np.ndarray[Any, Any]

# Numbers of a (K, N) array up to which one thread is the quickest; so many together stay in a core's cache.
SMALL_NUMBERS = 1 << 18
BLOCK_NUMBERS = 1 << 17
# Products have rows and columns in multiples of these: the last few beyond would be multiplied by other
# instructions, with other rounding, and which rows are the last depends on how many mixtures there are.
ROWS, COLUMNS = 4, 8
# Below this a sum of exponentials may have lost terms to underflow.
SMALLEST = {"float64": 1e-280, "float32": 1e-25}
# Lower logarithms count for nothing, and would make numbers that processors are slow at.
LOWEST = {"float64": -700.0, "float32": -85.0}


def _by_torch(function: Callable[..., Tensor]) -> Callable[..., Array]:
    def call(values: Array, out: Array) -> Array:
        function(torch.from_numpy(values), out=torch.from_numpy(out))
        return out

    return call


# numpy has vectorised both for AVX-512 alone; elsewhere torch's are several times as fast.
_QUICK_NUMPY = torch.backends.cpu.get_cpu_capability() == "AVX512"
_exp: Callable[..., Array] = np.exp if _QUICK_NUMPY else _by_torch(torch.exp)
_log: Callable[..., Array] = np.log if _QUICK_NUMPY else _by_torch(torch.log)


class SmallSums:
    """Sums over points of responsibilities times features, for many mixtures, on the CPU, by one thread.

    All mixtures are rows of one product; a restart's numbers still do not depend on which others run beside
    it, to the last bit.

    Args:
        phi: (F, N) features of all points.
        weights: (N,) of the points, or None.
    """

    def __init__(self, phi: Tensor, weights: Tensor | None) -> None:
        self._n_rows, self._n_samples = phi.shape
        filled = (0, -self._n_samples % COLUMNS, 0, -self._n_rows % COLUMNS)
        self._phi: Array = torch.nn.functional.pad(phi, filled).numpy()
        self._weights: Array | None = None
        if weights is not None:
            self._weights = torch.nn.functional.pad(weights, filled[:2]).numpy()
        self._room: Array = np.empty(0, self._phi.dtype)
        self._smallest = SMALLEST[self._phi.dtype.name]
        self._lowest = LOWEST[self._phi.dtype.name]

    def __call__(self, coefficients: Array) -> tuple[Array, Array]:
        """For coefficients (R, K, F): sums of logsumexp over k (R,), and R Phi^T (R, K, F), float64.

        No entry of theta . phi may be larger than zero by more than rounding.
        """
        n_restarts, n_components, _ = coefficients.shape
        together = max(1, BLOCK_NUMBERS // (n_components * self._n_samples))
        starts = range(0, n_restarts, together)
        with threads_for(0):
            blocks = [self._block(coefficients[start : start + together]) for start in starts]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate([block[0] for block in blocks]), np.concatenate([block[1] for block in blocks])

    def _block(self, coefficients: Array) -> tuple[Array, Array]:
        """The same for as many restarts as have their responsibilities in the cache together."""
        n_restarts, n_components, n_rows = coefficients.shape
        n_own = n_restarts * n_components
        theta = np.zeros((n_own + -n_own % ROWS, self._phi.shape[0]), self._phi.dtype)
        theta[:n_own, :n_rows] = coefficients.reshape(n_own, n_rows)
        size = theta.shape[0] * self._phi.shape[1]
        if self._room.size < size:
            self._room = np.empty(size, self._phi.dtype)
        joint = self._room[:size].reshape(theta.shape[0], self._phi.shape[1])
        _multiply(theta, self._phi, joint)
        own = joint[:n_own].reshape(n_restarts, n_components, -1)
        log_totals = self._shares(own)
        if log_totals is None:
            _multiply(theta, self._phi, joint)
            log_totals = self._shares_far_out(own)
        if self._weights is not None:
            own *= self._weights
            log_totals *= self._weights
        _multiply(joint, self._phi.T, theta)
        sums = theta[:n_own, :n_rows].reshape(coefficients.shape)
        log_likelihoods: Array = np.add.reduce(log_totals[:, : self._n_samples], axis=1, dtype=np.float64)
        return log_likelihoods, sums.astype(np.float64, copy=False)

    def _shares(self, joint: Array) -> Array | None:
        """Makes joint (R, K, N) responsibilities; logsumexp over k (R, N), or None where it underflows."""
        np.maximum(joint, self._lowest, out=joint)
        _exp(joint, out=joint)
        totals = np.add.reduce(joint, axis=1)
        if not totals.min() > self._smallest:
            return None
        joint *= (1.0 / totals)[:, None]
        return _log(totals, out=totals)

    def _shares_far_out(self, joint: Array) -> Array:
        """The same where all of a point's densities underflow: their maximum is taken off first."""
        highest = joint.max(axis=1, keepdims=True)
        joint -= highest
        np.maximum(joint, self._lowest, out=joint)
        _exp(joint, out=joint)
        totals = np.add.reduce(joint, axis=1)
        joint *= (1.0 / totals)[:, None]
        log_totals: Array = highest[:, 0] + _log(totals, out=totals)
        return log_totals


def _multiply(left: Array, right: Array, out: Array) -> None:
    """Fills out with left right: by torch, which keeps to the number of threads that it is told."""
    torch.mm(torch.from_numpy(left), torch.from_numpy(right), out=torch.from_numpy(out))
