"""Quadratic features: the log-density of a component is linear in them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers, broadcast, library, quick
from service.mixture.components import Components


class QuadraticFeatures(ABC):
    """The rows phi(x), and the translation between components, coefficients on phi, and moments.

    log(weight_k N(x; k)) = theta_k . phi(x), where phi(x) is 1, then what is quadratic, then x_1 ... x_D.

    Attributes:
        n_features: D.
        n_rows: F, how many rows phi has.
        n_scratch_rows: how many rows ``write`` needs beyond those.
    """

    n_features: int
    n_rows: int
    n_scratch_rows: int = 0

    @abstractmethod
    def write(self, points: Tensor, out: Tensor) -> None:
        """Fills the first F rows of out (F + n_scratch_rows, n), contiguous, with phi of points (D, n)."""

    @abstractmethod
    def coefficients(self, components: Components, regularization: float) -> Numbers:
        """theta, (R, K, F), of the log-density less regularization / 2 times the precision's trace."""

    @abstractmethod
    def second_moments(self, sums: Numbers) -> Numbers:
        """The second moments within sums (R, K, F): (R, K, D, D), or (R, K, D) for diagonal families."""

    @abstractmethod
    def magnitude(self, components: Components, largest: Numbers) -> Numbers:
        """A bound (R,) on the terms of theta . phi(x), given the largest |x| of each feature (D,)."""

    def constant(self, rows: Numbers) -> Numbers:
        """What stands at the feature 1 in rows (..., F), as a view: (...)."""
        return rows[..., 0]

    def linear(self, rows: Numbers) -> Numbers:
        """What stands at the features x_1 ... x_D in rows (..., F), as a view: (..., D)."""
        return rows[..., -self.n_features :]

    def rows_of(self, points: Tensor) -> Tensor:
        """phi, (F, n), of points (D, n)."""
        out = points.new_empty(self.n_rows + self.n_scratch_rows, points.shape[1])
        self.write(points, out)
        return out[: self.n_rows]

    def _assembled(
        self, components: Components, quadratic: Numbers, linear: Numbers, penalties: Numbers
    ) -> Numbers:
        """Theta (R, K, F) of coefficients (R, K, *) of what is quadratic, linear ones, penalties (R, K)."""
        constants = (
            components.log_weights
            + components.log_determinants()
            - 0.5 * ((linear * components.means).sum(-1) + penalties)
            - 0.5 * self.n_features * math.log(2 * math.pi)
        )
        return library(linear).concatenate([constants[..., None], quadratic, linear], -1)


