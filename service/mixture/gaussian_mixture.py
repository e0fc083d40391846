"""A Gaussian mixture as a plain value: its parameters, and the questions it answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from service.mixture import density, sampling, specification
from service.mixture.one_point import OnePoint
from service.mixture.storage_types import STORAGE_TYPES
from service.mixture.threads import threads_for


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """The parameters of a Gaussian mixture, all float64 on the CPU.

    Attributes:
        weights: (K,), not negative, summing to one.
        means: (K, D), in data units.
        covariances: in squared data units, with scikit-learn's shape for its type:
            full (K, D, D), tied (D, D), diag (K, D), spherical (K,).
        covariance_type: one of full, tied, diag, spherical.
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    covariance_type: str

    @classmethod
    def from_parameters(
        cls,
        *,
        weights: Any,
        means: Any,
        covariances: Any = None,
        covariance_type: str = "full",
        standard_deviations: Any = None,
        correlations: Any = None,
    ) -> GaussianMixture:
        """The mixture that these nested lists, arrays or tensors describe.

        Args:
            weights: (K,), summing to one within 1e-6; then normalised exactly.
            means: (K, D).
            covariances: in the shape of ``covariance_type``; or else
            covariance_type: full, tied, diag or spherical.
            standard_deviations: (K, D), in place of covariances, for full and diag.
            correlations: (K, D, D), beside standard deviations, for full.

        Raises:
            InvalidMixture: naming the value that is wrong and what would be right.
        """
        checked = specification.read(
            weights, means, covariances, covariance_type, standard_deviations, correlations
        )
        return cls(*checked, covariance_type)

    @property
    def n_components(self) -> int:
        """K."""
        return self.means.shape[0]

    @property
    def n_features(self) -> int:
        """D."""
        return self.means.shape[1]

    @property
    def n_parameters(self) -> int:
        """Free parameters: weights less one, means, and the covariances of this type."""
        n_components, n_features = self.means.shape
        storage = STORAGE_TYPES[self.covariance_type]
        return n_components * (n_features + 1) - 1 + storage.n_parameters(n_components, n_features)

    def full_covariances(self) -> Tensor:
        """The covariance of every component, (K, D, D), whatever the type."""
        storage = STORAGE_TYPES[self.covariance_type]
        return storage.expand(self.covariances, self.n_components, self.n_features)

    @cached_property
    def covariances_cholesky(self) -> Tensor:
        """(K, D, D) lower triangular L, covariance = L L^T."""
        with threads_for(0):
            lower: Tensor = torch.linalg.cholesky(self.full_covariances())
        return lower

    @cached_property
    def precisions_cholesky(self) -> Tensor:
        """(K, D, D) upper triangular U, precision = U U^T."""
        identity = torch.eye(self.n_features, dtype=torch.float64)
        with threads_for(0):
            lower: Tensor = torch.linalg.solve_triangular(self.covariances_cholesky, identity, upper=False)
        return lower.mT.contiguous()

    @cached_property
    def _whitening(self) -> Tensor:
        """What `density` multiplies differences by: precisions_cholesky, or (K, D) where it is diagonal."""
        variances = STORAGE_TYPES[self.covariance_type].variances
        if variances is None:
            return self.precisions_cholesky
        return variances(self.covariances, self.n_components, self.n_features).sqrt().reciprocal()

    @cached_property
    def log_weights(self) -> Tensor:
        """(K,), minus infinity for a weight of zero."""
        return self.weights.log()

    def ready(self) -> GaussianMixture:
        """Itself, with what questions need computed beforehand."""
        _ = self.covariances_cholesky, self._one_point
        return self

    def precisions(self) -> Tensor:
        """The inverse covariance of every component, (K, D, D)."""
        return self.precisions_cholesky @ self.precisions_cholesky.mT

    def standard_deviations(self) -> Tensor:
        """The standard deviation of every feature in every component, (K, D), in data units."""
        return self.full_covariances().diagonal(dim1=-2, dim2=-1).sqrt()

    def correlations(self) -> Tensor:
        """The correlation matrix of every component, (K, D, D)."""
        scales = self.standard_deviations()
        correlations: Tensor = self.full_covariances() / scales.unsqueeze(-1) / scales.unsqueeze(-2)
        correlations.diagonal(dim1=-2, dim2=-1).fill_(1.0)
        return correlations

    def component_log_density(self, points: Tensor) -> Tensor:
        """Log N(x; mean_k, covariance_k) of (N, D) float64 points: (N, K), nats."""
        return density.component_log_density(points, self.means, self._whitening)

    def log_density(self, points: Tensor) -> Tensor:
        """Log sum_k weight_k N(x; mean_k, covariance_k) of (N, D) float64 points: (N,), nats."""
        if points.shape[0] == 1:
            answer = self._one_point.log_density(points.numpy())
            if answer is not None:
                return torch.from_numpy(answer)
        return density.log_density(points, self.log_weights, self.means, self._whitening)

    @cached_property
    def _one_point(self) -> OnePoint:
        log_peaks = self.log_weights + density.normalizers(self._whitening)
        return OnePoint(self.means.numpy(), self._whitening.numpy(), log_peaks.numpy())

    def responsibilities(self, points: Tensor) -> Tensor:
        """Posterior over the components for (N, D) float64 points: (N, K)."""
        if points.shape[0] == 1:
            answer = self._one_point.responsibilities(points.numpy())
            if answer is not None:
                return torch.from_numpy(answer)
        return density.responsibilities(points, self.log_weights, self.means, self._whitening)

    def sample(self, n_samples: int, seed: int) -> tuple[Tensor, Tensor]:
        """Independent draws in order: points (n_samples, D) and their components (n_samples,) int64.

        The first points of a seed are the same however many are drawn.
        """
        return self.sample_from_block(seed, 0, n_samples)

    def sample_blocks(self, n_samples: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What `sample` returns, in runs of `sample_block_rows` points."""
        rows = self.sample_block_rows
        for block, start in enumerate(range(0, n_samples, rows)):
            yield self.sample_from_block(seed, block, min(rows, n_samples - start))

    def sample_from_block(self, seed: int, block: int, n_samples: int) -> tuple[Tensor, Tensor]:
        """The first so many of the points that `sample` has from block * sample_block_rows on."""
        lower = self.covariances_cholesky
        return sampling.draw(self.weights, self.means, lower, seed, block, n_samples)

    @property
    def sample_block_rows(self) -> int:
        """How many points a block of samples has."""
        return sampling.block_rows(self.n_features)

    def in_canonical_order(self) -> GaussianMixture:
        """The same mixture with components by falling weight, ties by first mean, then the other means."""
        keys = [
            (-weight, *mean) for weight, mean in zip(self.weights.tolist(), self.means.tolist(), strict=True)
        ]
        order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
        storage = STORAGE_TYPES[self.covariance_type]
        covariances = self.covariances[order] if storage.per_component else self.covariances
        return GaussianMixture(self.weights[order], self.means[order], covariances, self.covariance_type)
