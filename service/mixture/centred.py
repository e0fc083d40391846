"""The statistics in the centred form: slower than features, exact for narrow components."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.mixture.blocked_points import Points
from service.mixture.components import Components

# Differences of points and means that are looked at together; they stay in a core's own cache.
CHUNK_NUMBERS = 1 << 16


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
    points: Points, weights: Tensor | None, components: Components, regularization: float
) -> CentredSums:
    """Statistics of points (D, N) with weights (N,) under R x K components, by |(x - mean) U|^2.

    The density of component k is multiplied by exp(-regularization tr(precision_k) / 2).
    """
    n_restarts, n_components, n_features = components.means.shape
    rows = n_restarts * n_components
    cholesky = components.precisions_cholesky.flatten(0, 1)
    constants = (
        components.log_weights
        + components.log_determinants()
        - 0.5 * n_features * math.log(2 * math.pi)
        - 0.5 * regularization * components.precisions_cholesky.square().flatten(2).sum(-1)
    ).flatten()
    means = components.means.reshape(rows, n_features, 1)
    total = means.new_zeros(n_restarts)
    counts, first = means.new_zeros(rows), means.new_zeros(rows, n_features)
    second = torch.zeros_like(cholesky)
    chunk = max(16, CHUNK_NUMBERS // (rows * n_features))
    for start in range(0, points.shape[1], chunk):
        part = points[:, start : start + chunk].double()
        difference = part - means
        joint = constants[:, None] - 0.5 * _squared_distances(difference, cholesky)
        joint = joint.view(n_restarts, n_components, -1)
        log_totals = torch.logsumexp(joint, dim=1)
        shares = (joint - log_totals.unsqueeze(1)).exp_().view(rows, -1)
        if weights is not None:
            part_weights = weights[start : start + chunk].double()
            shares *= part_weights
            log_totals = log_totals * part_weights
        total += log_totals.sum(1)
        counts += shares.sum(1)
        shared = difference * shares.unsqueeze(1)
        first += shared.sum(2)
        if components.diagonal:
            second += (shared * difference).sum(2)
        else:
            second += torch.bmm(shared, difference.mT)
    shape = (n_restarts, n_components)
    return CentredSums(
        total, counts.view(shape), first.view(*shape, -1), second.view(*shape, *second.shape[1:])
    )


def _squared_distances(difference: Tensor, cholesky: Tensor) -> Tensor:
    """|(x - mean) U|^2 of differences (rows, D, n): (rows, n)."""
    if cholesky.ndim == 2:
        return (difference * cholesky.unsqueeze(-1)).square_().sum(1)
    return torch.bmm(cholesky.mT, difference).square_().sum(1)
