"""Expectation maximisation, sped up by Anderson acceleration that never lowers the likelihood.

An EM step is a step of gradient ascent, preconditioned by the complete data's Fisher information. Its
iteration is a fixed point problem, which Anderson's method extrapolates from the last few steps.

References:
    Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977.
    Xu, Jordan, "On convergence properties of the EM algorithm for Gaussian mixtures", 1996.
    Walker, Ni, "Anderson acceleration for fixed-point iterations", 2011.
    Henderson, Varadhan, "Damped Anderson acceleration with restarts and monotonicity control for
    accelerating EM and EM-like algorithms", 2019.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components
from service.mixture.optimizers.em_coordinates import coordinates, from_coordinates, metric, start_coordinates
from service.mixture.optimizers.optimizer import Objective, Optimizer, State

MEMORY = 8
RIDGE = 1e-10
# What rounding alone may take from a mean log-likelihood between two passes.
DROP = 1e-11
# A component with less than this share of one point has nothing left to be estimated from.
SMALLEST_COUNT = 1e-6


class ExpectationMaximization(Optimizer):
    """EM over the coordinates log weights, means, covariances, extrapolated where that climbs."""

    name = "em"

    @override
    def start(self, objective: Objective, components: Components, seeds: list[torch.Generator]) -> State:
        del seeds
        x = start_coordinates(objective.family, components)
        n_restarts, size = x.shape
        history = x.new_zeros(n_restarts, MEMORY, size)
        return {
            "x": x,
            "log_weights": components.log_weights,
            "means": components.means,
            "precisions_cholesky": components.precisions_cholesky,
            "image": x,
            "last_x": x,
            "last_residual": torch.zeros_like(x),
            "x_differences": history,
            "residual_differences": history.clone(),
            "fresh": torch.ones(n_restarts, dtype=torch.bool, device=x.device),
            "slot": torch.zeros(n_restarts, dtype=torch.int64, device=x.device),
            "best": x.new_full((n_restarts,), -torch.inf),
            "log_likelihood": x.new_full((n_restarts,), -torch.inf),
            "decrement": x.new_full((n_restarts,), torch.inf),
            "valid": torch.ones(n_restarts, dtype=torch.bool, device=x.device),
        }

    @override
    def step(self, objective: Objective, state: State) -> State:
        current = Components(state["log_weights"], state["means"], state["precisions_cholesky"])
        statistics = objective.statistics(current)
        total = objective.statistics.data.total_weight
        log_likelihood = statistics.log_likelihood / total
        image = coordinates(objective.family, statistics)
        climbed = log_likelihood >= state["best"] - DROP * state["best"].abs().clamp_min(1.0)
        climbed |= torch.isinf(state["best"])
        kept = _remember(state, image, climbed)
        scale = metric(objective, current)
        target, decrement = _extrapolate(kept, scale)
        # After a drop the plain step from the last accepted point is taken: it cannot drop.
        target = torch.where(climbed.unsqueeze(1), target, state["image"])
        image = torch.where(climbed.unsqueeze(1), image, state["image"])
        following, target, valid = _follow(objective, target, image)
        smallest = statistics.counts.amin(1) * (objective.statistics.data.n_samples / total)
        return {
            **kept,
            "x": target,
            "log_weights": following.log_weights,
            "means": following.means,
            "precisions_cholesky": following.precisions_cholesky,
            "image": image,
            "best": torch.maximum(log_likelihood, state["best"]),
            "log_likelihood": torch.where(climbed, log_likelihood, state["best"]),
            "decrement": torch.where(climbed, decrement, torch.inf),
            "valid": valid & (smallest > SMALLEST_COUNT),
        }

    def components(self, objective: Objective, state: State) -> Components:
        """One plain step beyond the best point looked at, which cannot be worse."""
        n_features = objective.statistics.data.n_features
        return from_coordinates(objective.family, state["image"], objective.n_components, n_features)[0]


def _remember(state: State, image: Tensor, climbed: Tensor) -> State:
    """The history with the latest differences in it; emptied where the last step did not climb."""
    x, residual = state["x"], image - state["x"]
    known = climbed & ~state["fresh"]
    slot = state["slot"]
    place = torch.nn.functional.one_hot(slot, MEMORY).bool() & known.unsqueeze(1)
    keep = climbed.view(-1, 1, 1)

    def pushed(history: Tensor, latest: Tensor) -> Tensor:
        return torch.where(place.unsqueeze(2), latest.unsqueeze(1), history) * keep

    return {
        **state,
        "x_differences": pushed(state["x_differences"], x - state["last_x"]),
        "residual_differences": pushed(state["residual_differences"], residual - state["last_residual"]),
        "last_x": torch.where(climbed.unsqueeze(1), x, state["last_x"]),
        "last_residual": torch.where(climbed.unsqueeze(1), residual, state["last_residual"]),
        "slot": torch.where(known, (slot + 1) % MEMORY, slot),
        "fresh": ~climbed,
    }


def _extrapolate(state: State, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Anderson's next point (R, P), and the climb that it expects, in nats per point (R,).

    The mixing minimises the residual in the Fisher metric; with the metric F, residual f and step p the
    expected climb is f^T F p / 2, as in Newton's method.
    """
    residual = state["last_residual"] * scale
    differences = state["residual_differences"] * scale.unsqueeze(1)
    gram = differences @ differences.mT
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(RIDGE * diagonal.amax(1, keepdim=True) + torch.finfo(torch.float64).tiny)
    right = differences @ residual.unsqueeze(-1)
    mixing, failed = torch.linalg.solve_ex(gram, right)
    mixing = torch.where((failed == 0).view(-1, 1, 1), mixing, 0.0).nan_to_num_()
    back = (mixing * (state["x_differences"] + state["residual_differences"])).sum(1)
    step = state["last_residual"] - back
    return state["last_x"] + step, 0.5 * (residual * (step * scale)).sum(1)


def _follow(objective: Objective, target: Tensor, image: Tensor) -> tuple[Components, Tensor, Tensor]:
    """The components at the target, or at the plain step where the target is no mixture."""
    shape = (objective.n_components, objective.statistics.data.n_features)
    components, valid = from_coordinates(objective.family, target, *shape)
    if not bool(valid.all()):
        target = torch.where(valid.unsqueeze(1), target, image)
        components, valid = from_coordinates(objective.family, target, *shape)
    return components, target, valid
