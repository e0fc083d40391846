"""Families that constrain volume, shape and orientation of covariances one by one.

covariance_k = volume_k orientation_k diag(shape_k) orientation_k^T with det(shape_k) = 1. A family's three
letters say of each part whether components share it (E), have their own (V), or it is the identity (I).

References:
    Banfield, Raftery, "Model-based Gaussian and non-Gaussian clustering", 1993.
    Celeux, Govaert, "Gaussian parsimonious clustering models", 1995.
    Scrucca, Fop, Murphy, Raftery, "mclust 5: clustering, classification and density estimation using
    Gaussian finite mixture models", 2016.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.families.family import Family, invert_cholesky
from service.mixture.families.univariate import Univariate
from service.mixture.unconstrained import Unconstrained
from service.mixture.unconstrained_decomposed import DecomposedForm

# Alternating updates gain a factor at every round; these many bring volumes and shapes to rounding.
ROUNDS = 100
SETTLED = 1e-13


class Decomposed(Family):
    """A family by its letters; a subclass says how the most likely covariances come about.

    Attributes:
        name: the three letters, volume, shape, orientation.
    """

    storage_type = "full"

    def __init__(self) -> None:
        self.diagonal = self.name[2] == "I"
        if self.diagonal:
            self.storage_type = "diag"
        # Scaling single features mixes shape with orientation: a family is closed under it only if both
        # are shared or both are free.
        self.common_scale = self.name[2] != "I" and self.name[1] != self.name[2]

    @abstractmethod
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        """Covariances of the family, (R, K, D, D) or (R, K, D), given those of the components' shares.

        They minimise sum_k weight_k (log|covariance_k| + tr(covariance_k^-1 given_k)).
        """

    @override
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        each = {"I": 0, "E": 1, "V": n_components}
        volume, shape, orientation = (each[letter] for letter in self.name)
        return volume + shape * (n_features - 1) + orientation * n_features * (n_features - 1) // 2

    @override
    def reduce(self, weights: Tensor, covariances: Tensor) -> Tensor:
        return covariances

    @override
    def precisions_cholesky(self, weights: Tensor, reduced: Tensor) -> tuple[Tensor, Tensor]:
        if not self.diagonal:
            # Extrapolated covariances need not be positive definite, and no update is defined for such.
            _, valid = invert_cholesky(reduced)
            unit = torch.eye(reduced.shape[-1], dtype=reduced.dtype, device=reduced.device)
            sound = torch.where(valid[..., None, None], reduced, unit)
            cholesky, exists = invert_cholesky(self.most_likely(weights, sound))
            return cholesky, (valid & exists).all(dim=1)
        valid = (reduced > 0).flatten(1).all(dim=1)
        variances = self.most_likely(weights, reduced.clamp_min(torch.finfo(reduced.dtype).tiny))
        return variances.rsqrt(), valid & (variances > 0).flatten(1).all(dim=1)

    @override
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        return DecomposedForm(self.name, n_components, n_features)

    @override
    def for_features(self, n_features: int) -> Family:
        if n_features > 1:
            return self
        return Univariate(self.name, self.storage_type, per_component=self.name[0] == "V")

    @override
    def stored(self, covariances: Tensor) -> Tensor:
        return covariances


def shared_volume(weights: Tensor, logarithms: Tensor) -> Tensor:
    """The log of the common volume of components whose own log volumes are (R, K): (R, 1)."""
    return torch.logsumexp(weights.log() + logarithms, dim=1, keepdim=True)


def shared_shape(weights: Tensor, values: Tensor) -> Tensor:
    """volume_k shape_d with one shape for all, nearest to values (R, K, D) in likelihood: (R, K, D).

    Alternates volume_k = mean_d(value_kd / shape_d) and shape_d = sum_k weight_k value_kd / volume_k, scaled
    to product one, each of which is exact given the other.
    """
    shape = (weights.unsqueeze(-1) * values).sum(1, keepdim=True)
    volume = torch.ones_like(weights).unsqueeze(-1)
    for _ in range(ROUNDS):
        shape = shape / shape.log().mean(-1, keepdim=True).exp()
        before, volume = volume, (values / shape).mean(-1, keepdim=True)
        shape = (weights.unsqueeze(-1) * values / volume).sum(1, keepdim=True)
        if bool(((volume / before - 1).abs() < SETTLED).all()):
            break
    return volume * shape / shape.log().mean(-1, keepdim=True).exp()
