"""The coordinates in which em extrapolates: log weights, means, and what the family needs of covariances."""

from __future__ import annotations

import torch
from torch import Tensor

from service.mixture.components import Components
from service.mixture.families import Family
from service.mixture.optimizers.optimizer import Objective
from service.mixture.statistics import Statistics


def coordinates(family: Family, statistics: Statistics) -> Tensor:
    """The image of an EM step, (R, P): the moments of each component's share of the points."""
    counts = statistics.counts
    weights = counts / counts.sum(1, keepdim=True)
    means, covariances = statistics.moments()
    reduced = family.reduce(weights, covariances)
    log_weights = weights.clamp_min(torch.finfo(torch.float64).tiny).log()
    return torch.cat([log_weights, means.flatten(1), reduced.flatten(1)], dim=1)


def start_coordinates(family: Family, components: Components) -> Tensor:
    """The point (R, P) at which these components lie."""
    reduced = family.reduce(components.log_weights.exp(), components.covariances())
    return torch.cat([components.log_weights, components.means.flatten(1), reduced.flatten(1)], dim=1)


def from_coordinates(
    family: Family, point: Tensor, n_components: int, n_features: int
) -> tuple[Components, Tensor]:
    """The components at (R, P) after the family's closed-form update, and whether they are valid (R,)."""
    heads = n_components * (n_features + 1)
    log_weights = torch.log_softmax(point[:, :n_components], dim=1)
    means = point[:, n_components:heads].view(-1, n_components, n_features)
    covariances = point[:, heads:]
    size = (n_features,) if family.diagonal else (n_features, n_features)
    reduced = covariances.reshape(point.shape[0], -1, *size)
    cholesky, valid = family.precisions_cholesky(log_weights.exp(), reduced)
    valid = valid & torch.isfinite(point).all(dim=1)
    return Components(log_weights, means, cholesky), valid


def metric(objective: Objective, components: Components) -> Tensor:
    """The root of the diagonal of the complete data's Fisher information per point, (R, P).

    For a weight w and standard deviations s it is w for a log weight, w / s_i^2 for a mean, and
    w / (2 s_i^2 s_j^2) for an entry of the covariance.
    """
    root = (0.5 * components.log_weights).exp()
    if components.diagonal:
        inverse = components.precisions_cholesky
        pairs = inverse.square()
    else:
        # The precision's diagonal stands for 1 / s^2: it is the information with all else held fixed.
        inverse = components.precisions_cholesky.square().sum(-1).sqrt()
        pairs = inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
    pairs = objective.family.reduce(components.log_weights.exp(), pairs)
    shares = root if pairs.shape[1] == root.shape[1] else torch.ones_like(root[:, :1])
    pairs = pairs * shares.view(*shares.shape, *([1] * (pairs.ndim - 2))) * 0.5**0.5
    return torch.cat([root, (inverse * root.unsqueeze(-1)).flatten(1), pairs.flatten(1)], dim=1)
