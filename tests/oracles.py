"""The definitions, slowly: plain numpy float64 and plain autograd, to judge the service's arithmetic by."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor


def component_log_density(points: np.ndarray, means: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """(N, K): log N(x; mean, covariance), one point and component at a time, by Cholesky solves."""
    answer = np.empty((len(points), len(means)))
    for k, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        scale = np.sqrt(np.diag(covariance))
        cholesky = np.linalg.cholesky(covariance / np.outer(scale, scale))
        for n, point in enumerate(points):
            z = np.linalg.solve(cholesky, (point - mean) / scale)
            log_determinant = 2 * np.sum(np.log(np.diag(cholesky))) + 2 * np.sum(np.log(scale))
            answer[n, k] = -0.5 * (len(mean) * math.log(2 * math.pi) + log_determinant + z @ z)
    return answer


def log_density(
    points: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> np.ndarray:
    """(N,): log sum_k weight_k N(x; k)."""
    return logsumexp(component_log_density(points, means, covariances) + np.log(weights), axis=1)


def responsibilities(
    points: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> np.ndarray:
    """(N, K): posterior over components."""
    joint = component_log_density(points, means, covariances) + np.log(weights)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


class NaiveMixture:
    """The exercise as one would write it first: a mixture of torch parameters and an N x K density.

    Coordinates: logits (K,), means (K, D), log standard deviations, and for correlated families canonical
    partial correlations tanh(a); ``regularization`` is the penalty exp(-regularization tr(precision) / 2).
    """

    def __init__(self, numbers: Tensor, n_components: int, n_features: int, covariance_type: str) -> None:
        self.numbers = numbers.clone().requires_grad_()
        self.shape = (n_components, n_features)
        self.covariance_type = covariance_type

    def cholesky(self) -> Tensor:
        """(K, D, D) lower triangular factors of the covariances."""
        n_components, n_features = self.shape
        numbers = self.numbers[n_components * (n_features + 1) :]
        if self.covariance_type == "spherical":
            return torch.diag_embed(numbers.exp()[:, None].expand(self.shape))
        if self.covariance_type == "diag":
            return torch.diag_embed(numbers.exp().view(self.shape))
        groups = 1 if self.covariance_type == "tied" else n_components
        scales = numbers[: groups * n_features].exp().view(groups, n_features)
        partial = numbers[groups * n_features :].tanh().view(groups, -1)
        factors = [
            torch.diag(scales[g]) @ self._correlation_cholesky(partial[g], n_features) for g in range(groups)
        ]
        return torch.stack(factors).expand(n_components, n_features, n_features)

    @staticmethod
    def _correlation_cholesky(partial: Tensor, n_features: int) -> Tensor:
        rows, used = [], 0
        for i in range(n_features):
            left, row = torch.ones((), dtype=torch.float64), []
            for _ in range(i):
                row.append(partial[used] * left)
                left = left * torch.sqrt(1 - partial[used] ** 2)
                used += 1
            row.append(left)
            row.extend([torch.zeros((), dtype=torch.float64)] * (n_features - i - 1))
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def mean_log_likelihood(self, points: Tensor, regularization: float = 0.0) -> Tensor:
        """Of points (N, D), nats per point."""
        n_components, n_features = self.shape
        log_weights = torch.log_softmax(self.numbers[:n_components], 0)
        means = self.numbers[n_components : n_components * (n_features + 1)].view(self.shape)
        cholesky = self.cholesky()
        joint = []
        for k in range(n_components):
            density = torch.distributions.MultivariateNormal(
                means[k], scale_tril=cholesky[k], validate_args=False
            )
            penalty = 0.5 * regularization * torch.linalg.inv(cholesky[k]).square().sum()
            joint.append(log_weights[k] + density.log_prob(points) - penalty)
        return torch.logsumexp(torch.stack(joint), 0).mean()

    def gradient(self, points: Tensor, regularization: float = 0.0) -> Tensor:
        """Of the mean log-likelihood, by autograd through the N x K density."""
        (gradient,) = torch.autograd.grad(self.mean_log_likelihood(points, regularization), self.numbers)
        return gradient


def train(
    model: NaiveMixture, points: Tensor, optimizer: torch.optim.Optimizer, batches: list[Tensor | None]
) -> None:
    """One step of a torch optimiser per entry of batches (indices, or None for all points)."""
    for batch in batches:
        optimizer.zero_grad()
        (-model.mean_log_likelihood(points if batch is None else points[batch])).backward()
        optimizer.step()
