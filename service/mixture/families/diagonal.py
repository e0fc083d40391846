"""Features independent within each component (mclust's VVI)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers, library
from service.mixture.families.family import Family, positive
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class Diagonal(Family):
    """covariance_k diagonal."""

    storage_type = "diag"
    diagonal = True
    quick = True

    def __init__(self, name: str = "diag") -> None:
        self.name = name

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components * n_features

    @override
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        return covariances

    @override
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
        return 1.0 / library(reduced).sqrt(reduced), positive(reduced)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features)

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances
