"""The four shapes in which covariances are stored and exchanged: scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StorageType:
    """How the covariances of one type are laid out.

    Attributes:
        per_component: whether the first axis is the component.
        shape: the shape for (K, D).
        n_parameters: free numbers in the covariances for (K, D).
        expand: covariances in this layout, K, D -> (K, D, D).
        variances: covariances in this layout, K, D -> (K, D), or None where features may be correlated.
    """

    per_component: bool
    shape: Callable[[int, int], tuple[int, ...]]
    n_parameters: Callable[[int, int], int]
    expand: Callable[[Tensor, int, int], Tensor]
    variances: Callable[[Tensor, int, int], Tensor] | None = None


def _spherical_variances(covariances: Tensor, n_components: int, n_features: int) -> Tensor:
    return covariances.unsqueeze(-1).expand(n_components, n_features)


STORAGE_TYPES: dict[str, StorageType] = {
    "full": StorageType(
        per_component=True,
        shape=lambda k, d: (k, d, d),
        n_parameters=lambda k, d: k * d * (d + 1) // 2,
        expand=lambda covariances, _k, _d: covariances.clone(),
    ),
    "tied": StorageType(
        per_component=False,
        shape=lambda _k, d: (d, d),
        n_parameters=lambda _k, d: d * (d + 1) // 2,
        expand=lambda covariances, k, d: covariances.expand(k, d, d).clone(),
    ),
    "diag": StorageType(
        per_component=True,
        shape=lambda k, d: (k, d),
        n_parameters=lambda k, d: k * d,
        expand=lambda covariances, _k, _d: torch.diag_embed(covariances),
        variances=lambda covariances, _k, _d: covariances,
    ),
    "spherical": StorageType(
        per_component=True,
        shape=lambda k, _d: (k,),
        n_parameters=lambda k, _d: k,
        expand=lambda covariances, k, d: torch.diag_embed(_spherical_variances(covariances, k, d)),
        variances=_spherical_variances,
    ),
}
