"""Independent draws from a mixture."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(
    weights: Tensor, means: Tensor, covariances_cholesky: Tensor, n_samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Points and the component each came from, in the order drawn.

    Args:
        weights: (K,) float64, summing to one.
        means: (K, D) float64.
        covariances_cholesky: (K, D, D) float64, lower triangular.
        n_samples: how many.
        generator: the only source of randomness.

    Returns:
        points (n_samples, D) float64 and components (n_samples,) int64.
    """
    n_components, n_features = means.shape
    cumulative = weights.cumsum(0)
    uniform = torch.rand(n_samples, dtype=torch.float64, generator=generator) * cumulative[-1]
    # right=True steps over components of zero weight, whose cumulative weight equals their predecessor's.
    components = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=n_components - 1)
    noise = torch.randn(n_samples, n_features, dtype=torch.float64, generator=generator)
    points = torch.empty_like(noise)
    order = components.argsort(stable=True)
    sizes: list[int] = torch.bincount(components, minlength=n_components).tolist()
    for k, rows in enumerate(torch.split_with_sizes(order, sizes)):
        points[rows] = torch.addmm(means[k], noise[rows], covariances_cholesky[k].T)
    return points, components
