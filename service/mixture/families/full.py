"""Every component its own covariance matrix (mclust's VVV)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers
from service.mixture.families.family import Family, invert_cholesky
from service.mixture.families.univariate import Univariate
from service.mixture.unconstrained import CorrelatedForm, Unconstrained


class Full(Family):
    """covariance_k unconstrained."""

    storage_type = "full"
    quick = True

    def __init__(self, name: str = "full") -> None:
        self.name = name

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components * n_features * (n_features + 1) // 2

    @override
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        return covariances

    @override
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
        cholesky, valid = invert_cholesky(reduced)
        return cholesky, valid.all(1)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return CorrelatedForm(n_components, n_features)

    @override
    def for_features(self, n_features: int) -> Family:
        return Univariate(self.name, self.storage_type, per_component=True) if n_features == 1 else self

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances
