"""Unconstrained numbers for families that constrain volume, shape and orientation one by one.

The gradient with the statistics held fixed is left to autograd here: it runs over K x D x D numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components
from service.mixture.statistics import Statistics
from service.mixture.unconstrained import Pullback, Unconstrained


class DecomposedForm(Unconstrained):
    """K log volumes if they vary, log eigenvalues, and skew-symmetric numbers of orientations.

    The eigenvalues of components that share their volume are scaled to one; an orientation is Cayley's
    (I - S)(I + S)^-1 with S skew-symmetric.

    References:
        Cayley, "Sur quelques propriétés des déterminants gauches", 1846.
        O'Dorney, "Minimizing the Cayley transform of an orthogonal matrix by multiplying by signature
        matrices", 2014.
    """

    def __init__(self, name: str, n_components: int, n_features: int) -> None:
        volume, shape, orientation = tuple(name)
        self._shape = (n_components, n_features)
        self._own_volumes = volume == "V" and shape == "E"
        self._equal_volumes = volume == "E" and shape == "V"
        self._n_shapes = n_components if shape == "V" else 1
        self._n_orientations = {"I": 0, "E": 1, "V": n_components}[orientation]
        # Lists, not tensors: one made in inference mode could not be used under autograd.
        self._below: list[list[int]] = torch.tril_indices(n_features, n_features, offset=-1).tolist()
        self._sizes = [
            n_components,
            n_components * n_features,
            n_components if self._own_volumes else 0,
            self._n_shapes * n_features,
            self._n_orientations * len(self._below[0]),
        ]
        self.size = sum(self._sizes)

    @override
    def at(self, rows: Tensor) -> tuple[Components, Pullback]:
        def pullback(statistics: Statistics) -> Tensor:
            # Tensors made in inference mode cannot be differentiated; copies made outside of it can.
            with torch.inference_mode(False), torch.enable_grad():
                numbers = rows.clone().requires_grad_()
                value = _complete_log_likelihood(self._components(numbers), _copied(statistics))
                (gradient,) = torch.autograd.grad(value, numbers)
            return gradient

        return self._components(rows), pullback

    def _components(self, rows: Tensor) -> Components:
        logits, means, volumes, logs, skew = torch.split_with_sizes(rows, self._sizes, dim=1)
        shape = (rows.shape[0], *self._shape)
        logarithms = logs.reshape(rows.shape[0], self._n_shapes, -1)
        if self._equal_volumes:
            own = logarithms.mean(-1, keepdim=True)
            logarithms = logarithms - own + own.mean(1, keepdim=True)
        if self._own_volumes:
            logarithms = logarithms + volumes.unsqueeze(-1)
        scales = (-0.5 * logarithms).exp().expand(shape)
        log_weights = torch.log_softmax(logits, dim=1)
        if self._n_orientations == 0:
            return Components(log_weights, means.reshape(shape), scales)
        turned = self._orientations(skew) / scales.unsqueeze(-2)
        # A triangular factor is what the rest of the room expects; QR gives it without squaring.
        upper = torch.linalg.qr(turned.mT).R
        lower = upper.mT * upper.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
        identity = torch.eye(shape[-1], dtype=rows.dtype, device=rows.device)
        inverse = torch.linalg.solve_triangular(lower, identity, upper=False)
        return Components(log_weights, means.reshape(shape), inverse.mT)

    def _orientations(self, skew: Tensor) -> Tensor:
        n_features = self._shape[1]
        matrix = skew.new_zeros(skew.shape[0], self._n_orientations, n_features, n_features)
        matrix[..., self._below[0], self._below[1]] = skew.reshape(skew.shape[0], self._n_orientations, -1)
        matrix = matrix - matrix.mT
        identity = torch.eye(n_features, dtype=skew.dtype, device=skew.device)
        orientations: Tensor = torch.linalg.solve(identity + matrix, identity - matrix)
        return orientations

    @override
    def rows_of(self, components: Components) -> Tensor:
        parts = [components.log_weights, components.means.flatten(1)]
        covariances = components.covariances()
        skew = components.means.new_zeros(components.means.shape[0], 0)
        if components.diagonal:
            logarithms = covariances.log()
        else:
            logarithms, orientations = self._eigen(covariances)
            skew = _skew_of(orientations)[..., self._below[0], self._below[1]].flatten(1)
        if self._own_volumes:
            volumes = logarithms.mean(-1)
            parts.append(volumes)
            logarithms = logarithms - volumes.unsqueeze(-1)
        return torch.cat([*parts, logarithms[:, : self._n_shapes].flatten(1), skew], dim=1)

    def _eigen(self, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Log eigenvalues (R, K, D) and orientations (R, 1 or K, D, D) of covariances of the family."""
        if self._n_orientations > 1 or covariances.shape[1] == 1:
            values, orientations = torch.linalg.eigh(covariances)
            return values.log(), orientations
        # A sum with uneven weights has the common axes and, but for chance, no eigenvalue twice.
        n_components = covariances.shape[1]
        uneven = torch.linspace(1.0, 2.0, n_components, dtype=covariances.dtype, device=covariances.device)
        _, orientation = torch.linalg.eigh((uneven[:, None, None] * covariances).sum(1, keepdim=True))
        values = (orientation.mT @ covariances @ orientation).diagonal(dim1=-2, dim2=-1)
        return values.log(), orientation


def _complete_log_likelihood(components: Components, statistics: Statistics) -> Tensor:
    """sum_k counts_k (log weight_k + log|U_k|) - tr(U_k^T S_k U_k) / 2, over all restarts.

    Its gradient is that of the log-likelihood, by Fisher's identity.
    """
    _, second = statistics.about(components.means)
    cholesky = components.precisions_cholesky
    if components.diagonal:
        squares = (cholesky.square() * second).sum(-1)
    else:
        squares = (cholesky * (second @ cholesky)).sum((-2, -1))
    logarithms = components.log_weights + components.log_determinants()
    objective: Tensor = (statistics.counts * logarithms - 0.5 * squares).sum()
    return objective


def _copied(statistics: Statistics) -> Statistics:
    origin = None if statistics.origin is None else statistics.origin.clone()
    return Statistics(
        statistics.log_likelihood.clone(),
        statistics.counts.clone(),
        statistics.first.clone(),
        statistics.second.clone(),
        origin,
    )


def _skew_of(orientations: Tensor) -> Tensor:
    """The skew-symmetric S of (I - S)(I + S)^-1 = orientation, after flipping axes so that S is small.

    The sign of an axis changes no covariance; some choice of signs keeps every entry of S within one, and
    flipping while |det(I + orientation)| grows finds a good one.
    """
    n_features = orientations.shape[-1]
    identity = torch.eye(n_features, dtype=orientations.dtype, device=orientations.device)
    turned = orientations.clone()
    size = torch.linalg.det(identity + turned).abs()
    for axis in [*range(n_features)] * 2:
        flipped = turned.clone()
        flipped[..., axis] *= -1
        other = torch.linalg.det(identity + flipped).abs()
        better = other > size
        turned = torch.where(better[..., None, None], flipped, turned)
        size = torch.where(better, other, size)
    skew: Tensor = torch.linalg.solve(identity + turned, identity - turned)
    return skew
