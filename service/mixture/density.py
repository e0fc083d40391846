"""Log-densities and responsibilities in the centred form, the one that answers questions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

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
    n_samples, n_features = points.shape
    n_components = means.shape[0]
    constants = normalizers(precisions_cholesky)
    chunk = max(1, CHUNK_NUMBERS // (n_components * n_features))
    if n_samples <= chunk:
        return _chunk_log_density(points, means, precisions_cholesky, constants)
    answer = points.new_empty(n_samples, n_components)
    for start in range(0, n_samples, chunk):
        rows = slice(start, start + chunk)
        answer[rows] = _chunk_log_density(points[rows], means, precisions_cholesky, constants)
    return answer


def normalizers(precisions_cholesky: Tensor) -> Tensor:
    """The log-density of each component at its own mean, in nats: (K, D, D) or (K, D) -> (K,)."""
    diagonal = precisions_cholesky
    if diagonal.ndim == 3:
        diagonal = diagonal.diagonal(dim1=-2, dim2=-1)
    return diagonal.log().sum(-1) - 0.5 * diagonal.shape[-1] * math.log(2 * math.pi)


def _chunk_log_density(
    points: Tensor, means: Tensor, precisions_cholesky: Tensor, constants: Tensor
) -> Tensor:
    if points.shape[0] == 1:
        whitened = _whitened((points - means).unsqueeze(1), precisions_cholesky)
        return (constants - 0.5 * _squared_lengths(whitened, points).squeeze_(1)).unsqueeze(0)
    whitened = _whitened(points - means.unsqueeze(1), precisions_cholesky)
    return torch.add(constants, _squared_lengths(whitened, points).T, alpha=-0.5)


def _whitened(differences: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """Differences (K, n, D), which may be overwritten, in units of their components' spreads."""
    if precisions_cholesky.ndim == 2:
        return differences.mul_(precisions_cholesky.unsqueeze(1))
    return torch.bmm(differences, precisions_cholesky)


def _squared_lengths(whitened: Tensor, points: Tensor) -> Tensor:
    """The squared lengths (K, n) of whitened differences (K, n, D), which are overwritten.

    Near the end of float64's range products overflow with either sign, and their sum is no number; it stands
    for a length whose square overflows, too. Points (n, D) that are no numbers have no length.
    """
    lengths = whitened.square_().sum(-1)
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
    chunk = max(1, CHUNK_NUMBERS // means.numel())
    if points.shape[0] <= chunk:
        return torch.logsumexp(component_log_density(points, means, precisions_cholesky) + log_weights, dim=1)
    for start in range(0, points.shape[0], chunk):
        rows = slice(start, start + chunk)
        joint = component_log_density(points[rows], means, precisions_cholesky) + log_weights
        torch.logsumexp(joint, dim=1, out=answer[rows])
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
    joint = component_log_density(points, means, precisions_cholesky) + log_weights
    answer = torch.softmax(joint, dim=1)
    lost = ~torch.isfinite(answer).all(dim=1)
    if bool(lost.any()):
        answer[lost] = _nearest(points[lost], log_weights, means, precisions_cholesky)
    return answer


def _nearest(points: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    """The limit of the responsibilities for points so far out that squared distances overflow."""
    scale = points.abs().amax(dim=1).clamp_(min=float(means.abs().amax()))
    whitened = _whitened(
        (points / scale[:, None]) - means.unsqueeze(1) / scale[None, :, None],
        precisions_cholesky / precisions_cholesky.abs().amax(),
    )
    distances = whitened.square().sum(-1).T
    distances = torch.where(torch.isfinite(log_weights), distances, torch.inf)
    return torch.nn.functional.one_hot(distances.argmin(dim=1), means.shape[0]).to(points.dtype)
