"""Independent draws from a mixture, block by block, each block from a random stream of its own.

Point i of a seed is always the same, whichever blocks are drawn, in whatever order or at the same time.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST_ROWS = 16_384
_MOST_NUMBERS = 1 << 20
# Up to here, adding the noise of one feature after the other is quicker than a product per component.
_FEW_FEATURES = 3
# Up to here, comparing with one edge after the other is quicker than a search whose turns cannot be foreseen.
_FEW_COMPONENTS = 100

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def block_rows(n_features: int) -> int:
    """How many points a block has; it depends on nothing else, or a seed would not name the same points."""
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // n_features))


def draw(
    weights: Tensor, means: Tensor, covariances_cholesky: Tensor, seed: int, block: int, n_samples: int
) -> tuple[Tensor, Tensor]:
    """Points from the beginning of a block on and the component each came from, in the order drawn.

    Args:
        weights: (K,) float64, summing to one.
        means: (K, D) float64.
        covariances_cholesky: (K, D, D) float64, lower triangular.
        seed: not negative.
        block: which one to begin with; block b begins with point b * block_rows(D) of the seed.
        n_samples: how many points, of this block and those after it.

    Returns:
        points (n_samples, D) float64 and components (n_samples,) int64.

    References:
        Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011, for streams by key.
    """
    n_features = means.shape[1]
    points, components = np.empty((n_samples, n_features)), np.empty(n_samples, np.intp)
    cumulative = weights.cumsum(0).numpy()
    place = _by_feature if n_features <= _FEW_FEATURES else _by_component
    rows = block_rows(n_features)
    uniform = np.empty(rows)
    # Block by block, so that what is made on the way is small: filling fresh pages takes twice as long.
    for index, start in enumerate(range(0, n_samples, rows), block):
        stream = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(index,))))
        drawn, chosen = points[start : start + rows], components[start : start + rows]
        # Uniform numbers for the whole block come first, so that the normal ones begin at the same place.
        stream.random(out=uniform)
        chosen[:] = _chosen(cumulative, uniform[: len(drawn)])
        stream.standard_normal(out=drawn)
        place(drawn, chosen, means.numpy(), covariances_cholesky.numpy())
    return torch.from_numpy(points), torch.from_numpy(components)


def _chosen(cumulative: Floats, uniform: Floats) -> NDArray[np.integer]:
    """The component for each of the numbers: how many of the others' cumulative weights are not above it."""
    # A component of zero weight, whose cumulative weight equals its predecessor's, is stepped over.
    edges, uniform = cumulative[:-1], uniform * cumulative[-1]
    if len(edges) > _FEW_COMPONENTS:
        return np.searchsorted(edges, uniform, side="right")
    n_passed = np.zeros(len(uniform), np.int8)
    for edge in edges:
        n_passed += (uniform >= edge).view(np.int8)
    return n_passed


def _by_feature(noise: Floats, components: Indices, means: Floats, lower: Floats) -> None:
    """Makes every row z mean_k + L_k z, as sums over features of numbers looked up by component."""
    # A feature takes in the noise of those before it, so that the last one can be overwritten first.
    for j in reversed(range(noise.shape[1])):
        feature = means[:, j].take(components)
        for i in range(j + 1):
            factors = lower[:, j, i].take(components)
            factors *= noise[:, i]
            feature += factors
        noise[:, j] = feature


def _by_component(noise: Floats, components: Indices, means: Floats, lower: Floats) -> None:
    """Makes every row z mean_k + L_k z, as one matrix product per component over rows brought together."""
    # The smallest type that holds K sorts by counting.
    order = components.astype(np.min_scalar_type(len(means))).argsort(kind="stable")
    sorted_noise = torch.from_numpy(noise.take(order, axis=0))
    placed = torch.empty_like(sorted_noise)
    ends = np.bincount(components, minlength=len(means)).cumsum()
    for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        mean, factor = torch.from_numpy(means[k]), torch.from_numpy(lower[k])
        torch.addmm(mean, sorted_noise[start:end], factor.T, out=placed[start:end])
    noise[order] = placed.numpy()
