"""Where restarts begin: k-means++, k-means, the exercise's random start, a given mixture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from service.mixture.components import Components
from service.mixture.families import Family
from service.mixture.families.family import invert_cholesky
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.invalid import InvalidFit
from service.mixture.kmeans import lloyd, nearest, spread_centres
from service.mixture.standardization import StandardizedPoints

# Centres are sought among so many points, and so many for each component.
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT = 5_000, 50
# A start's weights keep this share of an equal one, so that no component starts dead.
SMALLEST_SHARE = 0.1


def restart_generator(seed: int, restart: int) -> torch.Generator:
    """The generator of one restart: its numbers depend on the seed and its place, not on its neighbours."""
    # A large odd multiplier keeps neighbouring seeds' streams apart (Knuth, TAOCP 6.4).
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + restart + 1) % (1 << 63))


def random_start(
    data: StandardizedPoints, family: Family, n_components: int, generators: list[torch.Generator]
) -> Components:
    """Weights equal, means and log standard deviations standard normal, correlations zero."""
    shape = (n_components, data.n_features)
    means, scales = [], []
    for generator in generators:
        means.append(torch.randn(shape, dtype=torch.float64, generator=generator))
        scales.append(torch.randn(shape, dtype=torch.float64, generator=generator).exp())
    variances = torch.stack(scales).square()
    weights = torch.full(variances.shape[:2], 1.0 / n_components, dtype=torch.float64)
    return _built(data, family, weights, torch.stack(means), variances)


def clustered_start(
    data: StandardizedPoints,
    family: Family,
    n_components: int,
    generators: list[torch.Generator],
    lloyd_steps: int,
) -> Components:
    """Centres by k-means++ (then Lloyd's steps) in whitened coordinates, one pooled covariance around them.

    Whitening makes the choice blind to the scale and direction of features: an elongated cloud is
    not cut across merely because it is long.
    """
    weights, means, covariances = [], [], []
    most = max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * n_components)
    whole = data.weights is None and data.n_samples <= most
    sample = points = torch.empty(0)
    for generator in generators:
        if not whole or points.numel() == 0:
            sample = _subsample(data, most, generator)
            points = sample if family.common_scale else _whiten(sample)
        centres = spread_centres(points, n_components, generator)
        labels = lloyd(points, centres, lloyd_steps) if lloyd_steps else nearest(points, centres)
        member = torch.nn.functional.one_hot(labels, n_components).double()
        sizes = member.sum(0)
        # A cluster can be empty when points coincide: it starts at its centre's own point.
        mean = torch.where(
            sizes[:, None] > 0, member.T @ sample / sizes.clamp_min(1)[:, None], sample.mean(0)
        )
        within = sample - mean[labels]
        pooled = within.T @ within / sample.shape[0]
        # Between clusters there is room: a share of the whole spread keeps the pooled covariance regular.
        pooled += 1e-3 * torch.eye(data.n_features, dtype=torch.float64)
        share = sizes / sizes.sum() + SMALLEST_SHARE / n_components
        weights.append(share / share.sum())
        means.append(mean)
        covariances.append(pooled.expand(n_components, -1, -1))
    stacked = torch.stack(covariances)
    if family.diagonal:
        stacked = stacked.diagonal(dim1=-2, dim2=-1).contiguous()
    return _built(data, family, torch.stack(weights), torch.stack(means), stacked)


def given_start(
    data: StandardizedPoints, family: Family, n_components: int, mixture: GaussianMixture, n_restarts: int
) -> Components:
    """The same given mixture, in data units, for every restart."""
    if mixture.n_features != data.n_features:
        raise InvalidFit(
            f"the initial mixture has {mixture.n_features} features, the dataset {data.n_features}",
            ("initialization", "mixture"),
        )
    if mixture.n_components != n_components:
        raise InvalidFit(
            f"the initial mixture has {mixture.n_components} components, n_components is {n_components}",
            ("initialization", "mixture"),
        )
    means, covariances = data.into(mixture.means, mixture.full_covariances())
    if family.diagonal:
        covariances = covariances.diagonal(dim1=-2, dim2=-1)
    weights = mixture.weights.clamp_min(1e-12)
    start = _built(data, family, weights[None], means[None], covariances[None])
    return start.rows(torch.zeros(n_restarts, dtype=torch.int64, device=data.points.device))


def _built(
    data: StandardizedPoints, family: Family, weights: Tensor, means: Tensor, covariances: Tensor
) -> Components:
    """Components of this family nearest to these, on the data's device."""
    if not family.diagonal and covariances.ndim == 3:
        covariances = torch.diag_embed(covariances)
    cholesky, _ = family.precisions_cholesky(weights, family.reduce(weights, covariances))
    device = data.points.device
    log_weights = torch.log_softmax(weights.log(), dim=-1)
    return Components(log_weights.to(device), means.to(device), cholesky.contiguous().to(device))


def _subsample(data: StandardizedPoints, most: int, generator: torch.Generator) -> Tensor:
    """At most so many points drawn by their weight, (n, D) float64 on the CPU."""
    points = data.points
    if data.weights is not None:
        size = min(data.n_samples, most)
        cumulative = data.weights.cpu().cumsum(0)
        uniform = torch.rand(size, dtype=torch.float64, generator=generator) * cumulative[-1]
        index = torch.searchsorted(cumulative, uniform, right=True).clamp_(max=data.n_samples - 1)
        points = points[:, index.to(points.device)]
    elif data.n_samples > most:
        index = torch.randint(data.n_samples, (most,), generator=generator)
        points = points[:, index.to(points.device)]
    return points.T.double().cpu().contiguous()


def _whiten(sample: Tensor) -> Tensor:
    """The sample (n, D) with unit covariance; directions without spread keep their scale."""
    centred = sample - sample.mean(0)
    covariance = centred.T @ centred / sample.shape[0]
    covariance.diagonal().add_(1e-6)
    cholesky, _ = invert_cholesky(covariance)
    return centred @ cholesky


Start = Callable[[StandardizedPoints, Family, int, list[torch.Generator]], Components]

STARTS: dict[str, Start] = {
    "kmeans++": partial(clustered_start, lloyd_steps=0),
    "kmeans": partial(clustered_start, lloyd_steps=50),
    "random": random_start,
}