class PairFeatures(QuadraticFeatures):
    """1, then x_i x_j for every pair, then x_i: for covariances with correlations.

    Pairs are ordered by their distance o around a circle of features: the row o D + i is x_i x_j with
    j = i + o modulo D. So the rows of all distances are one product of the features with a window that
    slides over the features and, wrapped around, their first half once more.
    """

    def __init__(self, n_features: int, device: torch.device) -> None:
        self.n_features = n_features
        n_pairs = n_features * (n_features + 1) // 2
        self.n_rows = 1 + n_pairs + n_features
        self.n_scratch_rows = n_features // 2
        row = torch.arange(n_pairs, device=device)
        first = row % n_features
        second = (first + row // n_features) % n_features
        self._pairs = first * n_features + second
        # -P_ij x_i x_j stands once for two off-diagonal entries, -P_ii x_i^2 / 2 for one on the diagonal.
        self._factors = torch.where(first == second, -0.5, -1.0).to(torch.float64)
        place = torch.empty(n_features, n_features, dtype=torch.int64, device=device)
        place[first, second] = place[second, first] = 1 + row
        self._place = place.reshape(-1)
        self._quick = quick(self._pairs), quick(self._factors), quick(self._place)

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        n_features, size = points.shape
        n_full = (n_features + 1) // 2  # distances at which every feature has a partner of its own
        end = 1 + n_full * n_features
        out[0].fill_(1.0)
        around = out[self.n_rows - n_features :]
        around[:n_features].copy_(points)
        around[n_features:].copy_(points[: self.n_scratch_rows])
        features = around[:n_features]
        windows = around.as_strided((n_full, n_features, size), (size, size, 1))
        torch.mul(features, windows, out=out[1:end].view(n_full, n_features, size))
        if n_features % 2 == 0:
            half = n_features // 2
            torch.mul(features[:half], features[half:], out=out[end : end + half])

    @override
    def coefficients(self, components: Components, regularization: float) -> Numbers:
        precisions = components.precisions
        linear = (precisions @ components.means[..., None])[..., 0]
        penalties = regularization * components.precision_diagonals.sum(-1)
        chosen, factors = self._chosen(precisions)
        pairs = precisions.reshape(*precisions.shape[:-2], -1)[..., chosen] * factors
        return self._assembled(components, pairs, linear, penalties)

    @override
    def second_moments(self, sums: Numbers) -> Numbers:
        place = self._place if library(sums) is torch else self._quick[2]
        return sums[..., place].reshape(*sums.shape[:-1], self.n_features, self.n_features)

    @override
    def magnitude(self, components: Components, largest: Numbers) -> Numbers:
        reach = largest + abs(components.means)
        terms = ((abs(components.precisions) @ reach[..., None])[..., 0] * reach).sum(-1)
        return library(terms).amax(terms, -1)

    def _chosen(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Where the pairs stand in a matrix, and their factors, of the kind that these numbers are of."""
        return (self._pairs, self._factors) if library(numbers) is torch else self._quick[:2]


@lru_cache(maxsize=16)
def pair_features(n_features: int, device: torch.device) -> PairFeatures:
    """The pairs of so many features; nobody changes them, so that all passes may share them."""
    with torch.inference_mode(mode=False):  # outside of it nothing could be differentiated with them
        return PairFeatures(n_features, device)


class AxisFeatures(QuadraticFeatures):
    """1, then some of the squares or their sum, then x_i: for covariances without correlations."""

    @override
    def coefficients(self, components: Components, regularization: float) -> Numbers:
        precisions = components.precision_diagonals
        linear = precisions * components.means
        penalties = regularization * precisions.sum(-1)
        quadratic = -0.5 * precisions[..., : self.n_rows - 1 - self.n_features]
        return self._assembled(components, quadratic, linear, penalties)

    @override
    def magnitude(self, components: Components, largest: Numbers) -> Numbers:
        means = abs(components.means)
        # With |x| <= |x - mean| + |mean|, (|x| + |mean|)^2 is at most 2 |x - mean|^2 + 8 |mean|^2. Without
        # correlations the first comes to four times the log-density below its peak: an error relative to it.
        reach = components.precisions_cholesky * library(means).minimum(
            largest + means, math.sqrt(8.0) * means
        )
        terms = (reach * reach).sum(-1)
        return library(terms).amax(terms, -1)


class SquareFeatures(AxisFeatures):
    """1, then x_i^2, then x_i: for diagonal covariances."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.n_rows = 1 + 2 * n_features

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        out[0].fill_(1.0)
        torch.mul(points, points, out=out[1 : 1 + self.n_features])
        out[1 + self.n_features :].copy_(points)

    @override
    def second_moments(self, sums: Numbers) -> Numbers:
        return sums[..., 1 : 1 + self.n_features]


class RadialFeatures(AxisFeatures):
    """1, then |x|^2, then x_i: for covariances that are multiples of the identity.

    Only the sum of the second moments over the features is known; each is given their mean.
    """

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.n_rows = 2 + n_features

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        out[0].fill_(1.0)
        torch.mul(points[0], points[0], out=out[1])
        for feature in points[1:]:
            out[1].addcmul_(feature, feature)
        out[2:].copy_(points)

    @override
    def second_moments(self, sums: Numbers) -> Numbers:
        shape = (*sums.shape[:-1], self.n_features)
        return broadcast(sums[..., 1:2] / self.n_features, shape)
