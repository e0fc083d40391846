"""The hot loop where a pass is so little work that calling torch would be most of it: numpy, one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]

# Numbers of a (K, N) array up to which one thread is the quickest; so many together stay in a core's cache.
SMALL_NUMBERS = 1 << 18
BLOCK_NUMBERS = 1 << 17
# Multiplications of a product that OpenBLAS gives to one thread, which is the quickest; for more it wakes
# others, who wait for one another in a loop, and on busy processors for long.
PRODUCT = 1 << 18
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
    """Sums over points of responsibilities times features, for many mixtures, on the CPU.

    A restart's numbers do not depend on which others run beside it, to the last bit: every restart has
    products of its own, of one shape.

    Args:
        phi: (F, N) features of all points.
        weights: (N,) of the points, or None.
    """

    def __init__(self, phi: Tensor, weights: Tensor | None) -> None:
        self._phi: Array = phi.numpy()
        self._weights: Array | None = None if weights is None else weights.numpy()
        self._room: Array = np.empty(0, self._phi.dtype)
        self._smallest = SMALLEST[self._phi.dtype.name]
        self._lowest = LOWEST[self._phi.dtype.name]

    def __call__(self, coefficients: Array) -> tuple[Array, Array]:
        """For coefficients (R, K, F): sums of logsumexp over k (R,), and R Phi^T (R, K, F), float64.

        No entry of theta . phi may be larger than zero by more than rounding.
        """
        n_restarts, n_components, _ = coefficients.shape
        log_likelihoods = np.empty(n_restarts)
        sums = np.empty(coefficients.shape)
        n_samples = self._phi.shape[1]
        together = max(1, BLOCK_NUMBERS // (n_components * n_samples))
        size = min(together, n_restarts) * n_components * n_samples
        if self._room.size < size:
            self._room = np.empty(size, self._phi.dtype)
        for start in range(0, n_restarts, together):
            part = slice(start, min(start + together, n_restarts))
            shape = (part.stop - start, n_components, n_samples)
            joint = self._room[: shape[0] * n_components * n_samples].reshape(shape)
            log_likelihoods[part] = self._shares(coefficients[part], joint)
            self._add_up(joint, sums[part])
        return log_likelihoods, sums

    def _parts(self, n_components: int) -> list[slice]:
        """Points in runs, each so short that a restart's product of its features is left to one thread."""
        n_rows, n_samples = self._phi.shape
        size = max(1, PRODUCT // (n_components * n_rows))
        return [slice(start, start + size) for start in range(0, n_samples, size)]

    def _multiply(self, theta: Array, joint: Array) -> None:
        """Fills joint (R, K, N) with theta (R, K, F) phi."""
        for part in self._parts(theta.shape[1]):
            np.matmul(theta, self._phi[:, part], out=joint[..., part])

    def _add_up(self, shares: Array, sums: Array) -> None:
        """Fills sums (R, K, F) with shares (R, K, N) phi^T."""
        first, *others = self._parts(shares.shape[1])
        sums[:] = np.matmul(shares[..., first], self._phi[:, first].T)
        for part in others:
            sums += np.matmul(shares[..., part], self._phi[:, part].T)

    def _shares(self, theta: Array, joint: Array) -> Array:
        """Fills joint (R, K, N) with responsibilities times weights; sums (R,) of logsumexp come back."""
        self._multiply(theta, joint)
        np.maximum(joint, self._lowest, out=joint)
        _exp(joint, out=joint)
        totals = np.add.reduce(joint, axis=1)
        if not totals.min() > self._smallest:
            return self._shares_far_out(theta, joint)
        np.divide(joint, totals[:, None], out=joint)
        log_totals = _log(totals, out=totals)
        if self._weights is not None:
            joint *= self._weights
            log_totals *= self._weights
        sums: Array = np.add.reduce(log_totals, axis=1, dtype=np.float64)
        return sums

    def _shares_far_out(self, theta: Array, joint: Array) -> Array:
        """The same where all of a point's densities underflow: their maximum is taken off first."""
        self._multiply(theta, joint)
        highest = joint.max(axis=1, keepdims=True)
        joint -= highest
        np.maximum(joint, self._lowest, out=joint)
        _exp(joint, out=joint)
        totals = np.add.reduce(joint, axis=1)
        np.divide(joint, totals[:, None], out=joint)
        log_totals = highest[:, 0] + _log(totals, out=totals)
        if self._weights is not None:
            joint *= self._weights
            log_totals *= self._weights
        sums: Array = np.add.reduce(log_totals, axis=1, dtype=np.float64)
        return sums
