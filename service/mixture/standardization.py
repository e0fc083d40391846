"""Points in coordinates where every feature has mean zero and standard deviation one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from service.mixture.blocked_points import BlockedPoints, Points, blocks_of
from service.mixture.components import Components
from service.mixture.invalid import InvalidFit
from service.mixture.shards import ALONE, Group, Shards


@dataclass(frozen=True, eq=False)
class StandardizedPoints:
    """What a fit reads: a rank's points on their device, and the way back to data units.

    Attributes:
        points: (D, n), feature by feature, in the fit's dtype on the fit's device; or, on the CPU, where they
            lie, standardised as they are looked at.
        weights: (n,) float64 on the same device, or None when every point counts once.
        total_weight: the sum of all ranks' weights, N without them.
        shift: (D,) float64 on the CPU, data units.
        scale: (D,) float64 on the CPU, data units; the same for all features when the family needs it.
        shards: what of the N points is here, and what on other ranks.
    """

    points: Points
    weights: Tensor | None
    total_weight: float
    shift: Tensor
    scale: Tensor
    shards: Shards

    @property
    def n_features(self) -> int:
        """D."""
        return self.points.shape[0]

    @property
    def n_samples(self) -> int:
        """N, on all ranks together."""
        return self.shards.n_samples

    def log_jacobian(self) -> float:
        """What a mean log-likelihood in data units has more than one in standardised units, in nats."""
        return -float(self.scale.log().sum())

    def sample(self, size: int, generator: torch.Generator) -> StandardizedPoints:
        """So many points drawn by their weight, with replacement, each counting once; whole on every rank."""
        if self.weights is None:
            return self._chosen(torch.randint(self.n_samples, (size,), generator=generator))
        uniform = torch.rand(size, dtype=torch.float64, generator=generator)
        return self._chosen(self.shards.drawn(self.weights.cpu(), uniform))

    def whole(self) -> StandardizedPoints:
        """All points, each counting once, on every rank."""
        return self._chosen(torch.arange(self.n_samples))

    def _chosen(self, index: Tensor) -> StandardizedPoints:
        chosen = self.shards.brought_together(self.points, index)
        size = index.shape[0]
        shards = Shards(ALONE, (0, size))
        return replace(self, points=chosen, weights=None, total_weight=float(size), shards=shards)

    def into(self, means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor]:
        """Means (K, D) and covariances (K, D, D) of data units in these coordinates."""
        return (means - self.shift) / self.scale, covariances / self.scale / self.scale[:, None]

    def out_of(self, components: Components, restart: int) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (K,), means (K, D), covariances (K, D, D) or (K, D) of one restart in data units."""
        weights = components.log_weights[restart].exp().cpu()
        means = components.means[restart].cpu() * self.scale + self.shift
        one = components.rows(torch.tensor([restart], device=components.means.device))
        covariances = one.covariances()[0].cpu()
        if components.diagonal:
            return weights / weights.sum(), means, covariances * self.scale.square()
        return weights / weights.sum(), means, covariances * self.scale * self.scale[:, None]


def standardize(
    points: Points,
    sample_weights: Tensor | None,
    *,
    common_scale: bool,
    dtype: torch.dtype,
    device: str,
    group: Group = ALONE,
) -> StandardizedPoints:
    """The points shifted and scaled feature by feature.

    Args:
        points: (D, n) float32 or float64, finite; this rank's.
        sample_weights: (n,) not negative, or None.
        common_scale: one scale for all features, for families that are not closed under scaling single ones.
        dtype: of the answer's points.
        device: of the answer's points.
        group: the ranks that have the others.

    Raises:
        InvalidFit: for a feature that is the same in every point, which leaves the likelihood unbounded.
    """
    total, shift, variance, largest = _moments(points, sample_weights, group)
    # Rounding alone gives a constant feature a standard deviation of some eps times its size; moments are
    # float64 whatever the points are, so that float32 points a few of their last places apart still differ.
    rounding = 8 * torch.finfo(torch.float64).eps * largest
    constant = variance.sqrt() <= rounding
    if bool(constant.any()):
        i = int(constant.nonzero()[0][0])
        raise InvalidFit(
            f"feature {i} is constant ({float(shift[i]):.6g} in every point), so the density along"
            " it has no bound; leave that feature out",
            ("dataset",),
        )
    scale = variance.sqrt()
    if common_scale:
        scale = variance.mean().sqrt().expand_as(scale).clone()
    standard: Points
    if isinstance(points, BlockedPoints) and device == "cpu":
        standard = points.standardized(shift, scale, dtype)
    else:
        standard = torch.empty(points.shape, dtype=dtype, device=device)
        for columns in blocks_of(points):
            standard[:, columns] = ((points[:, columns].double() - shift[:, None]) / scale[:, None]).to(dtype)
    weights = None if sample_weights is None else sample_weights.double().to(device)
    shards = Shards.of(group, points.shape[1])
    return StandardizedPoints(standard, weights, total, shift.cpu(), scale.cpu(), shards)


def _moments(points: Points, weights: Tensor | None, group: Group) -> tuple[float, Tensor, Tensor, Tensor]:
    """Total weight; mean, variance and largest size of each feature, (D,) float64, in two sweeps."""
    n_features, n_samples = points.shape
    own_total = float(n_samples) if weights is None else float(weights.sum(dtype=torch.float64))
    mean = torch.zeros(n_features, dtype=torch.float64, device=points.device)
    variance, largest = mean.clone(), mean.clone()
    for columns in blocks_of(points):
        part = points[:, columns].double()
        largest = torch.maximum(largest, part.abs().amax(dim=1))
        mean += part.sum(1) if weights is None else part @ weights[columns].double()
    total, mean = group.summed(torch.tensor([own_total], dtype=torch.float64), mean)
    mean /= float(total)
    for columns in blocks_of(points):
        squares = (points[:, columns].double() - mean[:, None]).square_()
        variance += squares.sum(1) if weights is None else squares @ weights[columns].double()
    (variance,) = group.summed(variance)
    return float(total), mean, variance / float(total), group.highest(largest.cpu()).to(mean.device)
