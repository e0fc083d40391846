"""Where restarts begin: k-means++, k-means, the exercise's random start, a given mixture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from service.mixture.blocked_points import in_memory
from service.mixture.components import Components, concatenate
from service.mixture.families import Family
from service.mixture.families.family import invert_cholesky
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.invalid import InvalidFit
from service.mixture.kmeans import averages, lloyd, members, n_trials, spread_centres
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.standardization import StandardizedPoints
from service.mixture.statistics import StatisticsPass

# Centres are sought among so many points at least, so many for each component, so many for each feature.
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT = 1_000, 100
SUBSAMPLE_PER_FEATURE = 50
# With more numbers than this in the covariances, refined centres win and two sets are enough.
MANY_NUMBERS = 1_000
# How long starts are looked at before the best is chosen, and how far kept from spurious optima meanwhile.
SCREENING_STEPS, SCREENING_TOLERANCE, SCREENING_REGULARIZATION = 20, 1e-4, 1e-3
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
    lloyd_steps: tuple[int, ...],
) -> Components:
    """Centres by k-means++ and Lloyd's steps in whitened coordinates, one pooled covariance around them.

    Whitening makes the choice blind to the scale and direction of features: an elongated cloud is
    not cut across merely because it is long. Every restart tries as many sets of centres as ``lloyd_steps``
    has entries, each refined so often (refined ones are best in many dimensions, bare ones find optima that
    k-means would never start near), and goes on from the one that is the most likely after some steps of em.

    References:
        Biernacki, Celeux, Govaert, "Choosing starting values for the EM algorithm for getting the highest
        likelihood in multivariate Gaussian mixture models", 2003.
    """
    sample = _subsample(data, n_components, generators[0].initial_seed())
    points = in_memory(sample.points).T.double().cpu().contiguous()
    flat = points if family.common_scale else _whiten(points)
    if n_components * data.n_features**2 > MANY_NUMBERS:
        lloyd_steps = lloyd_steps[:2]
    shape = (len(lloyd_steps), n_components, n_trials(n_components))
    drawn = [torch.rand(shape, dtype=torch.float64, generator=generator) for generator in generators]
    uniforms = torch.stack(drawn, dim=1)
    parts = []
    for steps, numbers in zip(lloyd_steps, uniforms, strict=True):
        centres = lloyd(flat, spread_centres(flat, numbers), steps)
        parts.append(_around(data, family, points, members(flat, centres)))
    if len(parts) == 1:
        return parts[0]
    return _most_likely(sample, family, parts)


def _around(data: StandardizedPoints, family: Family, points: Tensor, member: Tensor) -> Components:
    """Components at the means of clusters (R, K, n) of points (n, D), with their pooled covariance."""
    n_features = points.shape[1]
    whole = points.mean(0).expand(*member.shape[:2], n_features)
    sizes, means = averages(points, member, whole)
    shares = sizes / points.shape[0]
    second = points.T @ points / points.shape[0]
    between = (means * shares.unsqueeze(-1)).mT @ means
    # Within clusters there may be no room at all: a little of the whole spread keeps the covariance regular.
    pooled = second - between + 1e-3 * torch.eye(n_features, dtype=torch.float64)
    covariances = pooled.unsqueeze(1).expand(*means.shape, n_features)
    if family.diagonal:
        covariances = covariances.diagonal(dim1=-2, dim2=-1)
    weights = shares + SMALLEST_SHARE / member.shape[1]
    return _built(data, family, weights / weights.sum(1, keepdim=True), means, covariances)


def _most_likely(sample: StandardizedPoints, family: Family, parts: list[Components]) -> Components:
    """For each restart, the most likely of its starts after some steps of em on a sample, as it is then."""
    statistics = StatisticsPass(
        sample,
        diagonal=family.diagonal,
        radial=family.radial,
        regularization=SCREENING_REGULARIZATION,
        error_bound=0.01 * SCREENING_TOLERANCE,
    )
    components = concatenate(parts)
    n_components, n_features = components.means.shape[1:]
    values = components.means.new_full((components.means.shape[0],), -torch.inf)
    for _ in range(SCREENING_STEPS):
        sums = statistics(components)
        before, values = values, sums.log_likelihood / sample.total_weight
        if bool((values - before < SCREENING_TOLERANCE).all()):
            break
        following, valid = from_coordinates(family, coordinates(family, sums), n_components, n_features)
        components = following if bool(valid.all()) else _replaced(components, following, valid)
    values = values.view(len(parts), -1)
    best = values.nan_to_num(nan=-torch.inf).argmax(0)
    n_restarts = values.shape[1]
    return components.rows(best * n_restarts + torch.arange(n_restarts, device=best.device))


def _replaced(components: Components, following: Components, valid: Tensor) -> Components:
    """Those following where valid (R,), the others as they were."""
    both = concatenate([following, components])
    index = torch.arange(valid.shape[0], device=valid.device)
    return both.rows(torch.where(valid, index, index + valid.shape[0]))


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


def _subsample(data: StandardizedPoints, n_components: int, seed: int) -> StandardizedPoints:
    """Enough points to find clusters among, drawn by their weight; the same for all restarts of a fit."""
    most = max(SUBSAMPLE, SUBSAMPLE_PER_COMPONENT * n_components, SUBSAMPLE_PER_FEATURE * data.n_features)
    if data.weights is None and data.n_samples <= most:
        return data
    return data.sample(min(most, data.n_samples), torch.Generator().manual_seed(seed))


def _whiten(sample: Tensor) -> Tensor:
    """The sample (n, D) with unit covariance; directions without spread keep their scale."""
    centred = sample - sample.mean(0)
    covariance = centred.T @ centred / sample.shape[0]
    covariance.diagonal().add_(1e-6)
    cholesky, _ = invert_cholesky(covariance)
    return centred @ cholesky


Start = Callable[[StandardizedPoints, Family, int, list[torch.Generator]], Components]

STARTS: dict[str, Start] = {
    "kmeans++": partial(clustered_start, lloyd_steps=(10, 0, 0, 0)),
    "kmeans": partial(clustered_start, lloyd_steps=(50,)),
    "random": random_start,
}
