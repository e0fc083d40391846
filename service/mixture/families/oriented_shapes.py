"""mclust's families in which orientation goes apart from shape: EEV, VEV, EVE, VVE."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.families.decomposed import Decomposed, shared_shape, shared_volume


class TurnedEllipsoids(Decomposed):
    """EEV: covariance_k = orientation_k diag(eigenvalues) orientation_k^T."""

    name = "EEV"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        own, orientations = torch.linalg.eigh(covariances)
        common = (weights.unsqueeze(-1) * own).sum(1, keepdim=True)
        return _turned(common.expand_as(own), orientations)


class TurnedScaledEllipsoids(Decomposed):
    """VEV: covariance_k = volume_k orientation_k diag(shape) orientation_k^T."""

    name = "VEV"

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        own, orientations = torch.linalg.eigh(covariances)
        return _turned(shared_shape(weights, own.clamp_min(torch.finfo(own.dtype).tiny)), orientations)


class ParallelEllipsoids(Decomposed):
    """VVE: covariance_k = orientation diag(eigenvalues_k) orientation^T.

    The common orientation has no closed form; that of the pooled covariance stands for it in a start, and
    the gradient finds the best one.
    """

    name = "VVE"
    closed_form = False

    @override
    def most_likely(self, weights: Tensor, covariances: Tensor) -> Tensor:
        pooled = (weights[..., None, None] * covariances).sum(1, keepdim=True)
        _, orientation = torch.linalg.eigh(pooled)
        own = (orientation.mT @ covariances @ orientation).diagonal(dim1=-2, dim2=-1)
        return _turned(self.eigenvalues(weights, own), orientation.expand_as(covariances))

    def eigenvalues(self, weights: Tensor, own: Tensor) -> Tensor:
        """Those of each component, given the variances (R, K, D) along the common axes."""
        del weights
        return own


class EqualVolumeParallelEllipsoids(ParallelEllipsoids):
    """EVE: covariance_k = volume orientation diag(shape_k) orientation^T."""

    name = "EVE"

    @override
    def eigenvalues(self, weights: Tensor, own: Tensor) -> Tensor:
        volumes = own.log().mean(-1)
        return own * (shared_volume(weights, volumes) - volumes).exp().unsqueeze(-1)


def _turned(eigenvalues: Tensor, orientations: Tensor) -> Tensor:
    """Orientation diag(eigenvalues) orientation^T."""
    return (orientations * eigenvalues.unsqueeze(-2)) @ orientations.mT
