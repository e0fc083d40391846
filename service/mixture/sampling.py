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

Floats = NDArray[np.float64]


def block_rows(n_features: int) -> int:
    """How many points a block has; it depends on nothing else, or a seed would not name the same points."""
    return max(1, min(_MOST_ROWS, _MOST_NUMBERS // n_features))


def draw_block(
    weights: Tensor, means: Tensor, covariances_cholesky: Tensor, seed: int, block: int, n_samples: int
) -> tuple[Tensor, Tensor]:
    """Points of one block and the component each came from, in the order drawn.

    Args:
        weights: (K,) float64, summing to one.
        means: (K, D) float64.
        covariances_cholesky: (K, D, D) float64, lower triangular.
        seed: not negative.
        block: which one; block b begins with point b * block_rows(D) of the seed.
        n_samples: how many points from the block's start, at most block_rows(D).

    Returns:
        points (n_samples, D) float64 and components (n_samples,) int64.

    References:
        Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011, for streams by key.
    """
    n_components, n_features = means.shape
    stream = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(block,))))
    cumulative = weights.cumsum(0).numpy()
    # Uniform numbers for the whole block come first, so that the normal ones begin at the same place.
    uniform = stream.random(block_rows(n_features))[:n_samples] * cumulative[-1]
    # Side right steps over components of zero weight, whose cumulative weight equals their predecessor's.
    components = np.minimum(np.searchsorted(cumulative, uniform, side="right"), n_components - 1)
    noise = stream.standard_normal((n_samples, n_features))
    place = _by_feature if n_features <= _FEW_FEATURES else _by_component
    return place(noise, components, means, covariances_cholesky), torch.from_numpy(components)


def _by_feature(noise: Floats, components: NDArray[np.intp], means: Tensor, lower: Tensor) -> Tensor:
    """mean_k + L_k z for every row z, as sums over features of numbers looked up by component."""
    points = np.empty_like(noise)
    offsets, factors = means.numpy(), lower.numpy()
    for j in range(noise.shape[1]):
        feature = offsets[:, j].take(components)
        for i in range(j + 1):
            feature += factors[:, j, i].take(components) * noise[:, i]
        points[:, j] = feature
    return torch.from_numpy(points)


def _by_component(noise: Floats, components: NDArray[np.intp], means: Tensor, lower: Tensor) -> Tensor:
    """mean_k + L_k z for every row z, as one matrix product per component over rows brought together."""
    # The smallest type that holds K sorts by counting.
    order = components.astype(np.min_scalar_type(len(means))).argsort(kind="stable")
    sorted_noise = torch.from_numpy(noise.take(order, axis=0))
    placed = torch.empty_like(sorted_noise)
    ends = np.bincount(components, minlength=len(means)).cumsum()
    for k, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        torch.addmm(means[k], sorted_noise[start:end], lower[k].T, out=placed[start:end])
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return torch.from_numpy(placed.numpy().take(back, axis=0))
