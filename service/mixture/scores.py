"""Figures of a finished mixture on points in data units: likelihood and the criteria made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.mixture import density
from service.mixture.arrays import log_sum_exp, tensor_of
from service.mixture.blocked_points import Points
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.journal import Entry
from service.mixture.pieces import Pieces
from service.mixture.shards import ALONE, Group

# So many chunks are looked at between two moments at which the fit may end: about a second.
CHUNKS_IN_A_PIECE = 64


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
    pieces: Pieces | None = None,
) -> Scores:
    """Scores of a mixture on all ranks' points, here (D, n) in data units, each counting weights (n,) times.

    N in the BIC is the sum of the weights, so that a point of weight two counts as two points. The points are
    looked at in ``pieces``, if they are given.

    Raises:
        Interrupted: the fit was asked to end.
    """
    log_likelihood, hardness, total = _sums(mixture, points, weights, group, pieces or Pieces())
    bic = n_parameters * math.log(total) - 2 * log_likelihood
    return Scores(log_likelihood, bic, 2 * n_parameters - 2 * log_likelihood, bic - 2 * hardness)


def log_likelihood(
    mixture: GaussianMixture,
    points: Points,
    weights: Tensor | None,
    group: Group = ALONE,
    pieces: Pieces | None = None,
) -> float:
    """The total log-likelihood of all ranks' points, here (D, n) in data units, in nats, weights counted.

    Raises:
        Interrupted: the fit was asked to end.
    """
    return _sums(mixture, points, weights, group, pieces or Pieces())[0]


def total_weight(points: Points, weights: Tensor | None) -> float:
    """How much this rank's points count."""
    return float(points.shape[1]) if weights is None else float(weights.sum(dtype=torch.float64))


def _sums(
    mixture: GaussianMixture, points: Points, weights: Tensor | None, group: Group, pieces: Pieces
) -> list[float]:
    """sum_n w_n log density, sum_n w_n ln max_k r_nk, and sum_n w_n, over all ranks."""
    mixture = mixture.ready()  # a rank without points, too, has to see that there is no density
    chunk = max(1, density.CHUNK_NUMBERS // mixture.means.numel())
    size = chunk * CHUNKS_IN_A_PIECE
    most = int(group.highest(torch.tensor([points.shape[1]], dtype=torch.float64))[0])

    def step(state: Entry, place: int) -> tuple[Entry, bool]:
        run = range(place * size, min((place + 1) * size, points.shape[1]), chunk)
        own = [_sums_of_chunk(mixture, points, weights, slice(start, start + chunk)) for start in run]
        of_piece = [math.fsum(column) for column in zip(*own, strict=True)] or [0.0] * 3
        together = group.summed(torch.tensor([of_piece], dtype=torch.float64))[0]
        return {"sums": np.concatenate([np.asarray(state["sums"]), tensor_of(together).numpy()])}, False

    done = pieces.result("sums", lambda: {"sums": np.zeros((0, 3))}, step, max(1, -(-most // size)))
    return [math.fsum(column) for column in np.asarray(done["sums"]).T]


def _sums_of_chunk(
    mixture: GaussianMixture, points: Points, weights: Tensor | None, columns: slice
) -> tuple[float, float, float]:
    part = points[:, columns].T.double()
    joint = mixture.component_log_density(part) + mixture.log_weights
    totals = log_sum_exp(joint.T)
    hardness = joint.amax(dim=1) - totals
    if weights is None:
        return float(totals.sum()), float(hardness.sum()), float(len(totals))
    counted = weights[columns]
    return (
        float((totals * counted).sum()),
        float((hardness * counted).sum()),
        float(counted.sum(dtype=torch.float64)),
    )
