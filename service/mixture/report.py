"""From candidates to the report of a fit: criteria, the choice, and the result's fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.mixture.blocked_points import Points, blocks_of
from service.mixture.candidates import Candidate, Optimum
from service.mixture.gaussian_mixture import GaussianMixture
from service.mixture.options import FitOptions
from service.mixture.pieces import Pieces
from service.mixture.scores import Scores, log_likelihood, score, total_weight
from service.mixture.shards import Group

_INTERRUPTIONS = {
    "cancelled": "the fit was cancelled before it ended",
    "timed_out": "the fit ran out of time; allow more, or lower max_steps or n_init",
    "released": "the fit was interrupted; its last checkpoint goes on from there",
}
_COLLAPSE = (
    "all {n} restarts collapsed: a covariance or a weight went to zero; ask for fewer components, raise"
    " regularization, or choose a covariance_type with fewer parameters (tied, diag or spherical)"
)
_NON_FINITE = (
    "no restart survived, and the log-likelihood of some was no longer finite; lower the learning_rate, raise"
    " regularization, or ask for fewer components"
)


@dataclass(frozen=True)
class FitReport:
    """What a fit ends in.

    Attributes:
        outcome: of the winning restart; collapsed or non_finite when none survived; cancelled,
            timed_out or released.
        message: a sentence for people, above all on what to change when there is no mixture.
        mixture: in canonical order and data units; None when there is none.
        result: the fields of the HTTP contract's result, ready for JSON; empty when interrupted.
    """

    outcome: str
    message: str
    mixture: GaussianMixture | None
    result: dict[str, Any]


def interrupted(outcome: str) -> FitReport:
    """The report of a fit that was asked to end."""
    return FitReport(outcome, _INTERRUPTIONS.get(outcome, outcome), None, {})


@dataclass(frozen=True, eq=False)
class _Row:
    """A candidate with its winner, scored."""

    candidate: Candidate
    optimum: Optimum
    mixture: GaussianMixture
    scores: Scores
    held_out_log_likelihood: float | None

    def cost(self, criterion: str) -> float:
        """What the choice minimises."""
        if criterion == "held_out":
            return -(self.held_out_log_likelihood or 0.0)
        return float(getattr(self.scores, criterion))


class Table:
    """All candidates of a fit, on all of its points.

    Points are a rank's, (D, n) in data units, weights (n,) or None; held_out is for the criterion of that
    name. The points are looked at in pieces, whose journal keeps what they came to.
    """

    def __init__(
        self,
        options: FitOptions,
        candidates: list[Candidate],
        points: Points,
        weights: Tensor | None,
        held_out: tuple[Points, Tensor | None] | None,
        group: Group,
        pieces: Pieces,
    ) -> None:
        self._options = options
        self._candidates = candidates
        self._points = points
        self._weights = weights
        self._held_out = held_out
        self._group = group
        self._pieces = pieces
        own_total = torch.tensor([total_weight(points, weights)], dtype=torch.float64)
        self._total = float(group.summed(own_total)[0])

    def report(self, *, device: str, elapsed_seconds: Callable[[], float]) -> FitReport:
        """The report, with the winner's fields and a row for every candidate.

        Raises:
            Interrupted: the fit was asked to end.
        """
        rows = [
            self._scored(candidate, self._pieces.under(str(place)))
            for place, candidate in enumerate(self._candidates)
        ]
        survivors = [row for row in rows if row is not None]
        table = [self._candidate_fields(c, r) for c, r in zip(self._candidates, rows, strict=True)]
        if not survivors:
            return self._failed(table)
        criterion = self._options.criterion
        winner = min(survivors, key=lambda row: (row.optimum.spurious, row.cost(criterion)))
        end = winner.optimum.end
        result = {
            **self._fields(winner),
            "outcome": end.outcome,
            "mean_log_likelihood": winner.scores.log_likelihood / self._total,
            "n_steps": end.n_steps,
            "n_passes": end.n_passes,
            "elapsed_seconds": 0.0,
            "device": device,
            "dtype": self._options.dtype,
            "optimizer": winner.candidate.optimizer,
            "optima": self._optima(winner.candidate),
            "candidates": table,
            "closed_form": self._closed_form(winner),
        }
        result["elapsed_seconds"] = elapsed_seconds()
        return FitReport(end.outcome, _message(winner), winner.mixture, result)

    def _scored(self, candidate: Candidate, pieces: Pieces) -> _Row | None:
        optimum = candidate.best
        if optimum is None:
            return None
        mixture = candidate.mixture(optimum)
        scores = score(mixture, self._points, self._weights, candidate.n_parameters, self._group, pieces)
        held_out = None
        if self._held_out is not None:
            held_out = log_likelihood(mixture, *self._held_out, self._group, pieces.under("held out"))
        return _Row(candidate, optimum, mixture, scores, held_out)

    def _fields(self, row: _Row) -> dict[str, Any]:
        return {
            "n_components": row.candidate.n_components,
            "covariance_type": row.candidate.family.name,
            "log_likelihood": row.scores.log_likelihood,
            "n_parameters": row.candidate.n_parameters,
            "bic": row.scores.bic,
            "aic": row.scores.aic,
            "icl": row.scores.icl,
            "held_out_log_likelihood": row.held_out_log_likelihood,
        }

    def _candidate_fields(self, candidate: Candidate, row: _Row | None) -> dict[str, Any]:
        optima = self._optima(candidate)
        if row is not None:
            return {**self._fields(row), "outcome": row.optimum.end.outcome, "optima": optima}
        names = ("log_likelihood", "bic", "aic", "icl", "held_out_log_likelihood")
        return {
            "n_components": candidate.n_components,
            "covariance_type": candidate.family.name,
            "n_parameters": candidate.n_parameters,
            **dict.fromkeys(names),
            "outcome": candidate.optima[0].end.outcome,
            "optima": optima,
        }

    def _optima(self, candidate: Candidate) -> list[dict[str, Any]]:
        """Distinct optima, best first, each with the number of restarts that ended in it."""
        distinct: list[dict[str, Any]] = []
        near = 3 * max(self._options.tolerance, 1e-7)
        for optimum in candidate.optima:
            value = candidate.mean_log_likelihood(optimum) if optimum.survived else None
            fields = {
                "mean_log_likelihood": value,
                "hits": 1,
                "outcome": optimum.end.outcome,
                "smallest_eigenvalue": optimum.smallest_eigenvalue if optimum.survived else None,
                "smallest_weight": optimum.smallest_weight if optimum.survived else None,
                "spurious": optimum.spurious,
            }
            last = distinct[-1] if distinct else None
            if last is not None and _same(last, fields, near):
                last["hits"] += 1
            else:
                distinct.append(fields)
        return distinct

    def _closed_form(self, row: _Row) -> dict[str, Any] | None:
        """For one component, the maximum-likelihood parameters as sums over the points."""
        if row.candidate.n_components != 1:
            return None
        shift, covariance = self._weighted_covariance()
        reduced = _single_component_covariance(row.candidate, covariance)
        mixture = GaussianMixture(
            torch.ones(1, dtype=torch.float64), shift[None], reduced, row.candidate.family.storage_type
        )
        try:
            pieces = self._pieces.under("closed form")
            value: float | None = log_likelihood(mixture, self._points, self._weights, self._group, pieces)
        except RuntimeError:  # fewer points than features: no density, so no likelihood
            value = None
        described = {
            "weights": [1.0],
            "means": mixture.means.tolist(),
            "covariances": mixture.covariances.tolist(),
            "covariance_type": mixture.covariance_type,
        }
        return {"mixture": described, "log_likelihood": value}

    def _weighted_covariance(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) of all points, float64, block by block."""
        points, weights = self._points, self._weights
        mean = torch.zeros(points.shape[0], dtype=torch.float64)
        covariance = torch.zeros(points.shape[0], points.shape[0], dtype=torch.float64)
        for columns in blocks_of(points):
            part = points[:, columns].double()
            mean += part.sum(1) if weights is None else part @ weights[columns].double()
        (mean,) = self._group.summed(mean)
        mean /= self._total
        for columns in blocks_of(points):
            centred = points[:, columns].double() - mean[:, None]
            weighted = centred if weights is None else centred * weights[columns].double()
            covariance += weighted @ centred.T
        (covariance,) = self._group.summed(covariance)
        return mean, covariance / self._total

    def _failed(self, table: list[dict[str, Any]]) -> FitReport:
        outcomes = {optimum.end.outcome for candidate in self._candidates for optimum in candidate.optima}
        outcome = "non_finite" if "non_finite" in outcomes else "collapsed"
        n_restarts = sum(len(candidate.optima) for candidate in self._candidates)
        message = _NON_FINITE if outcome == "non_finite" else _COLLAPSE.format(n=n_restarts)
        result = {"outcome": outcome, "optima": self._optima(self._candidates[0]), "candidates": table}
        return FitReport(outcome, message, None, result)


def _single_component_covariance(candidate: Candidate, covariance: Tensor) -> Tensor:
    """The closed-form covariance of one component in the family, in the layout it is stored in."""
    family = candidate.family
    shares = covariance.diagonal() if family.diagonal else covariance
    weights = torch.ones(1, 1, dtype=torch.float64)
    reduced = family.reduce(weights, shares[None, None])[0]
    return family.stored(reduced).contiguous()


def _same(one: dict[str, Any], other: dict[str, Any], near: float) -> bool:
    if one["outcome"] != other["outcome"] or one["spurious"] != other["spurious"]:
        return False
    first, second = one["mean_log_likelihood"], other["mean_log_likelihood"]
    if first is None or second is None:
        return first is second
    return bool(abs(first - second) <= near * max(1.0, abs(first)))


def _message(row: _Row) -> str:
    if row.optimum.spurious:
        return (
            "a component lies at the regularisation floor (its points coincide or lie in a plane), and no"
            " restart found another optimum; ask for fewer components or raise regularization"
        )
    if row.optimum.end.outcome == "max_steps_reached":
        return "the fit ran all of its steps; raise max_steps if the log-likelihood was still growing"
    return "the fit converged"
