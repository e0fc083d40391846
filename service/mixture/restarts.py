"""The loop around an optimiser: restarts side by side, each ending for its own reason."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from service.mixture.components import Components
from service.mixture.optimizers.optimizer import Objective, Optimizer, State, select_rows

# step, restarts ended, best mean objective, the running restarts' current ones -> an outcome to end with.
Watch = Callable[[int, int, float, tuple[float, ...]], str | None]


@dataclass(frozen=True, eq=False)
class RestartEnd:
    """How one restart ended.

    Attributes:
        components: R = 1, where it stood.
        outcome: converged, max_steps_reached, collapsed, non_finite, cancelled or timed_out.
        n_steps: updates of its parameters.
        n_passes: passes over the data.
    """

    components: Components
    outcome: str
    n_steps: int
    n_passes: float


@dataclass
class Plateau:
    """The stopping rule of one restart: the mean objective of a window against that of the window before.

    A restart has converged when it gained at most ``tolerance`` times max(1, |objective|) nats per point, and
    where an optimiser says how much it expects still to gain, when that is as little. A tolerance of zero
    never ends a restart.
    """

    tolerance: float
    window: int
    values: deque[float] = field(init=False)

    def __post_init__(self) -> None:
        self.values = deque(maxlen=2 * self.window)

    def reached(self, value: float, decrement: float) -> bool:
        """Whether the restart has converged with this value of its objective."""
        self.values.append(value)
        if self.tolerance == 0.0 or len(self.values) < 2 * self.window:
            return False
        allowed = self.tolerance * max(1.0, abs(value))
        if decrement > allowed:
            return False
        if self.window == 1:
            return self.values[1] - self.values[0] <= allowed
        recent = list(self.values)
        gain = (sum(recent[self.window :]) - sum(recent[: self.window])) / self.window
        return abs(gain) <= allowed


def run_restarts(
    objective: Objective,
    optimizer: Optimizer,
    starts: Components,
    generators: list[torch.Generator],
    *,
    tolerance: float,
    max_steps: int,
    watch: Watch,
) -> list[RestartEnd]:
    """Runs every start to its end; one end for each, in order."""
    n_restarts = starts.means.shape[0]
    ends: list[RestartEnd | None] = [None] * n_restarts
    running = list(range(n_restarts))
    rules = [Plateau(tolerance, optimizer.window) for _ in running]
    state = optimizer.start(objective, starts, generators)
    n_steps = 0
    best = -math.inf
    while running:
        state = optimizer.step(objective, state)
        n_steps += 1
        values: list[float] = state["log_likelihood"].tolist()
        finite = [value for value in values if math.isfinite(value)]
        best = max(best, *finite) if finite else best
        asked = watch(n_steps, n_restarts - len(running), best, tuple(finite))
        outcomes = _outcomes(state, values, [rules[i] for i in running])
        if asked is not None or n_steps >= max_steps:
            outcomes = [outcome or asked or "max_steps_reached" for outcome in outcomes]
        if any(outcomes):
            components = optimizer.components(objective, state)
            for row, (restart, outcome) in enumerate(zip(running, outcomes, strict=True)):
                if outcome:
                    one = components.rows(torch.tensor([row], device=components.means.device))
                    ends[restart] = RestartEnd(one, outcome, n_steps, n_steps * optimizer.passes_per_step)
            going = [row for row, outcome in enumerate(outcomes) if not outcome]
            running = [running[row] for row in going]
            state = _shrunk(state, going)
    return [end for end in ends if end is not None]


def _outcomes(state: State, values: list[float], rules: list[Plateau]) -> list[str | None]:
    """What each running restart ended with at this step, or None."""
    decrements = state["decrement"].tolist() if "decrement" in state else [0.0] * len(values)
    outcomes: list[str | None] = []
    for value, decrement, valid, rule in zip(values, decrements, state["valid"].tolist(), rules, strict=True):
        if math.isnan(value) or value == math.inf:
            outcomes.append("non_finite")
        elif not valid:
            outcomes.append("collapsed")
        elif rule.reached(value, decrement):
            outcomes.append("converged")
        else:
            outcomes.append(None)
    return outcomes


def _shrunk(state: State, going: list[int]) -> State:
    index = torch.tensor(going, dtype=torch.int64)
    return select_rows(state, index)
