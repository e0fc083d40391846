"""Figures of a finished mixture on points in data units: likelihood and the criteria made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from service.mixture import density
from service.mixture.blocked_points import Points
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.shards import ALONE, Group


@dataclass(frozen=True)
class Scores:
    """What model selection compares.

    Attributes:
        log_likelihood: total, nats, weights counted.
        bic: n_parameters ln N - 2 log_likelihood.
        aic: 2 n_parameters - 2 log_likelihood.
        icl: bic - 2 sum ln max_k r_nk.

    References:
        Schwarz, "Estimating the dimension of a model", 1978; Akaike, "A new look at the statistical model
        identification", 1974; Biernacki, Celeux, Govaert, "Assessing a mixture model for clustering with the
        integrated completed likelihood", 2000.
    """

    log_likelihood: float
    bic: float
    aic: float
    icl: float


def score(
    mixture: GaussianMixture,
    points: Points,
    weights: Tensor | None,
    n_parameters: int,
    group: Group = ALONE,
) -> Scores:
    """Scores of a mixture on all ranks' points, here (D, n) in data units, each counting weights (n,) times.

    N in the BIC is the sum of the weights, so that a point of weight two counts as two points.
    """
    log_likelihood, hardness, total = _sums(mixture, points, weights, group)
    bic = n_parameters * math.log(total) - 2 * log_likelihood
    return Scores(log_likelihood, bic, 2 * n_parameters - 2 * log_likelihood, bic - 2 * hardness)


def log_likelihood(
    mixture: GaussianMixture, points: Points, weights: Tensor | None, group: Group = ALONE
) -> float:
    """The total log-likelihood of all ranks' points, here (D, n) in data units, in nats, weights counted."""
    return _sums(mixture, points, weights, group)[0]


def total_weight(points: Points, weights: Tensor | None) -> float:
    """How much this rank's points count."""
    return float(points.shape[1]) if weights is None else float(weights.sum(dtype=torch.float64))


def _sums(
    mixture: GaussianMixture, points: Points, weights: Tensor | None, group: Group
) -> tuple[float, float, float]:
    """sum_n w_n log density, sum_n w_n ln max_k r_nk, and sum_n w_n, over all ranks."""
    mixture = mixture.ready()  # a rank without points, too, has to see that there is no density
    chunk = max(1, density.CHUNK_NUMBERS // mixture.means.numel())
    likelihoods, hardnesses = [], []
    for start in range(0, points.shape[1], chunk):
        part = points[:, start : start + chunk].T.double()
        joint = mixture.component_log_density(part) + mixture.log_weights
        totals = torch.logsumexp(joint, dim=1)
        hardness = joint.amax(dim=1) - totals
        if weights is not None:
            totals, hardness = (
                totals * weights[start : start + chunk],
                hardness * weights[start : start + chunk],
            )
        likelihoods.append(float(totals.sum()))
        hardnesses.append(float(hardness.sum()))
    own = [math.fsum(likelihoods), math.fsum(hardnesses), total_weight(points, weights)]
    sums: list[float] = group.summed(torch.tensor(own, dtype=torch.float64))[0].tolist()
    return sums[0], sums[1], sums[2]
