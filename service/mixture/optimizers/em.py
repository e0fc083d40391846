"""Expectation maximisation, sped up by Anderson acceleration that never lowers the likelihood.

An EM step is a step of gradient ascent, preconditioned by the complete data's Fisher information. Its
iteration is a fixed point problem, which Anderson's method extrapolates from the last few steps. Where the
likelihood is not concave along the last step, a fixed point is as likely a saddle as a maximum; there the
step is not extrapolated but stretched, twice as far each time that this climbs.

References:
    Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977.
    Xu, Jordan, "On convergence properties of the EM algorithm for Gaussian mixtures", 1996.
    Salakhutdinov, Roweis, "Adaptive overrelaxed bound optimization methods", 2003.
    Walker, Ni, "Anderson acceleration for fixed-point iterations", 2011.
    Henderson, Varadhan, "Damped Anderson acceleration with restarts and monotonicity control for
    accelerating EM and EM-like algorithms", 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from typing_extensions import override

from service.mixture.arrays import Numbers, at_least, at_most, library, like, quick, tensor_of
from service.mixture.components import Components
from service.mixture.optimizers.em_coordinates import (
    coordinates,
    from_coordinates,
    metric,
    packed,
    start_coordinates,
    unpacked,
)
from service.mixture.optimizers.optimizer import Objective, Optimizer, State

Arrays = dict[str, Any]

MEMORY = 8
# Points and differences of points: of each symmetric matrix in them a checkpoint keeps one triangle.
POINTS = ("x", "image", "last_x", "last_residual", "x_differences", "residual_differences")
PACKED = ":packed"
RIDGE = 1e-10
# How far a step may be stretched beyond the plain one.
STRETCH, LONGEST = 2.0, 1e4
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
            "stretch": x.new_ones(n_restarts),
            "best": x.new_full((n_restarts,), -torch.inf),
            "log_likelihood": x.new_full((n_restarts,), -torch.inf),
            "decrement": x.new_full((n_restarts,), torch.inf),
            "valid": torch.ones(n_restarts, dtype=torch.bool, device=x.device),
        }

    @override
    def kept(self, objective: Objective, state: State) -> State:
        shape = (objective.n_components, objective.statistics.data.n_features)
        kept = dict(state)
        for name in POINTS if not objective.family.diagonal else ():
            triangles = packed(state[name], *shape)
            if triangles is not None:
                kept[f"{name}{PACKED}"] = triangles
                del kept[name]
        return kept

    @override
    def restored(self, objective: Objective, state: State) -> State:
        shape = (objective.n_components, objective.statistics.data.n_features)
        return {
            name.removesuffix(PACKED): unpacked(values, *shape) if name.endswith(PACKED) else values
            for name, values in state.items()
        }

    @override
    def step(self, objective: Objective, state: State) -> State:
        # What is not finite is told by ``valid`` and the objective; numpy need not warn of it.
        with np.errstate(all="ignore"):
            after = self._step(objective, {name: quick(values) for name, values in state.items()})
        return {name: tensor_of(values) for name, values in after.items()}

    def _step(self, objective: Objective, state: Arrays) -> Arrays:
        numbers = library(state["x"])
        current = Components(state["log_weights"], state["means"], state["precisions_cholesky"])
        statistics = objective.statistics(current)
        total = objective.statistics.data.total_weight
        log_likelihood = statistics.log_likelihood / total
        image = coordinates(objective.family, statistics)
        allowed = objective.statistics.noise * at_least(abs(state["best"]), 1.0)
        climbed = (log_likelihood >= state["best"] - allowed) | numbers.isinf(state["best"])
        scale = metric(objective, current)
        kept, concave = _remember(state, image, climbed, scale)
        target, decrement, stretch = _next_point(kept, concave, scale)
        # After a drop the plain step from the last accepted point is taken: it cannot drop.
        target = numbers.where(climbed[:, None], target, state["image"])
        image = numbers.where(climbed[:, None], image, state["image"])
        following, target, valid = _follow(objective, target, image)
        smallest = numbers.amin(statistics.counts, 1) * (objective.statistics.data.n_samples / total)
        return {
            **kept,
            "x": target,
            "log_weights": following.log_weights,
            "means": following.means,
            "precisions_cholesky": following.precisions_cholesky,
            "image": image,
            "stretch": numbers.where(climbed, stretch, 1.0),
            "best": numbers.maximum(log_likelihood, state["best"]),
            "log_likelihood": numbers.where(climbed, log_likelihood, state["best"]),
            # A plain step cannot drop: where it seems to, rounding is all that is left to see.
            "decrement": numbers.where(climbed, decrement, numbers.where(state["fresh"], 0.0, np.inf)),
            "valid": valid & (smallest > SMALLEST_COUNT),
        }

    def components(self, objective: Objective, state: State) -> Components:
        """One plain step beyond the best point looked at, which cannot be worse."""
        n_features = objective.statistics.data.n_features
        point = quick(state["image"])
        return from_coordinates(objective.family, point, objective.n_components, n_features)[0].tensors()


def _remember(state: Arrays, image: Numbers, climbed: Numbers, scale: Numbers) -> tuple[Arrays, Numbers]:
    """The history with the latest differences in it, and whether the last step saw a concave likelihood (R,).

    The history is emptied where the last step did not climb, and takes no step that saw convexity: with the
    metric F, step s and change of residual f that is s^T F f >= 0.
    """
    x, residual = state["x"], image - state["x"]
    move, turn = x - state["last_x"], residual - state["last_residual"]
    known = climbed & ~state["fresh"]
    concave = ~known | ((move * turn * scale * scale).sum(1) < 0)
    numbers, slot, noted = library(x), state["slot"], known & concave
    accepted = climbed[:, None]
    history = {
        "x_differences": _with_latest(state["x_differences"], slot, noted, move, climbed),
        "residual_differences": _with_latest(state["residual_differences"], slot, noted, turn, climbed),
        "last_x": numbers.where(accepted, x, state["last_x"]),
        "last_residual": numbers.where(accepted, residual, state["last_residual"]),
        "slot": numbers.where(noted, (slot + 1) % MEMORY, slot),
        "fresh": ~climbed,
    }
    return {**state, **history}, concave


def _with_latest(history: Numbers, slot: Numbers, noted: Numbers, latest: Numbers, kept: Numbers) -> Numbers:
    """The history (R, MEMORY, P), the latest (R, P) in its slot (R,) where noted, zero where not kept."""
    if library(history) is not np:
        place = (torch.arange(MEMORY, device=slot.device) == slot[:, None]) & noted[:, None]
        return torch.where(place[..., None], latest[:, None], history) * kept[:, None, None]
    # Not as above: the arrays on the way would be large enough for memory that is new at every step.
    history, rows = history.copy(), noted.nonzero()[0]
    history[rows, slot[rows]] = latest[rows]
    if not kept.all():
        history[~kept] = 0.0
    return history


def _next_point(state: Arrays, concave: Numbers, scale: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Anderson's next point (R, P), the climb it expects in nats per point (R,), and the stretch used (R,).

    The mixing minimises the residual in the Fisher metric; with the metric F, residual f and step p the
    expected climb is f^T F p / 2, as in Newton's method. Where that is no climb, or the likelihood is not
    concave, the plain step is stretched.
    """
    plain = state["last_residual"]
    residual = plain * scale
    numbers = library(plain)
    differences = state["residual_differences"] * scale[:, None]
    gram = differences @ differences.mT
    ridge = RIDGE * numbers.amax(numbers.diagonal(gram, 0, 1, 2), 1) + torch.finfo(torch.float64).tiny
    gram.reshape(-1, MEMORY * MEMORY)[:, :: MEMORY + 1] += ridge[:, None]
    mixing = _solved(gram, differences @ residual[..., None])
    back = (mixing.mT @ (state["x_differences"] + state["residual_differences"]))[:, 0]
    mixed = plain - back
    decrement = 0.5 * (residual * (mixed * scale)).sum(1)
    stretched = ~concave | (decrement <= 0)
    stretch = numbers.where(stretched, at_most(STRETCH * state["stretch"], LONGEST), 1.0)
    step = numbers.where(stretched[:, None], plain * stretch[:, None], mixed)
    # A stretched step expects at least what the plain one does, and more than a tolerance never hides.
    expected = numbers.where(stretched, stretch * 0.5 * (residual * residual).sum(1), decrement)
    return state["last_x"] + step, expected, stretch


def _solved(matrices: Numbers, right: Numbers) -> Numbers:
    """The solutions (R, MEMORY, 1) of so many systems; zero where there is none."""
    if library(matrices) is np:
        try:
            found = np.linalg.solve(matrices, right)
            return np.where(np.isfinite(found), found, 0.0)
        except np.linalg.LinAlgError:
            pass  # torch says which of them is singular
    solution, failed = torch.linalg.solve_ex(tensor_of(matrices), tensor_of(right))
    sound = torch.isfinite(solution) & (failed == 0).view(-1, 1, 1)
    return like(matrices, torch.where(sound, solution, 0.0))


def _follow(objective: Objective, target: Numbers, image: Numbers) -> tuple[Components, Numbers, Numbers]:
    """The components at the target, or at the plain step where the target is no mixture."""
    shape = (objective.n_components, objective.statistics.data.n_features)
    components, valid = from_coordinates(objective.family, target, *shape)
    if not bool(valid.all()):
        target = library(target).where(valid[:, None], target, image)
        components, valid = from_coordinates(objective.family, target, *shape)
    return components, target, valid
