"""Quadratic features: the log-density of a component is linear in them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components


class QuadraticFeatures(ABC):
    """The rows phi(x), and the translation between components, coefficients on phi, and moments.

    log(weight_k N(x; k)) = theta_k . phi(x).

    Attributes:
        n_rows: F, how many features.
        n_features: D.
    """

    n_rows: int
    n_features: int

    @abstractmethod
    def write(self, points: Tensor, out: Tensor) -> None:
        """Fills out (F, n) with the features of points (D, n)."""

    @abstractmethod
    def coefficients(self, components: Components, regularization: float) -> Tensor:
        """theta, (R, K, F), of the log-density less regularization / 2 times the precision's trace."""

    @abstractmethod
    def second_moments(self, sums: Tensor) -> Tensor:
        """The second moments within sums (R, K, F): (R, K, D, D), or (R, K, D) for diagonal families."""

    @abstractmethod
    def magnitude(self, components: Components, largest: Tensor) -> Tensor:
        """A bound (R,) on the terms of theta . phi(x), given the largest |x| of each feature (D,)."""

    def rows_of(self, points: Tensor) -> Tensor:
        """phi, (F, n), of points (D, n)."""
        out = points.new_empty(self.n_rows, points.shape[1])
        self.write(points, out)
        return out

    def _constants(
        self, components: Components, linear: Tensor, traces: Tensor, regularization: float
    ) -> Tensor:
        """The coefficient of the feature 1: (R, K)."""
        return (
            components.log_weights
            + components.log_determinants()
            - 0.5 * ((linear * components.means).sum(-1) + regularization * traces)
            - 0.5 * self.n_features * math.log(2 * math.pi)
        )


class PairFeatures(QuadraticFeatures):
    """x_i x_j for i <= j, then x_i, then 1: for covariances with correlations."""

    def __init__(self, n_features: int, device: torch.device) -> None:
        self.n_features = n_features
        upper = torch.triu_indices(n_features, n_features, device=device)
        n_pairs = upper.shape[1]
        self.n_rows = n_pairs + n_features + 1
        self._pairs = upper[0] * n_features + upper[1]
        # -P_ij x_i x_j stands once for two off-diagonal entries, -P_ii x_i^2 / 2 for one on the diagonal.
        self._factors = torch.where(upper[0] == upper[1], -0.5, -1.0).to(torch.float64)
        place = torch.empty(n_features, n_features, dtype=torch.int64, device=device)
        place[upper[0], upper[1]] = torch.arange(n_pairs, device=device)
        place[upper[1], upper[0]] = torch.arange(n_pairs, device=device)
        self._place = place.reshape(-1)

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        row = 0
        for i in range(self.n_features):
            rest = self.n_features - i
            torch.mul(points[i], points[i:], out=out[row : row + rest])
            row += rest
        out[row:-1].copy_(points)
        out[-1].fill_(1.0)

    @override
    def coefficients(self, components: Components, regularization: float) -> Tensor:
        cholesky = components.precisions_cholesky
        precisions = cholesky @ cholesky.mT
        linear = (precisions @ components.means.unsqueeze(-1)).squeeze(-1)
        traces = cholesky.square().sum((-2, -1))
        constants = self._constants(components, linear, traces, regularization)
        pairs = precisions.flatten(-2)[..., self._pairs] * self._factors
        return torch.cat([pairs, linear, constants.unsqueeze(-1)], dim=-1)

    @override
    def second_moments(self, sums: Tensor) -> Tensor:
        return sums[..., self._place].view(*sums.shape[:-1], self.n_features, self.n_features)

    @override
    def magnitude(self, components: Components, largest: Tensor) -> Tensor:
        cholesky = components.precisions_cholesky
        reach = largest + components.means.abs()
        absolute = (cholesky @ cholesky.mT).abs()
        return ((absolute @ reach.unsqueeze(-1)).squeeze(-1) * reach).sum(-1).amax(-1)


class SquareFeatures(QuadraticFeatures):
    """x_i^2, then x_i, then 1: for diagonal covariances."""

    def __init__(self, n_features: int, device: torch.device) -> None:
        self.n_features = n_features
        self.n_rows = 2 * n_features + 1
        del device  # nothing is kept there

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        torch.mul(points, points, out=out[: self.n_features])
        out[self.n_features : -1].copy_(points)
        out[-1].fill_(1.0)

    @override
    def coefficients(self, components: Components, regularization: float) -> Tensor:
        precisions = components.precisions_cholesky.square()
        linear = precisions * components.means
        constants = self._constants(components, linear, precisions.sum(-1), regularization)
        return torch.cat([-0.5 * precisions, linear, constants.unsqueeze(-1)], dim=-1)

    @override
    def second_moments(self, sums: Tensor) -> Tensor:
        return sums[..., : self.n_features]

    @override
    def magnitude(self, components: Components, largest: Tensor) -> Tensor:
        reach = components.precisions_cholesky * (largest + components.means.abs())
        return reach.square().sum(-1).amax(-1)


class RadialFeatures(QuadraticFeatures):
    """|x|^2, then x_i, then 1: for covariances that are multiples of the identity.

    Only the sum of the second moments over the features is known; each is given their mean.
    """

    def __init__(self, n_features: int, device: torch.device) -> None:
        self.n_features = n_features
        self.n_rows = n_features + 2
        del device  # nothing is kept there

    @override
    def write(self, points: Tensor, out: Tensor) -> None:
        torch.mul(points[0], points[0], out=out[0])
        for feature in points[1:]:
            out[0].addcmul_(feature, feature)
        out[1:-1].copy_(points)
        out[-1].fill_(1.0)

    @override
    def coefficients(self, components: Components, regularization: float) -> Tensor:
        precisions = components.precisions_cholesky.square()
        linear = precisions * components.means
        constants = self._constants(components, linear, precisions.sum(-1), regularization)
        return torch.cat([-0.5 * precisions[..., :1], linear, constants.unsqueeze(-1)], dim=-1)

    @override
    def second_moments(self, sums: Tensor) -> Tensor:
        return (sums[..., :1] / self.n_features).expand(*sums.shape[:-1], self.n_features)

    @override
    def magnitude(self, components: Components, largest: Tensor) -> Tensor:
        reach = components.precisions_cholesky * (largest + components.means.abs())
        return reach.square().sum(-1).amax(-1)
