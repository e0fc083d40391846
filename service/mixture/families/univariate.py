"""Families of full matrices when there is one feature: numbers in place of 1 x 1 matrices."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.families.family import Family
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class Univariate(Family):
    """A variance for each component, or one for all; the mixtures of the family it stands for."""

    diagonal = True

    def __init__(self, name: str, storage_type: str, *, per_component: bool) -> None:
        self.name = name
        self.storage_type = storage_type
        self._per_component = per_component

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        return n_components if self._per_component else 1

    @override
    def reduce(self, weights: Tensor, covariances: Tensor) -> Tensor:
        if self._per_component:
            return covariances
        return (weights.unsqueeze(-1) * covariances).sum(1, keepdim=True)

    @override
    def precisions_cholesky(self, weights: Tensor, reduced: Tensor) -> tuple[Tensor, Tensor]:
        return reduced.rsqrt().expand(*weights.shape, 1), (reduced > 0).flatten(1).all(dim=1)

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
