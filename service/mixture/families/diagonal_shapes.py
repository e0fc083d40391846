"""mclust's families with axes along the features: EII, EEI, VEI, EVI."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from service.mixture.families.decomposed import Decomposed, shared_shape, shared_volume
from service.mixture.families.family import Family
from service.mixture.unconstrained import DiagonalForm, Unconstrained


class EqualSpheres(Decomposed):
    """EII: covariance_k = variance I."""

    name = "EII"
    radial = True

    def __init__(self) -> None:
        super().__init__()
        self.storage_type = "spherical"
        self.common_scale = True

    @override
    def reduce(self, weights: Tensor, covariances: Tensor) -> Tensor:
        pooled = (weights.unsqueeze(-1) * covariances).sum((1, 2), keepdim=True)
        return (pooled / covariances.shape[-1]).expand_as(covariances)

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        return covariances

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features, per_component=False, per_feature=False)

    @override
    def for_features(self, n_features: int) -> Family:
        return self

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances[:, 0]


class EqualDiagonals(Decomposed):
    """EEI: covariance_k = diag(variances)."""

    name = "EEI"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        return (weights.unsqueeze(-1) * covariances).sum(1, keepdim=True).expand_as(covariances)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DiagonalForm(n_components, n_features, per_component=False)


class ScaledDiagonals(Decomposed):
    """VEI: covariance_k = volume_k diag(shape)."""

    name = "VEI"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        return shared_shape(weights, covariances)


class EqualVolumeDiagonals(Decomposed):
    """EVI: covariance_k = volume diag(shape_k)."""

    name = "EVI"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        logarithms = covariances.log()
        own = logarithms.mean(-1)
        common = shared_volume(weights, own)
        return (logarithms + (common - own).unsqueeze(-1)).exp()
