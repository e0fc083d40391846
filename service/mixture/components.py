"""The components of several restarts at once: what the pass over the data reads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from service.mixture.arrays import Numbers, library, quick, tensor_of


@dataclass(frozen=True, eq=False)
class Components:
    """R mixtures of K components each, float64, in standardised coordinates.

    Tensors; or arrays of numpy's in their place, for what ``quick`` is given to.

    Attributes:
        log_weights: (R, K), each row's exponentials sum to one.
        means: (R, K, D).
        precisions_cholesky: (R, K, D, D) upper triangular U with precision = U U^T, or for diagonal
            families (R, K, D), the reciprocal standard deviations.
    """

    log_weights: Numbers
    means: Numbers
    precisions_cholesky: Numbers

    @property
    def diagonal(self) -> bool:
        """Whether covariances are diagonal and stored as such."""
        return bool(self.precisions_cholesky.ndim == 3)

    @cached_property
    def precisions(self) -> Numbers:
        """U U^T, (R, K, D, D); only for full matrices."""
        return self.precisions_cholesky @ self.precisions_cholesky.mT

    @cached_property
    def precision_diagonals(self) -> Numbers:
        """The diagonals of U U^T, (R, K, D)."""
        squares = self.precisions_cholesky * self.precisions_cholesky
        return squares if self.diagonal else squares.sum(-1)

    def covariances(self) -> Tensor:
        """(R, K, D, D), or (R, K, D) variances for diagonal families."""
        if self.diagonal:
            variances: Tensor = self.precisions_cholesky.square().reciprocal()
            return variances
        lower = self.covariances_cholesky()
        return lower @ lower.mT

    def covariances_cholesky(self) -> Tensor:
        """(R, K, D, D) lower triangular L with covariance = L L^T; only for full matrices."""
        identity = torch.eye(self.means.shape[-1], dtype=self.means.dtype, device=self.means.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.precisions_cholesky, identity, upper=True)
        return inverse.mT

    def log_determinants(self) -> Numbers:
        """sum_i log U_ii, (R, K)."""
        numbers, entries = library(self.means), self.precisions_cholesky
        if not self.diagonal:
            entries = numbers.diagonal(entries, 0, -2, -1)
        return numbers.log(entries).sum(-1)

    def smallest_eigenvalues(self) -> Tensor:
        """The smallest covariance eigenvalue of each restart, (R,), in standardised squared units."""
        covariances = self.covariances()
        if not self.diagonal:
            covariances = torch.linalg.eigvalsh(covariances)
        smallest: Tensor = covariances.amin(dim=(1, 2))
        return smallest

    def quick(self) -> Components:
        """The same for numpy where they lie on the CPU."""
        return Components(quick(self.log_weights), quick(self.means), quick(self.precisions_cholesky))

    def tensors(self) -> Components:
        """The same for torch."""
        parts = (self.log_weights, self.means, self.precisions_cholesky)
        return Components(*(tensor_of(part) for part in parts))

    def rows(self, index: Numbers) -> Components:
        """Those restarts alone."""
        return Components(self.log_weights[index], self.means[index], self.precisions_cholesky[index])


def concatenate(parts: list[Components]) -> Components:
    """All restarts of all parts, in order."""
    return Components(
        torch.cat([part.log_weights for part in parts]),
        torch.cat([part.means for part in parts]),
        torch.cat([part.precisions_cholesky for part in parts]),
    )
