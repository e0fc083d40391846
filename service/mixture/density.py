"""Log-densities and responsibilities in the centred form, the one that answers questions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from service.mixture.arrays import log_sum_exp

# 8 MB of float64 for the differences of one chunk: small beside any dataset, large beside a call's cost.
CHUNK_NUMBERS = 1 << 20


def component_log_density(points: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """Log-density of every point under every component, in nats.

    log N(x; m, C) = -D/2 log(2 pi) + sum_i log U_ii - |(x - m) U|^2 / 2,  with C^-1 = U U^T.

    The difference is taken before the product, so that a narrow component far out keeps its digits.

    Args:
        points: (N, D) float64.
        means: (K, D) float64.
        precisions_cholesky: (K, D, D) float64, upper triangular, or (K, D), where that is diagonal.

    Returns:
        (N, K) float64.

    References:
        Bishop, "Pattern Recognition and Machine Learning", 2006, equation 2.43.
    """
    constants = normalizers(precisions_cholesky)
    parts = chunks(points, means)
    if len(parts) == 1:
        return _chunk_log_density(points, means, precisions_cholesky, constants)
    answer = points.new_empty(points.shape[0], means.shape[0])
    for rows in parts:
        answer[rows] = _chunk_log_density(points[rows], means, precisions_cholesky, constants)
    return answer


def chunks(points: Tensor, means: Tensor) -> list[slice]:
    """Points (N, D) in runs looked at together, so long that differences from means (K, D) stay few."""
    size = max(1, CHUNK_NUMBERS // means.numel())
    return [slice(start, start + size) for start in range(0, max(1, points.shape[0]), size)]


def normalizers(precisions_cholesky: Tensor) -> Tensor:
    """The log-density of each component at its own mean, in nats: (K, D, D) or (K, D) -> (K,)."""
    diagonal = precisions_cholesky
    if diagonal.ndim == 3:
        diagonal = diagonal.diagonal(dim1=-2, dim2=-1)
    return diagonal.log().sum(-1) - 0.5 * diagonal.shape[-1] * math.log(2 * math.pi)


def _chunk_log_density(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, constants: Tensor
) -> Tensor:
    # Feature by feature, for sums over features are slow where these lie side by side and are few.
    differences = points.T.contiguous() - means.unsqueeze(2)
    lengths = _squared_lengths(_whitened(differences, precisions_cholesky), points)
    return torch.add(constants, lengths.T, alpha=-0.5)


def _whitened(differences: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """Differences (K, D, n), which may be overwritten, in units of their components' spreads."""
    if precisions_cholesky.ndim == 2:
        return differences.mul_(precisions_cholesky.unsqueeze(2))
    return torch.bmm(precisions_cholesky.mT, differences)


def _squared_lengths(whitened: Tensor, points: Tensor) -> Tensor:
    """The squared lengths (K, n) of whitened differences (K, D, n), which are overwritten.

    Near the end of float64's range products overflow with either sign, and their sum is no number; it stands
    for a length whose square overflows, too. Points (n, D) that are no numbers have no length.
    """
    lengths = whitened.square_().sum(1)
    if math.isnan(float(lengths.sum())):  # one reduction, for none of them is negative
        known = torch.isfinite(points).all(dim=1)
        lengths = torch.where(known, lengths.nan_to_num_(nan=torch.inf, posinf=torch.inf), torch.nan)
    return lengths


def log_density(points: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """Log-density of the mixture at every point, in nats: logsumexp_k (log weight_k + log N(x; k)).

    Args:
        points: (N, D) float64.
        log_weights: (K,) float64; minus infinity for a weight of zero.
        means: (K, D) float64.
        precisions_cholesky: (K, D, D) float64, upper triangular, or (K, D), where that is diagonal.

    Returns:
        (N,) float64.
    """
    answer = points.new_empty(points.shape[0])
    parts = chunks(points, means)
    if len(parts) == 1:
        joint = component_log_density(points, means, precisions_cholesky) + log_weights
        return log_sum_exp(joint.T)
    for rows in parts:
        joint = component_log_density(points[rows], means, precisions_cholesky) + log_weights
        answer[rows] = log_sum_exp(joint.T)
    return answer


def responsibilities(
    points: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor
) -> Tensor:
    """Posterior probability of every component given every point.

    Args:
        points: (N, D) float64.
        log_weights: (K,) float64; minus infinity for a weight of zero.
        means: (K, D) float64.
        precisions_cholesky: (K, D, D) float64, upper triangular, or (K, D), where that is diagonal.

    Returns:
        (N, K) float64, rows summing to one, also where every density underflows to zero.
    """
    answer = points.new_empty(points.shape[0], means.shape[0])
    for rows in chunks(points, means):
        answer[rows] = _chunk_responsibilities(points[rows], log_weights, means, precisions_cholesky)
    return answer


def _chunk_responsibilities(
    points: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor
) -> Tensor:
    joint = component_log_density(points, means, precisions_cholesky) + log_weights
    answer = torch.softmax(joint.T, dim=0).T  # over numbers side by side it takes several times as long
    if math.isnan(float(answer.sum())):
        lost = torch.isnan(answer).any(dim=1)
        answer[lost] = _nearest(points[lost], log_weights, means, precisions_cholesky)
    return answer


def _nearest(points: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """The limit of the responsibilities for points so far out that squared distances overflow."""
    scale = points.abs().amax(dim=1).clamp_(min=float(means.abs().amax()))
    whitened = _whitened(
        (points / scale[:, None]).T - means.unsqueeze(2) / scale,
        precisions_cholesky / precisions_cholesky.abs().amax(),
    )
    distances = whitened.square().sum(1).T
    distances = torch.where(torch.isfinite(log_weights), distances, torch.inf)
    return torch.nn.functional.one_hot(distances.argmin(dim=1), means.shape[0]).to(points.dtype)
