"""How well a fitted mixture recovers the gold one that its points were drawn from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from service.mixture.assignment import cheapest_assignment
from service.mixture.blocked_points import BLOCK_NUMBERS, Points
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.shards import ALONE, Group

DIVERGENCE_SAMPLES = 20_000


def recover(
    gold: GaussianMixture,
    fitted: GaussianMixture,
    points: Points,
    components: Tensor,
    *,
    seed: int = 0,
    group: Group = ALONE,
) -> dict[str, Any]:
    """Errors of the fitted components, each matched with a gold one, and of the mixture as a whole.

    Args:
        gold: the true mixture.
        fitted: the learned one; it may have another number of components.
        points: (D, n) float64; this rank's.
        components: (n,) int64, the gold component of each point.
        seed: of the Monte Carlo estimate of KL(gold || fitted).
        group: the ranks that have the other points.

    Returns:
        matching, largest errors, kl (nats) and adjusted_rand_index, ready for JSON.
    """
    pairs = cheapest_assignment(_symmetric_divergences(gold, fitted).tolist())
    matching = [_compared(gold, fitted, i, j) for i, j in pairs]
    sizes = gold.n_components, fitted.n_components
    agreement = group.summed(contingency(components, _labels(fitted, points), sizes))[0]
    return {
        "matching": matching,
        "largest_weight_error": max(pair["weight_error"] for pair in matching),
        "largest_mean_error": max(pair["mean_error"] for pair in matching),
        "largest_covariance_error": max(pair["covariance_error"] for pair in matching),
        "kl": _divergence(gold, fitted, seed),
        "adjusted_rand_index": adjusted_rand_index(agreement),
    }


def _labels(fitted: GaussianMixture, points: Points) -> Tensor:
    """The likeliest component of each of points (D, N), (N,) int64; the posteriors are never whole."""
    step = max(1, BLOCK_NUMBERS // (fitted.n_components + fitted.n_features))
    parts = (points[:, start : start + step].T for start in range(0, points.shape[1], step))
    labels = [fitted.responsibilities(part).argmax(1) for part in parts]
    return torch.cat(labels) if labels else torch.empty(0, dtype=torch.int64)


def _compared(gold: GaussianMixture, fitted: GaussianMixture, i: int, j: int) -> dict[str, Any]:
    """Absolute error of the weight, Euclidean error of the mean, Frobenius error of the covariance."""
    covariance = fitted.full_covariances()[j] - gold.full_covariances()[i]
    return {
        "gold_component": i,
        "fitted_component": j,
        "weight_error": abs(float(fitted.weights[j] - gold.weights[i])),
        "mean_error": float(torch.linalg.vector_norm(fitted.means[j] - gold.means[i])),
        "covariance_error": float(torch.linalg.matrix_norm(covariance)),
    }


def _symmetric_divergences(gold: GaussianMixture, fitted: GaussianMixture) -> Tensor:
    """KL(i || j) + KL(j || i) between components, nats, (K_gold, K_fitted).

    = (tr(P_j C_i) + tr(P_i C_j)) / 2 - D + (m_i - m_j)^T (P_i + P_j) (m_i - m_j) / 2.
    """
    first, second = gold.full_covariances(), fitted.full_covariances()
    first_precisions, second_precisions = gold.precisions(), fitted.precisions()
    traces = torch.einsum("iab,jba->ij", first, second_precisions)
    traces = traces + torch.einsum("iab,jba->ij", first_precisions, second)
    delta = gold.means[:, None] - fitted.means[None]
    sums = first_precisions[:, None] + second_precisions[None]
    distances = torch.einsum("ija,ijab,ijb->ij", delta, sums, delta)
    return 0.5 * (traces + distances) - gold.n_features


def _divergence(gold: GaussianMixture, fitted: GaussianMixture, seed: int) -> dict[str, Any]:
    """KL(gold || fitted) = E_gold[log gold - log fitted] by Monte Carlo, with its standard error, nats."""
    points, _ = gold.sample(DIVERGENCE_SAMPLES, seed)
    ratios = gold.log_density(points) - fitted.log_density(points)
    return {
        "value": float(ratios.mean()),
        "standard_error": float(ratios.std() / DIVERGENCE_SAMPLES**0.5),
        "n_samples": DIVERGENCE_SAMPLES,
    }


def contingency(first: Tensor, second: Tensor, sizes: tuple[int, int]) -> Tensor:
    """How many points have each pair of labels, float64 of these sizes, of two labellings (N,) int64."""
    table = torch.bincount(first * sizes[1] + second, minlength=sizes[0] * sizes[1])
    return table.view(sizes).double()


def adjusted_rand_index(table: Tensor) -> float:
    """Agreement of the two labellings of a contingency table, one when equal, zero on average by chance.

    References:
        Hubert, Arabie, "Comparing partitions", 1985.
    """
    together = _pairs(table)
    rows, columns = _pairs(table.sum(1)), _pairs(table.sum(0))
    every = _pairs(table.sum().reshape(1))
    if every == 0:
        return 1.0
    expected = rows * columns / every
    most = 0.5 * (rows + columns)
    return 1.0 if most == expected else (together - expected) / (most - expected)


def _pairs(counts: Tensor) -> float:
    """How many pairs lie within the same cell."""
    return float((counts * (counts - 1) / 2).sum())
