"""Mixtures as rows of unconstrained numbers, and exact gradients from statistics.

By Fisher's identity the gradient of the log-likelihood is that of the expected complete log-likelihood
with the responsibilities held fixed, so it follows from the statistics of one pass in closed form.

References:
    Salakhutdinov, Roweis, Ghahramani, "Optimization with EM and Expectation-Conjugate-Gradient", 2003.
    Lewandowski, Kurowicka, Joe, "Generating random correlation matrices based on vines and extended onion
    method", 2009 (canonical partial correlations).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components
from service.mixture.statistics import Statistics

Pullback = Callable[[Statistics], Tensor]


class Unconstrained(ABC):
    """Rows of K logits of the weights, K x D means, then numbers for the covariances.

    Attributes:
        size: how many numbers one mixture has.
    """

    size: int

    @abstractmethod
    def at(self, rows: Tensor) -> tuple[Components, Pullback]:
        """The components at rows (R, size), and the map from their statistics to the gradient (R, size).

        The gradient is of the total log-likelihood, in nats.
        """

    @abstractmethod
    def rows_of(self, components: Components) -> Tensor:
        """The numbers (R, size) that give these components."""


class DiagonalForm(Unconstrained):
    """Log standard deviations, one for each component and feature, or shared between either."""

    def __init__(
        self, n_components: int, n_features: int, *, per_component: bool = True, per_feature: bool = True
    ) -> None:
        self._shape = (n_components, n_features)
        self._scales = (n_components if per_component else 1, n_features if per_feature else 1)
        self._shared = [axis + 1 for axis, size in enumerate(self._scales) if size != self._shape[axis]]
        self._heads = n_components * (n_features + 1)
        self.size = self._heads + self._scales[0] * self._scales[1]

    @override
    def at(self, rows: Tensor) -> tuple[Components, Pullback]:
        log_weights, means = _heads(rows, *self._shape)
        scales = rows[:, self._heads :].neg().exp_().view(-1, *self._scales)
        components = Components(log_weights, means, scales.expand(means.shape))
        precisions = scales.square()

        def pullback(statistics: Statistics) -> Tensor:
            first, second = statistics.about(means)
            slope = (second * precisions).sub_(statistics.counts.unsqueeze(-1))
            if self._shared:
                slope = slope.sum(self._shared, keepdim=True)
            return torch.cat(
                [
                    _logit_gradient(log_weights, statistics.counts),
                    (first * precisions).flatten(1),
                    slope.flatten(1),
                ],
                dim=1,
            )

        return components, pullback

    @override
    def rows_of(self, components: Components) -> Tensor:
        logs = components.precisions_cholesky.log().neg()
        if self._shared:
            logs = logs.mean(self._shared, keepdim=True)
        return torch.cat([components.log_weights, components.means.flatten(1), logs.flatten(1)], dim=1)


class CorrelatedForm(Unconstrained):
    """Log standard deviations, and canonical partial correlations tanh(a_ij) for i > j.

    The correlation matrix has the Cholesky factor L with, for z = tanh(a),

        L_ij = z_ij prod_{m < j} sqrt(1 - z_im^2),  L_ii = prod_{m < i} sqrt(1 - z_im^2);

    for D = 2 that is the classic rho = tanh(a).
    """

    def __init__(self, n_components: int, n_features: int, *, per_component: bool = True) -> None:
        self._shape = (n_components, n_features)
        self._groups = n_components if per_component else 1
        self._heads = n_components * (n_features + 1)
        self._scales = self._heads + self._groups * n_features
        lower = torch.tril_indices(n_features, n_features, offset=-1)
        self._lower = lower[0] * n_features + lower[1]
        self.size = self._scales + self._groups * self._lower.numel()

    @override
    def at(self, rows: Tensor) -> tuple[Components, Pullback]:
        n_components, n_features = self._shape
        log_weights, means = _heads(rows, n_components, n_features)
        scales = rows[:, self._heads : self._scales].exp().view(-1, self._groups, n_features, 1)
        partial, remaining, factor = self._correlations(rows[:, self._scales :])
        cholesky = scales * factor
        identity = torch.eye(n_features, dtype=rows.dtype, device=rows.device)
        inverse = torch.linalg.solve_triangular(cholesky, identity, upper=False)
        upper = inverse.mT
        shape = (rows.shape[0], n_components, n_features, n_features)
        components = Components(log_weights, means, upper.expand(shape))

        def pullback(statistics: Statistics) -> Tensor:
            first, second = statistics.about(means)
            counts = statistics.counts
            step = upper @ (inverse @ first.unsqueeze(-1))
            if self._groups == 1:
                second, counts = second.sum(1, keepdim=True), counts.sum(1, keepdim=True)
            # d/dC of -counts log|C| - tr(C^-1 S C^-T) / 2 for the Cholesky factor C of the covariance.
            slope = (upper @ (inverse @ second @ upper)).tril_()
            slope.diagonal(dim1=-2, dim2=-1).sub_(counts.unsqueeze(-1) / cholesky.diagonal(dim1=-2, dim2=-1))
            log_scale_slope = (slope * cholesky).sum(-1)
            correlation_slope = _partial_gradient(slope * scales, partial, remaining, factor)
            return torch.cat(
                [
                    _logit_gradient(log_weights, statistics.counts),
                    step.flatten(1),
                    log_scale_slope.flatten(1),
                    correlation_slope.flatten(2)[..., self._lower].flatten(1),
                ],
                dim=1,
            )

        return components, pullback

    def _correlations(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Z with a unit diagonal, the products before each entry, and L, each (R, groups, D, D)."""
        n_features = self._shape[1]
        flat = numbers.new_zeros(numbers.shape[0], self._groups, n_features * n_features)
        flat[..., self._lower] = numbers.view(numbers.shape[0], self._groups, -1).tanh()
        partial = flat.view(-1, self._groups, n_features, n_features)
        remaining = torch.ones_like(partial)
        remaining[..., 1:] = (1 - partial[..., :-1].square()).sqrt_().cumprod(-1)
        partial.diagonal(dim1=-2, dim2=-1).fill_(1.0)
        return partial, remaining, (partial * remaining).tril_()

    @override
    def rows_of(self, components: Components) -> Tensor:
        cholesky = components.covariances_cholesky()[:, : self._groups]
        deviations = cholesky.square().sum(-1).sqrt()
        factor = cholesky / deviations.unsqueeze(-1)
        # What is left of a row's unit length after the first j entries is the product before entry j.
        left = 1 - factor.square().cumsum(-1) + factor.square()
        partial = factor / left.clamp_min(torch.finfo(torch.float64).tiny).sqrt()
        numbers = partial.flatten(2)[..., self._lower].clamp(-1 + 1e-15, 1 - 1e-15).atanh()
        return torch.cat(
            [
                components.log_weights,
                components.means.flatten(1),
                deviations.log().flatten(1),
                numbers.flatten(1),
            ],
            dim=1,
        )


def _heads(rows: Tensor, n_components: int, n_features: int) -> tuple[Tensor, Tensor]:
    """Log weights (R, K) and means (R, K, D)."""
    log_weights = torch.log_softmax(rows[:, :n_components], dim=1)
    means = rows[:, n_components : n_components * (n_features + 1)].view(-1, n_components, n_features)
    return log_weights, means


def _logit_gradient(log_weights: Tensor, counts: Tensor) -> Tensor:
    return counts - counts.sum(1, keepdim=True) * log_weights.exp()


def _partial_gradient(slope: Tensor, partial: Tensor, remaining: Tensor, factor: Tensor) -> Tensor:
    """d/da given d/dL: each z_ij moves L_ij itself and shrinks every later entry of its row."""
    shares = slope * factor
    later = shares.flip(-1).cumsum(-1).flip(-1) - shares
    return slope * remaining * (1 - partial.square()) - partial * later
