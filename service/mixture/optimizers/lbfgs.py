"""Limited-memory BFGS with a bisecting line search, all restarts side by side.

Each step looks at one trial point per restart, so a step costs one pass and a state can be saved between
any two of them. (torch.optim.LBFGS handles one restart at a time, hides its line search from a caller who
wants to stop, and takes more than a second to import.)

References:
    Nocedal, Wright, "Numerical Optimization", 2006, algorithm 7.4.
    Lewis, Overton, "Nonsmooth optimization via quasi-Newton methods", 2013, algorithm 2.6.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components
from service.mixture.optimizers.optimizer import Objective, Optimizer, State

MEMORY = 10
SUFFICIENT_DECREASE, CURVATURE = 1e-4, 0.9
# A line search that has halved its interval so often sees rounding only.
SMALLEST_LENGTH = 1e-12


class LimitedMemoryBfgs(Optimizer):
    """Quasi-Newton descent on the mean negative log-likelihood of all points."""

    name = "lbfgs"
    # A trial point that is not taken gains nothing; some steps on end without gain mean an optimum.
    window = 3

    @override
    def start(self, objective: Objective, components: Components, seeds: list[torch.Generator]) -> State:
        del seeds
        rows = objective.family.unconstrained(objective.n_components, components.means.shape[-1]).rows_of(
            components
        )
        n_restarts, size = rows.shape
        zero = rows.new_zeros(n_restarts)
        return {
            "rows": rows,
            "base": rows,
            "value": zero + torch.inf,
            "gradient": torch.zeros_like(rows),
            "direction": torch.zeros_like(rows),
            "length": zero.clone(),
            "low": zero.clone(),
            "high": zero + torch.inf,
            "moves": rows.new_zeros(n_restarts, MEMORY, size),
            "turns": rows.new_zeros(n_restarts, MEMORY, size),
            "log_likelihood": zero - torch.inf,
            "valid": torch.ones(n_restarts, dtype=torch.bool, device=rows.device),
            "decrement": zero + torch.inf,
        }

    @override
    def step(self, objective: Objective, state: State) -> State:
        value, gradient = _evaluate(objective, state["rows"])
        slope = (state["gradient"] * state["direction"]).sum(1)
        first = torch.isinf(state["value"])
        sensible = torch.isfinite(value) & torch.isfinite(gradient).all(dim=1)
        low_enough = sensible & (value <= state["value"] + SUFFICIENT_DECREASE * state["length"] * slope)
        flat_enough = (gradient * state["direction"]).sum(1) >= CURVATURE * slope
        stuck = ~first & (state["length"] < SMALLEST_LENGTH)
        accepted = first & sensible | low_enough & flat_enough & ~first | stuck
        searching = _search(state, low_enough)
        moved = _accept(state, value, gradient, first | stuck)
        chosen = {
            name: torch.where(accepted.view(-1, *([1] * (values.ndim - 1))), moved[name], values)
            for name, values in searching.items()
        }
        return {
            **chosen,
            "rows": chosen["base"] + chosen["length"].unsqueeze(1) * chosen["direction"],
            "log_likelihood": -chosen["value"],
            "valid": state["valid"] & ~(first & ~sensible),
        }

    @override
    def components(self, objective: Objective, state: State) -> Components:
        form = objective.family.unconstrained(objective.n_components, objective.statistics.data.n_features)
        return form.at(state["base"])[0]


def _evaluate(objective: Objective, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The mean negative log-likelihood (R,) at rows and its gradient (R, size)."""
    data = objective.statistics.data
    form = objective.family.unconstrained(objective.n_components, data.n_features)
    components, pullback = form.at(rows)
    statistics = objective.statistics(components)
    return -statistics.log_likelihood / data.total_weight, pullback(statistics).mul_(-1.0 / data.total_weight)


def _search(state: State, low_enough: Tensor) -> State:
    """The next trial length: doubled until the interval has an upper end, then its middle."""
    low = torch.where(low_enough, state["length"], state["low"])
    high = torch.where(low_enough, state["high"], state["length"])
    length = torch.where(torch.isinf(high), 2 * low, 0.5 * (low + high))
    return {**state, "low": low, "high": high, "length": length}


def _accept(state: State, value: Tensor, gradient: Tensor, forget: Tensor) -> State:
    """A new base at the trial point, with the direction that the remembered curvature gives."""
    keep = ~forget
    move = (state["rows"] - state["base"]).unsqueeze(1)
    turn = (gradient - state["gradient"]).unsqueeze(1)
    curved = keep & ((move * turn).sum((1, 2)) > 0)
    moves = _pushed(state["moves"], move, curved) * keep.view(-1, 1, 1)
    turns = _pushed(state["turns"], turn, curved) * keep.view(-1, 1, 1)
    # Where a search got stuck the base stays: the trial point may be worse.
    stays = forget & torch.isfinite(state["value"])
    base = torch.where(stays.unsqueeze(1), state["base"], state["rows"])
    value = torch.where(stays, state["value"], value)
    gradient = torch.where(stays.unsqueeze(1), state["gradient"], gradient)
    direction = _two_loops(gradient, moves, turns)
    steepest = 1.0 / gradient.abs().sum(1).clamp_min(1.0)
    length = torch.where((turns != 0).flatten(1).any(dim=1), torch.ones_like(steepest), steepest)
    return {
        **state,
        "base": base,
        "value": value,
        "gradient": gradient,
        "direction": direction,
        "length": length,
        "low": torch.zeros_like(length),
        "high": torch.full_like(length, torch.inf),
        "moves": moves,
        "turns": turns,
        "decrement": -0.5 * length * (gradient * direction).sum(1),
    }


def _pushed(history: Tensor, latest: Tensor, chosen: Tensor) -> Tensor:
    """The history (R, m, P) with the latest at its end, where chosen."""
    return torch.where(chosen.view(-1, 1, 1), torch.cat([history[:, 1:], latest], dim=1), history)


def _two_loops(gradient: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    """The quasi-Newton direction (R, P); unused places of the history are zero and change nothing."""
    products = (moves * turns).sum(2)
    inverse = torch.where(products > 0, 1.0 / products, 0.0)
    direction = -gradient
    shares = []
    for i in reversed(range(MEMORY)):
        share = inverse[:, i] * (moves[:, i] * direction).sum(1)
        direction = direction - share.unsqueeze(1) * turns[:, i]
        shares.append(share)
    squares = turns[:, -1].square().sum(1)
    scale = torch.where(squares > 0, products[:, -1] / squares, 1.0)
    direction = direction * scale.unsqueeze(1)
    for i in range(MEMORY):
        back = inverse[:, i] * (turns[:, i] * direction).sum(1)
        direction = direction + (shares[MEMORY - 1 - i] - back).unsqueeze(1) * moves[:, i]
    return direction
