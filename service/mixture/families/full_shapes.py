"""mclust's families in which shape and orientation go together: VEE, EVV."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.families.decomposed import ROUNDS, SETTLED, Decomposed, shared_volume


class ScaledMatrices(Decomposed):
    """VEE: covariance_k = volume_k matrix, det(matrix) = 1."""

    name = "VEE"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        n_features = covariances.shape[-1]
        volume = torch.ones_like(weights)
        shares = weights[..., None, None] * covariances
        matrix = shares.sum(1, keepdim=True)
        for _ in range(ROUNDS):
            matrix = matrix / _log_volume(matrix).exp()[..., None, None]
            before = volume
            volume = torch.linalg.solve(matrix, covariances).diagonal(dim1=-2, dim2=-1).sum(-1) / n_features
            matrix = (shares / volume[..., None, None]).sum(1, keepdim=True)
            if bool(((volume / before - 1).abs() < SETTLED).all()):
                break
        return volume[..., None, None] * matrix / _log_volume(matrix).exp()[..., None, None]


class EqualVolumeMatrices(Decomposed):
    """EVV: covariance_k = volume matrix_k, det(matrix_k) = 1."""

    name = "EVV"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        own = _log_volume(covariances)
        common = shared_volume(weights, own)
        return covariances * (common - own).exp()[..., None, None]


def _log_volume(matrices: Tensor) -> Tensor:
    """Log det / D, (..., D, D) -> (...)."""
    logarithms: Tensor = torch.linalg.slogdet(matrices).logabsdet
    return logarithms / matrices.shape[-1]
