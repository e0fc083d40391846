"""Every component a sphere with its own radius (mclust's VII)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.families.family import Family
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class Spherical(Family):
    """covariance_k = variance_k I."""

    storage_type = "spherical"
    diagonal = True
    radial = True
    common_scale = True

    def __init__(self, name: str = "spherical") -> None:
        self.name = name

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components

    @override
    def reduce(self, weights: Tensor, covariances: Tensor) -> Tensor:
        return covariances.mean(-1, keepdim=True).expand_as(covariances)

    @override
    def precisions_cholesky(self, weights: Tensor, reduced: Tensor) -> tuple[Tensor, Tensor]:
        return reduced.rsqrt(), (reduced > 0).flatten(1).all(dim=1)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features, per_feature=False)

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances[:, 0]
