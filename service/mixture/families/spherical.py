"""Every component a sphere with its own radius (mclust's VII)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers, broadcast, library
from service.mixture.families.family import Family, positive
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class Spherical(Family):
    """covariance_k = variance_k I."""

    storage_type = "spherical"
    diagonal = True
    quick = True
    radial = True
    common_scale = True

    def __init__(self, name: str = "spherical") -> None:
        self.name = name

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components

    @override
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        return broadcast(covariances.mean(-1)[..., None], covariances.shape)

    @override
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
        return 1.0 / library(reduced).sqrt(reduced), positive(reduced)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features, per_feature=False)

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances[:, 0]
