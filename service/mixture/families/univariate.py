"""Families of full matrices when there is one feature: numbers in place of 1 x 1 matrices."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers, broadcast, library
from service.mixture.families.family import Family, positive
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class Univariate(Family):
    """A variance for each component, or one for all; the mixtures of the family it stands for."""

    diagonal = True
    quick = True

    def __init__(self, name: str, storage_type: str, *, per_component: bool) -> None:
        self.name = name
        self.storage_type = storage_type
        self._per_component = per_component

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components if self._per_component else 1

    @override
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        if self._per_component:
            return covariances
        return (weights[..., None] * covariances).sum(1)[:, None]

    @override
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
        return broadcast(1.0 / library(reduced).sqrt(reduced), (*weights.shape, 1)), positive(reduced)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features, per_component=self._per_component)

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return {
            "full": covariances.unsqueeze(-1),
            "tied": covariances[:1],
            "diag": covariances,
            "spherical": covariances[:, 0],
        }[self.storage_type]
