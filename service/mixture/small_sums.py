"""The hot loop where a pass is so little work that waking other threads would be most of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from service.mixture.arrays import Array, exp_into, log_into
from service.mixture.parallel import run_parallel
from service.mixture.threads import n_threads, threads_for

# Numbers of a (K, N) array up to which one thread is the quickest; so many together stay in a core's cache.
SMALL_NUMBERS = 1 << 18
BLOCK_NUMBERS = 1 << 17
# With so many features all mixtures are rows of one product, by torch. It has rows and columns in multiples
# of these: the last few beyond would be multiplied by other instructions, with other rounding, and which rows
# are the last depends on how many mixtures there are.
MANY_FEATURES, ROWS, COLUMNS = 16, 4, 8
# With fewer, products of numpy's, one for each mixture, are as quick; but only of so many multiplications:
# for more OpenBLAS wakes other threads, who wait for one another in a loop, and on busy processors for long.
PRODUCT = 1 << 18
# Another thread is woken for so many multiplications by features, and for each number of a (K, N) array there
# is as much to do as so many take.
WORTH_A_THREAD, OTHER_WORK = 2_500_000, 20
# Below this a sum of exponentials may have lost terms to underflow.
SMALLEST = {"float64": 1e-280, "float32": 1e-25}
# Lower logarithms count for nothing, and would make numbers that processors are slow at.
LOWEST = {"float64": -700.0, "float32": -85.0}


class SmallSums:
    """Sums over points of responsibilities times features, for many mixtures, on the CPU, each by one thread.

    A restart's numbers depend neither on which others run beside it nor on the number of threads, to the last
    bit.

    Args:
        phi: (F, N) features of all points.
        weights: (N,) of the points, or None.
    """

    def __init__(self, phi: Tensor, weights: Tensor | None) -> None:
        self._n_rows, self._n_samples = phi.shape
        filled = (0, -self._n_samples % COLUMNS)
        self._phi: Array = torch.nn.functional.pad(phi, filled).numpy()
        self._weights: Array | None = None
        if weights is not None:
            self._weights = torch.nn.functional.pad(weights, filled).numpy()
        self._rooms: list[Array] = []  # of blocks that are done, for others
        self._smallest = SMALLEST[self._phi.dtype.name]
        self._lowest = LOWEST[self._phi.dtype.name]

    def __call__(self, coefficients: Array, *, likelihoods_only: bool = False) -> tuple[Array, Array]:
        """For coefficients (R, K, F): sums of logsumexp over k (R,), and R Phi^T (R, K, F), float64.

        No entry of theta . phi may be larger than zero by more than rounding. If asked, only the first sums
        are taken, and there are no others: (R, K, 0).
        """
        n_restarts, n_components, _ = coefficients.shape
        n_numbers = n_components * self._n_samples
        together = max(1, BLOCK_NUMBERS // n_numbers)
        worth = n_restarts * n_numbers * (self._n_rows + OTHER_WORK) // WORTH_A_THREAD
        shared = min(worth, n_threads(), n_restarts)
        if shared > 1:
            together = min(together, -(-n_restarts // shared))
        starts = range(0, n_restarts, together)

        def block(place: int) -> tuple[Array, Array]:
            start = starts[place]
            return self._block(coefficients[start : start + together], likelihoods_only)

        if shared > 1:
            blocks = run_parallel(block, len(starts))
        else:
            with threads_for(0):
                blocks = [block(place) for place in range(len(starts))]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate([one[0] for one in blocks]), np.concatenate([one[1] for one in blocks])

    def _block(self, coefficients: Array, likelihoods_only: bool) -> tuple[Array, Array]:
        """The same for as many restarts as have their responsibilities in the cache together."""
        n_restarts, n_components, n_rows = coefficients.shape
        mixtures, n_own = (n_restarts, n_components), n_restarts * n_components
        theta = np.zeros((n_own + -n_own % ROWS, n_rows), self._phi.dtype)
        theta[:n_own] = coefficients.reshape(n_own, n_rows)
        size = theta.shape[0] * self._phi.shape[1]
        room = self._room_for(size)
        joint = room[:size].reshape(theta.shape[0], self._phi.shape[1])
        self._multiply(theta, joint, mixtures)
        own = _told_apart(joint, mixtures)
        log_totals = self._shares(own)
        if log_totals is None:
            self._multiply(theta, joint, mixtures)
            log_totals = self._shares_far_out(own)
        if self._weights is not None:
            log_totals *= self._weights
        log_likelihoods: Array = np.add.reduce(log_totals[:, : self._n_samples], axis=1, dtype=np.float64)
        sums: Array = np.empty((*mixtures, 0))
        if not likelihoods_only:
            if self._weights is not None:
                own *= self._weights
            self._add_up(joint, theta, mixtures)
            sums = _told_apart(theta, mixtures).astype(np.float64, copy=False)
        self._rooms.append(room)
        return log_likelihoods, sums

    def _room_for(self, size: int) -> Array:
        """Room for so many numbers, of a block that is done, or new."""
        try:
            room = self._rooms.pop()  # asked for by several threads: to look first would be too early
        except IndexError:
            return np.empty(size, self._phi.dtype)
        return room if room.size >= size else np.empty(size, self._phi.dtype)

    def _multiply(self, theta: Array, joint: Array, mixtures: tuple[int, int]) -> None:
        """Fills joint (rows, N) with theta (rows, F) phi; the first rows are of R times K components."""
        if self._n_rows >= MANY_FEATURES:
            torch.mm(*map(torch.from_numpy, (theta, self._phi)), out=torch.from_numpy(joint))
            return
        each, filled = _told_apart(theta, mixtures), _told_apart(joint, mixtures)
        for part in self._parts(mixtures[1]):
            np.matmul(each, self._phi[:, part], out=filled[..., part])

    def _add_up(self, shares: Array, sums: Array, mixtures: tuple[int, int]) -> None:
        """Fills sums (rows, F) with shares (rows, N) phi^T."""
        if self._n_rows >= MANY_FEATURES:
            torch.mm(*map(torch.from_numpy, (shares, self._phi.T)), out=torch.from_numpy(sums))
            return
        each, added = _told_apart(shares, mixtures), _told_apart(sums, mixtures)
        first, *others = self._parts(mixtures[1])
        added[:] = np.matmul(each[..., first], self._phi[:, first].T)
        for part in others:
            added += np.matmul(each[..., part], self._phi[:, part].T)

    def _parts(self, n_components: int) -> list[slice]:
        """Points in runs, each so short that a restart's product of its features is left to one thread."""
        n_rows, n_samples = self._phi.shape
        size = max(1, PRODUCT // (n_components * n_rows))
        return [slice(start, start + size) for start in range(0, n_samples, size)]

    def _shares(self, joint: Array) -> Array | None:
        """Makes joint (R, K, N) responsibilities; logsumexp over k (R, N), or None where it underflows."""
        np.maximum(joint, self._lowest, out=joint)
        exp_into(joint, joint)
        totals = np.add.reduce(joint, axis=1)
        if not totals.min() > self._smallest:
            return None
        joint *= (1.0 / totals)[:, None]
        return log_into(totals, totals)

    def _shares_far_out(self, joint: Array) -> Array:
        """The same where all of a point's densities underflow: their maximum is taken off first."""
        highest = joint.max(axis=1, keepdims=True)
        joint -= highest
        np.maximum(joint, self._lowest, out=joint)
        exp_into(joint, joint)
        totals = np.add.reduce(joint, axis=1)
        joint *= (1.0 / totals)[:, None]
        log_totals: Array = highest[:, 0] + log_into(totals, totals)
        return log_totals


def _told_apart(rows: Array, mixtures: tuple[int, int]) -> Array:
    """The first rows of these as those of R mixtures of K components: (R, K, ...), the same memory."""
    n_restarts, n_components = mixtures
    return rows[: n_restarts * n_components].reshape(n_restarts, n_components, -1)
