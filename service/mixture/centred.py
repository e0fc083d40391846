"""The statistics in the centred form: slower than features, exact for narrow components."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from service.mixture.blocked_points import Points
from service.mixture.components import Components
from service.mixture.midway import Midway, Sums, added, slices_of

# Differences of points and means that are looked at together; they stay in the cores' own caches.
CHUNK_NUMBERS = 1 << 17


@dataclass(frozen=True, eq=False)
class CentredSums:
    """Sums over the points of each component's share, about the component's own mean; float64.

    Attributes:
        log_likelihood: (R,), nats.
        counts: (R, K).
        first: (R, K, D).
        second: (R, K, D, D) or (R, K, D).
    """

    log_likelihood: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor


def centred_sums(
    points: Points,
    weights: Tensor | None,
    components: Components,
    regularization: float,
    midway: Midway | None = None,
) -> CentredSums:
    """Statistics of points (D, N) with weights (N,) under R x K components, by |(x - mean) U|^2.

    The density of component k is multiplied by exp(-regularization tr(precision_k) / 2). What ``midway`` has
    of this pass is not done again.
    """
    form = _Form(points, weights, components, regularization)
    return form.told_apart(*_taken(form, "centred", form.sums, midway))


def centred_log_likelihoods(
    points: Points, weights: Tensor | None, components: Components, midway: Midway | None = None
) -> Tensor:
    """The plain log-likelihoods (R,) alone, nats, of the same points."""
    form = _Form(points, weights, components, 0.0)
    return _taken(form, "centred likelihoods", form.log_likelihoods, midway)[0]


def _taken(form: _Form, way: str, take: Callable[[range], Sums], midway: Midway | None) -> Sums:
    """What is taken of every slice of the points, added up."""
    n_samples = form.points.shape[1]
    slices = slices_of(n_samples, form.chunk, 8 * form.n_sums)
    parts = (midway or Midway()).each(
        way,
        lambda place: take(slices[place]),
        len(slices),
        form.coefficients(),
        [n_samples, form.chunk, len(slices)],
        in_turn=form.points.device.type != "cpu",
    )
    return added(parts)


class _Form:
    """What every chunk of a pass needs of the components, restart by restart in one row after the other."""

    def __init__(
        self, points: Points, weights: Tensor | None, components: Components, regularization: float
    ) -> None:
        self.points, self._weights = points, weights
        self._shape = components.means.shape
        n_restarts, n_components, n_features = self._shape
        self._rows = n_restarts * n_components
        self._cholesky = components.precisions_cholesky.flatten(0, 1)
        self._constants = (
            components.log_weights
            + components.log_determinants()
            - 0.5 * n_features * math.log(2 * math.pi)
            - 0.5 * regularization * components.precisions_cholesky.square().flatten(2).sum(-1)
        ).flatten()
        self._means = components.means.reshape(self._rows, n_features, 1)
        self.chunk = max(16, CHUNK_NUMBERS // (self._rows * n_features))
        self.n_sums = self._rows * (1 + n_features) + self._cholesky.numel()

    def coefficients(self) -> Tensor:
        """All that the sums depend on but the points."""
        return torch.cat([part.flatten() for part in (self._constants, self._means, self._cholesky)])

    def sums(self, starts: range) -> Sums:
        """The log-likelihoods (R,) of the chunks that begin at these points, and all other sums in a row."""
        n_restarts, _, n_features = self._shape
        total = self._means.new_zeros(n_restarts)
        counts, first = self._means.new_zeros(self._rows), self._means.new_zeros(self._rows, n_features)
        second = torch.zeros_like(self._cholesky)
        for start in starts:
            difference, joint, log_totals, part_weights = self._densities(start)
            shares = (joint - log_totals.unsqueeze(1)).exp_().view(self._rows, -1)
            if part_weights is not None:
                shares *= part_weights
                log_totals = log_totals * part_weights
            total += log_totals.sum(1)
            counts += shares.sum(1)
            shared = difference * shares.unsqueeze(1)
            first += shared.sum(2)
            if second.ndim == 2:
                second += (shared * difference).sum(2)
            else:
                second += torch.bmm(shared, difference.mT)
        return total, torch.cat([part.flatten() for part in (counts, first, second)])

    def log_likelihoods(self, starts: range) -> Sums:
        """The log-likelihoods (R,) of the chunks that begin at these points, and nothing beside them."""
        total = self._means.new_zeros(self._shape[0])
        for start in starts:
            _, _, log_totals, part_weights = self._densities(start)
            total += (log_totals if part_weights is None else log_totals * part_weights).sum(1)
        return total, total.new_empty(0)

    def _densities(self, start: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What is known of the chunk that begins at this point.

        Differences from all means (R * K, D, n), log-densities of the components (R, K, n) and of the
        mixtures (R, n), and weights (n,), if there are any.
        """
        n_restarts, n_components, _ = self._shape
        chunk = slice(start, start + self.chunk)
        difference = self.points[:, chunk].double() - self._means
        joint = self._constants[:, None] - 0.5 * _squared_distances(difference, self._cholesky)
        joint = joint.view(n_restarts, n_components, -1)
        part_weights = None if self._weights is None else self._weights[chunk].double()
        return difference, joint, torch.logsumexp(joint, dim=1), part_weights

    def told_apart(self, total: Tensor, sums: Tensor) -> CentredSums:
        """What `sums` has put in a row."""
        counts, first, second = torch.split(sums, [self._rows, self._means.numel(), self._cholesky.numel()])
        return CentredSums(
            total,
            counts.view(self._shape[:2]),
            first.view(self._shape),
            second.view(*self._shape[:2], *self._cholesky.shape[1:]),
        )


def _squared_distances(difference: Tensor, cholesky: Tensor) -> Tensor:
    """|(x - mean) U|^2 of differences (rows, D, n): (rows, n)."""
    if cholesky.ndim == 2:
        return (difference * cholesky.unsqueeze(-1)).square_().sum(1)
    return torch.bmm(cholesky.mT, difference).square_().sum(1)
