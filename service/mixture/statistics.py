"""The pass over the data: log-likelihood and sufficient statistics of many mixtures at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.mixture.arrays import Numbers, at_least, library, like, quick
from service.mixture.blocked_points import extremes
from service.mixture.centred import centred_log_likelihoods, centred_sums
from service.mixture.components import Components
from service.mixture.feature_sums import FeatureSums
from service.mixture.features import QuadraticFeatures, RadialFeatures, SquareFeatures, pair_features
from service.mixture.midway import Midway
from service.mixture.standardization import StandardizedPoints
from service.mixture.threads import threads_for

# The largest rounding error of a log-density, in nats, that the product of features may make.
ERROR_BOUND = {torch.float64: 1e-9, torch.float32: 1e-3}
# What rounding alone may change in a mean log-likelihood from one pass to the next, relative to its size.
NOISE = {torch.float64: 1e-11, torch.float32: 2e-6}


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the points, weighted by responsibility and point weight; float64, of the components' kind.

    Attributes:
        log_likelihood: (R,), total, of the regularised density, nats.
        counts: (R, K).
        first: (R, K, D), sums of x - origin.
        second: (R, K, D, D) or (R, K, D), sums of (x - origin)(x - origin)^T, regularization included.
        origin: (R, K, D), or None for zero.
    """

    log_likelihood: Numbers
    counts: Numbers
    first: Numbers
    second: Numbers
    origin: Numbers | None

    def moments(self) -> tuple[Numbers, Numbers]:
        """Mean (R, K, D) and covariance (R, K, D, D) or (R, K, D) of each component's share of the points."""
        counts = at_least(self.counts, torch.finfo(torch.float64).tiny)[..., None]
        offset = self.first / counts
        means = offset if self.origin is None else offset + self.origin
        if self.second.ndim == 3:
            return means, self.second / counts - offset * offset
        return means, self.second / counts[..., None] - offset[..., None] * offset[..., None, :]

    def about(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (R, K, D) of x - mean and (R, K, D, D) or (R, K, D) of their products, about these means."""
        delta = means if self.origin is None else means - self.origin
        counted = self.counts.unsqueeze(-1) * delta
        first = self.first - counted
        if self.second.ndim == 3:
            return first, self.second - delta * (self.first + first)
        cross = first.unsqueeze(-1) * delta.unsqueeze(-2)
        return first, self.second - cross - delta.unsqueeze(-1) * self.first.unsqueeze(-2)


@dataclass(frozen=True, eq=False)
class _Own:
    """Sums over a rank's own points, and what makes statistics of the sums over all ranks."""

    sums: tuple[Numbers, ...]
    finished: Callable[..., Statistics]


class StatisticsPass:
    """One pass over standardised points as two matrix products around a softmax.

    With phi the quadratic features of a point and theta the coefficients of a component,

        Q = Theta Phi,  R = softmax over k of Q,  S = R Phi^T,  log-likelihood = sum logsumexp over k of Q.

    Every rank of a fit takes the sums over its own points; one exchange adds them up.

    Attributes:
        data: the points.
        regularization: lambda; the objective is the likelihood of the densities times
            exp(-lambda tr(precision) / 2), whose exact M-step adds lambda to covariance diagonals.
        error_bound: the largest rounding error of a log-density, in nats, that the product of features may
            make; above it the centred form is taken. Never below what the dtype allows.
        noise: what rounding may change in a mean log-likelihood, relative to its size.
        midway: what has been done of the pass that is being made.
    """

    def __init__(
        self,
        data: StandardizedPoints,
        *,
        diagonal: bool,
        regularization: float,
        radial: bool = False,
        error_bound: float = 0.0,
    ) -> None:
        self.data = data
        self.regularization = regularization
        self.device = data.points.device
        self.dtype = data.points.dtype
        self.noise = NOISE[self.dtype]
        self.error_bound = max(error_bound, ERROR_BOUND[self.dtype])
        self.features: QuadraticFeatures
        if diagonal:
            self.features = (RadialFeatures if radial else SquareFeatures)(data.n_features)
        else:
            self.features = pair_features(data.n_features, self.device)
        lowest, highest = extremes(data.points)  # abs() would copy the points
        own_largest = torch.maximum(-lowest, highest).double().cpu()
        self._largest = data.shards.group.highest(own_largest).to(self.device)
        self._largest_quick = quick(self._largest)
        self._weights = None if data.weights is None else data.weights.to(self.dtype)
        self.midway = Midway()
        self._sums = FeatureSums(data.points, self._weights, self.features, self.midway)

    def __call__(self, components: Components) -> Statistics:
        """The statistics of every restart, each in the form that keeps its digits."""
        inexact = self._inexact(components, self.error_bound)
        if not bool(inexact.any()):
            return self._added(components, self._by_features(components))[0]
        if bool(inexact.all()):
            return self._added(components, self._centred(components))[0]
        exact = self._centred(components.rows(inexact))
        quick = self._by_features(components.rows(~inexact))
        return _merge(inexact, *self._added(components, exact, quick))

    def log_likelihoods(self, components: Components) -> Numbers:
        """The plain log-likelihoods (R,), total, nats: without regularization, to the dtype's own bound."""
        kind = components.means
        inexact = self._inexact(components, ERROR_BOUND[self.dtype])
        values, shifts = (library(kind).zeros_like(components.log_weights[:, 0]) for _ in range(2))
        if bool(inexact.any()):
            some = components.rows(inexact).tensors()
            centred = centred_log_likelihoods(self.data.points, self._weights, some, self.midway)
            values[inexact] = like(kind, centred)
        if not bool(inexact.all()):
            theta, shifts[~inexact] = self._coefficients(components.rows(~inexact), 0.0)
            values[~inexact] = self._sums(theta, likelihoods_only=True)[0]
        (total,) = self.data.shards.group.summed(values, alike=kind)
        return total + shifts * self.data.total_weight

    def _inexact(self, components: Components, error_bound: float) -> Numbers:
        """Of which restarts (R,) the features would lose too many digits."""
        largest = self._largest if library(components.means) is torch else self._largest_quick
        rounding = 0.5 * torch.finfo(self.dtype).eps * self.features.magnitude(components, largest)
        return ~(rounding <= error_bound)

    def _added(self, components: Components, *parts: _Own) -> list[Statistics]:
        """The statistics of all ranks' points that come of each part, after one exchange."""
        every = [sums for part in parts for sums in part.sums]
        together = iter(self.data.shards.group.summed(*every, alike=components.means))
        return [part.finished(*(next(together) for _ in part.sums)) for part in parts]

    def minibatch(self, components: Components, indices: Tensor) -> Statistics:
        """The statistics of each restart over its own points, indices (R, n) among all, by features."""
        indices, counted = self.data.shards.own_of_each(indices)
        n_restarts, size = indices.shape
        flat = indices.reshape(-1)
        if self._sums.kept is not None:
            phi = self._sums.kept.index_select(1, flat)
        else:
            phi = self.features.rows_of(self.data.points.index_select(1, flat))
        phi = phi.view(phi.shape[0], n_restarts, size).transpose(0, 1)
        theta = self.features.coefficients(components, self.regularization).to(self.dtype)
        with threads_for(theta.numel() * size):
            joint = torch.bmm(theta, phi)
        log_densities = torch.logsumexp(joint, dim=1)
        shares = joint.sub_(log_densities.unsqueeze(1)).exp_()
        weights = counted if self._weights is None else self._weights[indices]
        if weights is not None:
            weights = weights if counted is None else weights * counted
            shares.mul_(weights.unsqueeze(1))
            log_densities = log_densities * weights
        with threads_for(theta.numel() * size):
            sums = torch.bmm(shares, phi.mT).double()
        own = _Own((log_densities.double().sum(1), sums), self._from_sums)
        return self._added(components, own)[0]

    def _from_sums(self, log_likelihood: Numbers, sums: Numbers) -> Statistics:
        counts = self.features.constant(sums)
        return Statistics(
            log_likelihood,
            counts,
            self.features.linear(sums),
            self._regularized(self.features.second_moments(sums), counts),
            None,
        )

    def _regularized(self, second: Numbers, counts: Numbers) -> Numbers:
        """Second moments, which nobody else holds, with the regularisation added."""
        if self.regularization == 0.0:
            return second
        added = (self.regularization * counts)[..., None]
        if second.ndim == 3:
            return second + added
        place = library(second).arange(second.shape[-1], device=second.device)
        second[..., place, place] += added
        return second

    def _centred(self, components: Components) -> _Own:
        own = centred_sums(
            self.data.points, self._weights, components.tensors(), self.regularization, self.midway
        )
        kind = components.means
        sums = tuple(like(kind, part) for part in (own.log_likelihood, own.counts, own.first, own.second))

        def finished(log_likelihood: Numbers, counts: Numbers, first: Numbers, second: Numbers) -> Statistics:
            return Statistics(log_likelihood, counts, first, self._regularized(second, counts), kind)

        return _Own(sums, finished)

    def _by_features(self, components: Components) -> _Own:
        theta, shift = self._coefficients(components, self.regularization)

        def finished(log_likelihood: Numbers, sums: Numbers) -> Statistics:
            return self._from_sums(log_likelihood + shift * self.data.total_weight, sums)

        return _Own(self._sums(theta), finished)

    def _coefficients(self, components: Components, regularization: float) -> tuple[Numbers, Numbers]:
        """Theta (R, K, F), and what was taken off the logarithm of each mixture's densities (R,).

        A density is highest at the mean: with that bound taken off, no entry of Theta Phi is above zero.
        """
        theta = self.features.coefficients(components, regularization)
        constant, linear = self.features.constant(theta), self.features.linear(theta)
        highest = constant + 0.5 * (linear * components.means).sum(-1)
        shift = library(highest).amax(highest, 1)
        constant -= shift[:, None]
        return theta, shift


def _merge(first: Numbers, chosen: Statistics, others: Statistics) -> Statistics:
    """Statistics of all restarts: those where first (R,) is true from chosen, the rest from others."""
    n_restarts = first.shape[0]

    def merged(one: Numbers, other: Numbers) -> Numbers:
        out = library(one).empty((n_restarts, *one.shape[1:]), dtype=one.dtype, device=one.device)
        out[first] = one
        out[~first] = other
        return out

    assert chosen.origin is not None  # noqa: S101 - the centred form always has one
    origin = others.origin if others.origin is not None else 0.0 * others.first
    return Statistics(
        merged(chosen.log_likelihood, others.log_likelihood),
        merged(chosen.counts, others.counts),
        merged(chosen.first, others.first),
        merged(chosen.second, others.second),
        merged(chosen.origin, origin),
    )
