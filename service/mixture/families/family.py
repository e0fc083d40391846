"""What describes one covariance family; everything else in this room is written once for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from service.mixture.arrays import Numbers, library, tensor_of
from service.mixture.unconstrained import Unconstrained

# Up to so many features a call of numpy's that solves a little more is cheaper than torch's triangular one.
FEW_FEATURES = 8


class Family(ABC):
    """One way in which covariances are constrained and shared between components.

    Attributes:
        name: as in a request.
        storage_type: the covariance type under which a fitted mixture is stored.
        diagonal: whether covariances are diagonal, and kept as (R, K, D) throughout.
        radial: whether they are even multiples of the identity.
        common_scale: whether the family is only closed under scaling all features alike.
        closed_form: whether ``precisions_cholesky`` is the exact update that em needs.
        quick: whether ``reduce`` and ``precisions_cholesky`` take numpy's arrays as well as tensors.
    """

    name: str
    storage_type: str
    diagonal: bool = False
    radial: bool = False
    common_scale: bool = False
    closed_form: bool = True
    quick: bool = False

    @abstractmethod
    def n_covariance_parameters(self, n_components: int, n_features: int) -> int:
        """How many free numbers the covariances have."""

    @abstractmethod
    def reduce(self, weights: Numbers, covariances: Numbers) -> Numbers:
        """What of the covariances of the components' shares the update depends on.

        Args:
            weights: (R, K), rows summing to one.
            covariances: (R, K, D, D), or (R, K, D) for diagonal families.
        """

    @abstractmethod
    def precisions_cholesky(self, weights: Numbers, reduced: Numbers) -> tuple[Numbers, Numbers]:
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


def invert_cholesky(covariances: Numbers) -> tuple[Numbers, Numbers]:
    """Upper triangular U with covariance^-1 = U U^T, (..., D, D), and where it exists (...)."""
    n_features = covariances.shape[-1]
    if n_features == 1:
        return 1.0 / library(covariances).sqrt(covariances), (covariances > 0)[..., 0, 0]
    if library(covariances) is np:
        if n_features <= FEW_FEATURES:
            lower, exists = _cholesky(covariances)
            return (np.linalg.inv(lower) * np.tri(n_features)).mT, exists
        upper, exists = invert_cholesky(tensor_of(covariances))
        return upper.numpy(), exists.numpy()
    lower, failed = torch.linalg.cholesky_ex(covariances)
    identity = torch.eye(n_features, dtype=covariances.dtype, device=covariances.device)
    inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
    return inverse.mT, failed == 0


def _cholesky(covariances: Numbers) -> tuple[Numbers, Numbers]:
    """Lower triangular factors (..., D, D), in place of missing ones the identity, and which exist (...)."""
    exists = np.ones(covariances.shape[:-2], dtype=bool)
    try:
        return np.linalg.cholesky(covariances), exists
    except np.linalg.LinAlgError:  # numpy does not say for which of them
        lower = np.empty_like(covariances)
        for place in np.ndindex(*exists.shape):
            try:
                lower[place] = np.linalg.cholesky(covariances[place])
            except np.linalg.LinAlgError:
                exists[place], lower[place] = False, np.eye(covariances.shape[-1])
        return lower, exists


def positive(variances: Numbers) -> Numbers:
    """Where all of the variances (R, ...) are: (R,)."""
    return (variances > 0).reshape(variances.shape[0], -1).all(1)
