"""One candidate of a fit: one family and one number of components, from its starts to its optima."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from service.mixture.components import concatenate
from service.mixture.families import FAMILIES, Family
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.journal import (
    Entry,
    RestartEnd,
    components_of,
    entry_of_components,
    note,
    told,
)
from service.mixture.optimizers import Objective, make_optimizer
from service.mixture.options import FitOptions
from service.mixture.pieces import Pieces
from service.mixture.progress import ASKED
from service.mixture.restarts import Watch
from service.mixture.stages import FINISHED, Stages, spurious_floor
from service.mixture.standardization import StandardizedPoints
from service.mixture.starts import (
    STARTS,
    Starts,
    entry_of_starts,
    given_start,
    restart_generator,
    starts_of,
)
from service.mixture.statistics import StatisticsPass
from service.mixture.threads import threads_for

# On the way to an optimum a log-density need not be closer than the tolerance asked for, nor than this.
LARGEST_ERROR = 1e-6
_SURVIVED = (*FINISHED, "left_behind")


@dataclass(frozen=True, eq=False)
class Optimum:
    """Where one restart ended, and how good that is.

    Attributes:
        end: of the restart.
        mean_log_likelihood: nats per point in standardised coordinates, without regularisation.
        smallest_eigenvalue: of any covariance, in units of the features' variances.
        smallest_weight: of any component.
        spurious: whether a component lies at the regularisation floor.
    """

    end: RestartEnd
    mean_log_likelihood: float
    smallest_eigenvalue: float
    smallest_weight: float
    spurious: bool

    @property
    def survived(self) -> bool:
        """Whether there is a mixture at all."""
        return self.end.outcome in _SURVIVED


@dataclass(frozen=True, eq=False)
class Candidate:
    """A family and a number of components with all its restarts, the best first.

    Attributes:
        n_components: K.
        family: of covariances.
        optimizer: the name of the one that ran.
        data: the points, in the coordinates of the optima.
        optima: of every restart: survivors first, those left behind last of them, honest before spurious
            ones, then by likelihood.
    """

    n_components: int
    family: Family
    optimizer: str
    data: StandardizedPoints
    optima: list[Optimum]

    @property
    def best(self) -> Optimum | None:
        """The restart that wins, or None when none survived."""
        return self.optima[0] if self.optima[0].survived else None

    @property
    def n_parameters(self) -> int:
        """Free parameters."""
        return self.family.n_parameters(self.n_components, self.data.n_features)

    def mixture(self, optimum: Optimum) -> GaussianMixture:
        """The mixture of one optimum in data units and canonical order."""
        weights, means, covariances = self.data.out_of(optimum.end.components, 0)
        stored = self.family.stored(covariances)
        return GaussianMixture(weights, means, stored, self.family.storage_type).in_canonical_order()

    def mean_log_likelihood(self, optimum: Optimum) -> float:
        """Nats per point in data units."""
        return optimum.mean_log_likelihood + self.data.log_jacobian()


@torch.inference_mode()
def run_candidate(
    data: StandardizedPoints,
    n_components: int,
    covariance_type: str,
    options: FitOptions,
    watch: Watch,
    pieces: Pieces | None = None,
    name: str = "0",
) -> Candidate:
    """Fits one family with one number of components from ``options.n_init`` starts.

    Raises:
        Interrupted: the fit was asked to end before its first step.
    """
    pieces = pieces or Pieces()
    family = FAMILIES[covariance_type].for_features(data.n_features)
    optimizer = make_optimizer(options.optimizer, family, data.n_samples)
    known = pieces.journal.finished(f"{name}/optima")
    if known is not None:
        optima = _optima_of(known, data.points.device)
        return Candidate(n_components, family, optimizer.name, data, optima)
    statistics = StatisticsPass(
        data,
        diagonal=family.diagonal,
        radial=family.radial,
        regularization=options.regularization,
        error_bound=min(options.tolerance, LARGEST_ERROR),
    )
    generators = [restart_generator(options.seed, restart) for restart in range(options.n_init)]
    # The same on every rank: with another number of threads, the same step may round otherwise.
    with threads_for(0):
        stages = Stages(
            Objective(statistics, family, n_components),
            optimizer,
            generators,
            tolerance=options.tolerance,
            max_steps=options.max_steps,
            watch=watch,
            journal=pieces.journal,
            name=name,
        )
        ends = stages.run(lambda: _starts(data, family, n_components, options, generators, pieces, name))
        optima = _optima(statistics, ends)
    optima.sort(key=_rank)
    if not any(end.outcome in ASKED for end in ends):
        pieces.journal.finish(f"{name}/optima", _entry_of_optima(optima), forget=f"{name}/")
    return Candidate(n_components, family, optimizer.name, data, optima)


def _rank(optimum: Optimum) -> tuple[bool, bool, bool, float]:
    """Orders optima: those that ran their course, honest ones, likely ones first."""
    left_behind = optimum.end.outcome == "left_behind"
    return not optimum.survived, left_behind, optimum.spurious, -optimum.mean_log_likelihood


def _starts(
    data: StandardizedPoints,
    family: Family,
    n_components: int,
    options: FitOptions,
    generators: list[torch.Generator],
    pieces: Pieces,
    name: str,
) -> Starts:
    """The starts of a candidate, found now or before."""
    if options.initialization["method"] == "mixture":
        mixture = options.initialization["mixture"]
        return given_start(data, family, n_components, mixture, len(generators))
    known = pieces.journal.finished(f"{name}/starts")
    if known is not None:
        return starts_of(known, data.points.device)
    start, below = STARTS[options.initialization["method"]], f"{name}/starts/"
    found = start(data, family, n_components, generators, pieces=pieces.under(below))
    pieces.journal.finish(f"{name}/starts", entry_of_starts(found), forget=below)
    return found


def _entry_of_optima(optima: list[Optimum]) -> Entry:
    """Optima as a journal keeps them; the components that some share only once."""
    distinct = {id(optimum.end.components): optimum.end.components for optimum in optima}
    rows = {identity: row for row, identity in enumerate(distinct)}
    notes = [
        (
            rows[id(one.end.components)],
            (one.end.outcome, one.end.n_steps, one.end.n_passes),
            (one.mean_log_likelihood, one.smallest_eigenvalue, one.smallest_weight, one.spurious),
        )
        for one in optima
    ]
    return {"optima": note(notes), **entry_of_components(concatenate(list(distinct.values())))}


def _optima_of(entry: Entry, device: torch.device) -> list[Optimum]:
    """What ``_entry_of_optima`` put away."""
    notes, components = told(entry["optima"]), components_of(entry, device)
    return [
        Optimum(RestartEnd(components.rows(torch.tensor([row], device=device)), *end), *values)
        for row, end, values in notes
    ]


def _optima(statistics: StatisticsPass, ends: list[RestartEnd]) -> list[Optimum]:
    """Every end with its own likelihood, taken in one pass for all survivors."""
    survivors = [end for end in ends if end.outcome in _SURVIVED]
    optima = [Optimum(end, -float("inf"), 0.0, 0.0, False) for end in ends if end.outcome not in _SURVIVED]
    if not survivors:
        return optima
    # Restarts that share an end share one object, and one look at the points.
    distinct = list({id(end.components): end.components for end in survivors}.values())
    row_of = {id(components): row for row, components in enumerate(distinct)}
    components = concatenate(distinct)
    values = (statistics.log_likelihoods(components.quick()) / statistics.data.total_weight).tolist()
    eigenvalues = components.smallest_eigenvalues().tolist()
    weights = components.log_weights.exp().amin(1).tolist()
    floor = spurious_floor(statistics.regularization)
    for end in survivors:
        row = row_of[id(end.components)]
        spurious = eigenvalues[row] <= floor
        optima.append(Optimum(end, values[row], eigenvalues[row], weights[row], spurious))
    return optima
