"""Where restarts begin: k-means++, k-means, the exercise's random start, a given mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from service.mixture.arrays import Array
from service.mixture.blocked_points import in_memory
from service.mixture.components import Components
from service.mixture.families import Family
from service.mixture.families.family import invert_cholesky
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.invalid import InvalidFit
from service.mixture.journal import Entry, components_of, entry_of_components, note, told
from service.mixture.kmeans import clusters_by_piece, lloyd, n_trials, product, spread_centres
from service.mixture.pieces import Pieces
from service.mixture.screening import Screened, screened
from service.mixture.standardization import StandardizedPoints

# Centres are sought among so many points at least, so many for each component, so many for each feature;
# where there are many components, among fewer for each.
SUBSAMPLE, SUBSAMPLE_PER_COMPONENT, SUBSAMPLE_PER_FEATURE = 1_000, 100, 50
SUBSAMPLE_OF_COMPONENTS, SMALLEST_PER_COMPONENT = 5_000, 20
# With more numbers than this in the covariances only refined centres win.
MANY_NUMBERS = 1_000
# A restart tries several sets of centres while together they have no more responsibilities than this.
CHEAP_NUMBERS = 1 << 13
# A start's weights keep this share of an equal one, so that no component starts dead.
SMALLEST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class Starts:
    """Where restarts begin, and which of them begin alike.

    Attributes:
        components: of R restarts.
        groups: restarts that begin at the same mixture; if they were compared, the most promising first.
        compared: whether they were.
        behind: restarts that are not likely to be the best.
        floored: restarts that are on their way to a spurious optimum.
    """

    components: Components
    groups: list[list[int]]
    compared: bool = False
    behind: frozenset[int] = frozenset()
    floored: frozenset[int] = frozenset()


def entry_of_starts(starts: Starts) -> Entry:
    """Starts as a journal keeps them."""
    about = {
        "groups": starts.groups,
        "compared": starts.compared,
        "behind": sorted(starts.behind),
        "floored": sorted(starts.floored),
    }
    return {"starts": note(about), **entry_of_components(starts.components)}


def starts_of(entry: Entry, device: torch.device) -> Starts:
    """What ``entry_of_starts`` put away."""
    about = told(entry["starts"])
    return Starts(
        components_of(entry, device),
        about["groups"],
        about["compared"],
        frozenset(about["behind"]),
        frozenset(about["floored"]),
    )


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


def _each_alone(components: Components) -> Starts:
    return Starts(components, [[restart] for restart in range(components.means.shape[0])])


def clustered_start(
    data: StandardizedPoints,
    family: Family,
    n_components: int,
    generators: list[torch.Generator],
    lloyd_steps: tuple[int, ...],
    pieces: Pieces | None = None,
) -> Starts:
    """Centres by k-means++ and Lloyd's steps in whitened coordinates, one pooled covariance around them.

    Whitening makes the choice blind to the scale and direction of features: an elongated cloud is
    not cut across merely because it is long. A restart tries up to as many sets of centres as ``lloyd_steps``
    has entries, each refined so often (refined ones are best in many dimensions, bare ones find optima that
    k-means would never start near), and goes on from the one that is the most likely after some steps of em.

    References:
        Biernacki, Celeux, Govaert, "Choosing starting values for the EM algorithm for getting the highest
        likelihood in multivariate Gaussian mixture models", 2003.
    """
    pieces = pieces or Pieces()
    sample = _subsample(data, n_components, generators[0].initial_seed())
    n_sets = _n_sets(n_components, sample, len(lloyd_steps))
    points: Array = in_memory(sample.points).T.double().cpu().numpy()
    shift = points.mean(0)
    flat = points - shift
    unwhiten = None
    if not family.common_scale:
        flat, unwhiten = _whitened(flat)
    drawn = [
        torch.rand((n_sets, n_components, n_trials(n_components)), dtype=torch.float64, generator=generator)
        for generator in generators
    ]
    centres = spread_centres(flat, torch.cat(drawn).numpy(), pieces)
    for place, steps in enumerate(lloyd_steps[:n_sets]):
        if steps:
            centres[place::n_sets] = lloyd(flat, centres[place::n_sets], steps, pieces.under(f"set {place}"))
    sizes, sums = clusters_by_piece(flat, centres, pieces)
    means = sums / np.maximum(sizes, 1)[..., None]
    if unwhiten is not None:
        means = means @ unwhiten
    components = _around(data, family, points, sizes, means + shift)
    return _best_of(screened(sample, family, components, pieces), n_sets)


def _n_sets(n_components: int, sample: StandardizedPoints, most: int) -> int:
    """How many sets of centres a restart tries."""
    if n_components * sample.n_features**2 > MANY_NUMBERS:
        return 1
    return max(1, min(most, CHEAP_NUMBERS // (n_components * sample.n_samples)))


def _around(
    data: StandardizedPoints, family: Family, points: Array, sizes: Array, means: Array
) -> Components:
    """Components at these means (R, K, D), with the pooled covariance of points (n, D) around them."""
    n_samples, n_features = points.shape
    shares = sizes / sizes.sum(1, keepdims=True)
    second = product(points.T, points) / n_samples
    between = np.swapaxes(means * shares[..., None], 1, 2) @ means
    # Within clusters there may be no room at all: a little of the whole spread keeps the covariance regular.
    pooled = torch.from_numpy(second - between + 1e-3 * np.eye(n_features))
    covariances = pooled.unsqueeze(1).expand(*means.shape, n_features)
    if family.diagonal:
        covariances = covariances.diagonal(dim1=-2, dim2=-1)
    weights = torch.from_numpy(shares + SMALLEST_SHARE / means.shape[1])
    weights = weights / weights.sum(1, keepdim=True)
    return _built(data, family, weights, torch.from_numpy(means), covariances)


def _best_of(found: Screened, n_sets: int) -> Starts:
    """For each restart the most likely of its sets of centres; restarts at the same mixture grouped."""
    n_restarts = len(found.values) // n_sets
    chosen = [
        max(range(restart * n_sets, (restart + 1) * n_sets), key=lambda row: found.values[row])
        for restart in range(n_restarts)
    ]
    groups: dict[int, list[int]] = {}
    order = sorted(range(n_restarts), key=lambda i: (found.floored[chosen[i]], -found.values[chosen[i]]))
    for restart in order:
        groups.setdefault(found.alike[chosen[restart]], []).append(restart)
    return Starts(
        found.components.rows(torch.tensor(chosen)),
        list(groups.values()),
        compared=True,
        behind=frozenset(restart for restart in order if found.behind[chosen[restart]]),
        floored=frozenset(restart for restart in order if found.floored[chosen[restart]]),
    )


def given_start(
    data: StandardizedPoints, family: Family, n_components: int, mixture: GaussianMixture, n_restarts: int
) -> Starts:
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
    same = start.rows(torch.zeros(n_restarts, dtype=torch.int64, device=data.points.device))
    return Starts(same, [list(range(n_restarts))])


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
    many = min(SUBSAMPLE_PER_COMPONENT * n_components, SUBSAMPLE_OF_COMPONENTS)
    most = max(
        SUBSAMPLE, many, SMALLEST_PER_COMPONENT * n_components, SUBSAMPLE_PER_FEATURE * data.n_features
    )
    if data.weights is None and data.n_samples <= most:
        return data.whole()
    return data.sample(min(most, data.n_samples), torch.Generator().manual_seed(seed))


def _whitened(centred: Array) -> tuple[Array, Array]:
    """Points (n, D) with unit covariance, and the matrix back; directions without spread keep their scale."""
    covariance = torch.from_numpy(product(centred.T, centred) / centred.shape[0])
    covariance.diagonal().add_(1e-6)
    upper, _ = invert_cholesky(covariance)
    back: Array = torch.linalg.cholesky(covariance).mT.numpy()
    return product(centred, upper.numpy()), back


# Called with points, family, K and generators, and with pieces by name.
STARTS: dict[str, Callable[..., Starts]] = {
    "kmeans++": partial(clustered_start, lloyd_steps=(10, 0, 0, 0)),
    "kmeans": partial(clustered_start, lloyd_steps=(50,)),
    "random": lambda *asked, pieces: _each_alone(random_start(*asked)),
}
