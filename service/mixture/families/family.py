"""What describes one covariance family; everything else in this room is written once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from service.mixture.unconstrained import Unconstrained


class Family(ABC):
    """One way in which covariances are constrained and shared between components.

    Attributes:
        name: as in a request.
        storage_type: the covariance type under which a fitted mixture is stored.
        diagonal: whether covariances are diagonal, and kept as (R, K, D) throughout.
        radial: whether they are even multiples of the identity.
        common_scale: whether the family is only closed under scaling all features alike.
        closed_form: whether ``precisions_cholesky`` is the exact update that em needs.
    """

    name: str
    storage_type: str
    diagonal: bool = False
    radial: bool = False
    common_scale: bool = False
    closed_form: bool = True

    @abstractmethod
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        """How many free numbers the covariances have."""

    @abstractmethod
    def reduce(self, weights: Tensor, covariances: Tensor) -> Tensor:
        """What of the covariances of the components' shares the update depends on.

        Args:
            weights: (R, K), rows summing to one.
            covariances: (R, K, D, D), or (R, K, D) for diagonal families.
        """

    @abstractmethod
    def precisions_cholesky(self, weights: Tensor, reduced: Tensor) -> tuple[Tensor, Tensor]:
        """The closed-form update: the most likely covariances of this family, given ``reduce``'s answer.

        Returns:
            Cholesky factors of the precisions, (R, K, D, D) or (R, K, D), and whether they exist (R,).
        """

    @abstractmethod
    def unconstrained(self, n_components: int, n_features: int) -> Unconstrained:
        """The family's mixtures as rows of unconstrained numbers."""

    def for_features(self, n_features: int) -> Family:
        """The family itself, or a cheaper one with the same mixtures when there are so many features."""
        del n_features
        return self

    @abstractmethod
    def stored(self, covariances: Tensor) -> Tensor:
        """Covariances (K, D, D) or (K, D) of one mixture in the layout of ``storage_type``."""

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Free parameters of a mixture: weights less one, means, covariances."""
        return n_components * (n_features + 1) - 1 + self.n_covariance_parameters(n_components, n_features)


def invert_cholesky(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Upper triangular U with covariance^-1 = U U^T, (..., D, D), and where it exists (...)."""
    if covariances.shape[-1] == 1:
        return covariances.rsqrt(), (covariances > 0).flatten(-2).squeeze(-1)
    lower, failed = torch.linalg.cholesky_ex(covariances)
    identity = torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.mT, failed == 0
