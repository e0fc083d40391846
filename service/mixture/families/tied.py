"""One covariance matrix for all components (mclust's EEE)."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers, broadcast
from service.mixture.families.family import Family, invert_cholesky
from service.mixture.families.univariate import Univariate
from service.mixture.unconstrained import CorrelatedForm, Unconstrained


class Tied(Family):
    """covariance_k = covariance."""

    storage_type = "tied"
    quick = True

    def __init__(self, name: str = "tied") -> None:
        self.name = name

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_features * (n_features + 1) // 2

    @override
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        return (weights[..., None, None] * covariances).sum(1)[:, None]

    @override
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
        cholesky, valid = invert_cholesky(reduced)
        shape = (*weights.shape, *cholesky.shape[-2:])
        return broadcast(cholesky, shape), valid[:, 0]

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return CorrelatedForm(n_components, n_features, per_component=False)

    @override
    def for_features(self, n_features: int) -> Family:
        return Univariate(self.name, self.storage_type, per_component=False) if n_features == 1 else self

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances[0]
