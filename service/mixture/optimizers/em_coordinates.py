"""The coordinates in which em extrapolates: log weights, means, and what the family needs of covariances."""

from __future__ import annotations

import torch
from torch import Tensor

from service.mixture.arrays import Numbers, at_least, library, like, log_softmax, tensor_of
from service.mixture.components import Components
from service.mixture.families import Family
from service.mixture.optimizers.optimizer import Objective
from service.mixture.statistics import Statistics

TINY = torch.finfo(torch.float64).tiny


def coordinates(family: Family, statistics: Statistics) -> Numbers:
    """The image of an EM step, (R, P): the moments of each component's share of the points."""
    numbers, counts = library(statistics.counts), statistics.counts
    weights = counts / counts.sum(1)[:, None]
    means, covariances = statistics.moments()
    return _joined(numbers.log(at_least(weights, TINY)), means, _reduced(family, weights, covariances))


def start_coordinates(family: Family, components: Components) -> Numbers:
    """The point (R, P) at which these components lie."""
    covariances = components.covariances()
    if not components.diagonal:
        # Symmetric to the last bit, as all that steps make of it is then.
        covariances = 0.5 * (covariances + covariances.mT)
    reduced = family.reduce(components.log_weights.exp(), covariances)
    return _joined(components.log_weights, components.means, reduced)


def _joined(log_weights: Numbers, means: Numbers, reduced: Numbers) -> Numbers:
    parts = [log_weights, means.reshape(means.shape[0], -1), reduced.reshape(means.shape[0], -1)]
    return library(means).concatenate(parts, 1)


def _reduced(family: Family, weights: Numbers, covariances: Numbers) -> Numbers:
    if family.quick:
        return family.reduce(weights, covariances)
    return like(weights, family.reduce(tensor_of(weights), tensor_of(covariances)))


def from_coordinates(
    family: Family, point: Numbers, n_components: int, n_features: int
) -> tuple[Components, Numbers]:
    """The components at (R, P) after the family's closed-form update, and whether they are valid (R,)."""
    numbers = library(point)
    heads = n_components * (n_features + 1)
    log_weights = log_softmax(point[:, :n_components])
    means = point[:, n_components:heads].reshape(-1, n_components, n_features)
    size = (n_features,) if family.diagonal else (n_features, n_features)
    reduced = point[:, heads:].reshape(point.shape[0], -1, *size)
    weights, finite = numbers.exp(log_weights), numbers.isfinite(point).all(1)
    if family.quick:
        cholesky, valid = family.precisions_cholesky(weights, reduced)
    else:
        cholesky, valid = family.precisions_cholesky(tensor_of(weights), tensor_of(reduced))
    return Components(log_weights, means, like(point, cholesky)), like(point, valid) & finite


def packed(points: Tensor, n_components: int, n_features: int) -> Tensor | None:
    """Points (..., P) with one triangle of each of their matrices; None where that would lose something."""
    heads = n_components * (n_features + 1)
    n_matrices, rest = divmod(points.shape[-1] - heads, n_features**2)
    matrices = points[..., heads : heads + n_matrices * n_features**2]
    matrices = matrices.reshape(*points.shape[:-1], n_matrices, n_features, n_features)
    if rest or not torch.equal(matrices, matrices.mT):
        return None
    lower = torch.tril_indices(n_features, n_features, device=points.device)
    triangles = matrices[..., lower[0], lower[1]]
    return torch.cat([points[..., :heads], triangles.flatten(-2)], -1)


def unpacked(points: Tensor, n_components: int, n_features: int) -> Tensor:
    """What ``packed`` was given."""
    heads = n_components * (n_features + 1)
    lower = torch.tril_indices(n_features, n_features, device=points.device)
    n_matrices = (points.shape[-1] - heads) // lower.shape[1]
    triangles = points[..., heads:].reshape(*points.shape[:-1], n_matrices, lower.shape[1])
    matrices = points.new_empty(*triangles.shape[:-1], n_features, n_features)
    matrices[..., lower[0], lower[1]] = triangles
    matrices[..., lower[1], lower[0]] = triangles
    return torch.cat([points[..., :heads], matrices.flatten(-3)], -1)


def metric(objective: Objective, components: Components) -> Numbers:
    """The root of the diagonal of the complete data's Fisher information per point, (R, P).

    For a weight w and standard deviations s it is w for a log weight, w / s_i^2 for a mean, and
    w / (2 s_i^2 s_j^2) for an entry of the covariance.
    """
    numbers = library(components.means)
    root = numbers.exp(0.5 * components.log_weights)
    if components.diagonal:
        inverse, pairs = components.precisions_cholesky, components.precision_diagonals
    else:
        # The precision's diagonal stands for 1 / s^2: it is the information with all else held fixed.
        inverse = numbers.sqrt(components.precision_diagonals)
        pairs = inverse[..., None] * inverse[..., None, :]
    pairs = _reduced(objective.family, root * root, pairs)
    if pairs.shape[1] == root.shape[1]:
        pairs = pairs * root.reshape(*root.shape, *([1] * (pairs.ndim - 2)))
    return _joined(root, inverse * root[..., None], pairs * 0.5**0.5)
