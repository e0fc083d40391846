"""A short look at many starts, to see which are worth going on from, and which are the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from service.mixture.arrays import Numbers, library, log_sum_exp, quick, tensor_of
from service.mixture.blocked_points import in_memory
from service.mixture.components import Components, concatenate
from service.mixture.families import Family
from service.mixture.journal import Entry, components_of, entry_of_components, tensor_on
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates
from service.mixture.pieces import Pieces
from service.mixture.standardization import StandardizedPoints
from service.mixture.statistics import StatisticsPass

# How long starts are looked at, and how far they are kept from spurious optima meanwhile.
STEPS, TOLERANCE, REGULARIZATION = 12, 1e-4, 1e-3
# Multiplications in a step that is one piece of work, some seconds'; starts beyond them come after it.
PIECE_WORK = 1 << 35
# A component this many times as wide as the regularisation makes it is going to a point or a plane.
FLOOR_FACTOR = 3.0
# A start this many standard errors behind the best of a sample is not likely to be better on all points.
BEHIND = 3.0
# Mixtures are the same when their log-densities differ by so little, in nats, at the mean of so many points.
SAME, PROBES = 0.01, 200


@dataclass(frozen=True, eq=False)
class Screened:
    """Where some steps of em led.

    Attributes:
        components: of every start.
        values: mean log-likelihood of every start on the sample, nats; minus infinity where there is none.
        alike: for every start the place of the most likely one at the same mixture.
        floored: whether a component of it lies at the regularisation floor.
        behind: whether it is farther behind the most likely one than the choice of a sample explains.
    """

    components: Components
    values: list[float]
    alike: list[int]
    floored: list[bool]
    behind: list[bool]


def screened(
    sample: StandardizedPoints, family: Family, components: Components, pieces: Pieces | None = None
) -> Screened:
    """Some steps of em on a sample from every start."""
    statistics = StatisticsPass(
        sample,
        diagonal=family.diagonal,
        radial=family.radial,
        regularization=REGULARIZATION,
        error_bound=0.01 * TOLERANCE,
    )
    start_densities = log_densities_somewhere(statistics, components)
    alike = _alike(start_densities, [0.0] * components.means.shape[0])
    kept = sorted(set(alike))
    # What is not finite shows in the values; numpy need not warn of it.
    with np.errstate(all="ignore"):
        components, values = _climbed(
            statistics, family, components.rows(torch.tensor(kept)), pieces or Pieces()
        )
    densities = log_densities_somewhere(statistics, components)
    same = _alike(densities, values)
    floored = _floored(components)
    place = {row: i for i, row in enumerate(kept)}
    rows = [place[row] for row in alike]
    behind = behind_best(densities, values, floored, sample.n_samples)
    return Screened(
        components.rows(torch.tensor(rows)),
        [values[row] for row in rows],
        [kept[same[row]] for row in rows],
        [floored[row] for row in rows],
        [behind[row] for row in rows],
    )


def _climbed(
    statistics: StatisticsPass, family: Family, components: Components, pieces: Pieces
) -> tuple[Components, list[float]]:
    """The components after some steps of em, and their mean log-likelihoods one step before."""
    n_restarts, n_components, _ = components.means.shape
    work = n_components * statistics.features.n_rows * statistics.data.n_samples
    together = max(1, PIECE_WORK // work)
    parts = [
        _climbed_together(statistics, family, components.rows(slice(first, first + together)), pieces, first)
        for first in range(0, n_restarts, together)
    ]
    return concatenate([part[0] for part in parts]), [value for part in parts for value in part[1]]


def _climbed_together(
    statistics: StatisticsPass, family: Family, components: Components, pieces: Pieces, first: int
) -> tuple[Components, list[float]]:
    n_components, n_features = components.means.shape[1:]
    device = components.means.device

    def begin() -> Entry:
        values = torch.full(components.means.shape[:1], -torch.inf, dtype=torch.float64, device=device)
        return {**entry_of_components(components.quick()), "values": quick(values)}

    def step(state: Entry, n_before: int) -> tuple[Entry, bool]:
        del n_before
        at, before = components_of(state, device).quick(), quick(tensor_on(state["values"], device))
        sums = statistics(at)
        values = sums.log_likelihood / statistics.data.total_weight
        if bool((values - before < TOLERANCE).all()):
            return {**state, "values": values}, True
        following, valid = from_coordinates(family, coordinates(family, sums), n_components, n_features)
        following = following if bool(valid.all()) else _replaced(at, following, valid)
        return {**entry_of_components(following), "values": values}, False

    reached = pieces.result(f"climb {first}", begin, step, STEPS)
    values = tensor_on(reached["values"], device).nan_to_num(
        nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf
    )
    return components_of(reached, device), values.tolist()


def _alike(densities: Tensor, values: list[float]) -> list[int]:
    """For every row of log-densities (R, n) the place of the best one at the same mixture."""
    apart = torch.cdist(densities, densities, p=1.0) / densities.shape[1]
    near = (apart <= SAME).tolist()
    alike = [-1] * len(values)
    for row in sorted(range(len(values)), key=lambda row: -values[row]):
        if alike[row] < 0:
            for other in range(len(values)):
                if alike[other] < 0 and (near[row][other] or other == row):
                    alike[other] = row
    return alike


def _floored(components: Components) -> list[bool]:
    """Which mixtures have a component that only the regularisation keeps from collapsing."""
    floor = FLOOR_FACTOR * REGULARIZATION
    # No eigenvalue is below the reciprocal of the precision's trace.
    traces = components.precisions_cholesky.square().flatten(2).sum(2).amax(1)
    narrow: list[bool] = (traces > 1 / floor).tolist()
    rows = [row for row, may_be in enumerate(narrow) if may_be]
    if rows:
        smallest = components.rows(torch.tensor(rows)).smallest_eigenvalues().tolist()
        for row, eigenvalue in zip(rows, smallest, strict=True):
            narrow[row] = eigenvalue <= floor
    return narrow


def behind_best(densities: Tensor, values: list[float], floored: list[bool], n_samples: int) -> list[bool]:
    """Which mixtures are behind the best honest one by more than the choice of the points explains.

    References:
        Vuong, "Likelihood ratio tests for model selection and non-nested hypotheses", 1989.
    """
    best = max(range(len(values)), key=lambda row: (not floored[row], values[row]))
    errors = ((densities - densities[best]).std(1) / n_samples**0.5).tolist()
    return [values[best] - value > BEHIND * error for value, error in zip(values, errors, strict=True)]


def log_densities_somewhere(statistics: StatisticsPass, components: Components) -> Tensor:
    """Log-densities (R, n) of some points, float64, nats; rounding does not matter here."""
    features = statistics.features
    points = in_memory(statistics.data.points)
    some = points[:, :: max(1, points.shape[1] // PROBES)].double()
    theta = tensor_of(features.coefficients(components.quick(), 0.0))
    joint = theta.flatten(0, 1) @ features.rows_of(some)
    return log_sum_exp(joint.view(*theta.shape[:2], -1))


def _replaced(components: Components, following: Components, valid: Numbers) -> Components:
    """Those following where valid (R,), the others as they were."""
    numbers = library(valid)

    def chosen(new: Numbers, old: Numbers) -> Numbers:
        return numbers.where(valid.reshape(-1, *([1] * (new.ndim - 1))), new, old)

    return Components(
        chosen(following.log_weights, components.log_weights),
        chosen(following.means, components.means),
        chosen(following.precisions_cholesky, components.precisions_cholesky),
    )
