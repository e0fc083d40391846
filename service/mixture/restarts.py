"""The loop around an optimiser: restarts side by side, each ending for its own reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from service.mixture.components import Components
from service.mixture.journal import Entry, Journal, Loop, RestartEnd, entry_of_ends, entry_of_loop
from service.mixture.optimizers.optimizer import Objective, Optimizer, State, select_rows


@dataclass(frozen=True)
class Sight:
    """What a watcher sees of a step.

    Attributes:
        step: of the loop.
        n_ended: restarts that have ended.
        best: the best mean objective so far.
        current: the running restarts' mean objectives, by the restart's number.
        rehearsed: steps of an earlier loop on a sample that these go on from.
    """

    step: int
    n_ended: int
    best: float
    current: Mapping[int, float]
    rehearsed: int = 0


# An outcome to end with, or None to go on.
Watch = Callable[[Sight], str | None]

# A race is judged after so many steps, and the climb that an optimiser expects is trusted to this factor.
RACE_STEPS, RACE_HOPE = 6, 100.0


@dataclass(frozen=True)
class Plateau:
    """The stopping rule: the mean objective of a window of steps against that of the window before.

    A restart has converged when it gained at most ``tolerance`` times max(1, |objective|) nats per point, and
    where an optimiser says how much it expects still to gain, when that is as little. A tolerance of zero
    never ends a restart.
    """

    tolerance: float
    window: int

    def reached(self, values: list[float], decrement: float) -> bool:
        """Whether a restart with these objectives has converged; those no longer needed are dropped."""
        del values[: -2 * self.window]
        if self.tolerance == 0.0 or len(values) < 2 * self.window:
            return False
        allowed = self.tolerance * max(1.0, abs(values[-1]))
        if decrement > allowed:
            return False
        if self.window == 1:
            return values[1] - values[0] <= allowed
        gain = (sum(values[self.window :]) - sum(values[: self.window])) / self.window
        return abs(gain) <= allowed


class Shown:
    """The objective of running restarts as a watcher should see it.

    A minibatch's own value says little, and the largest of many too much: theirs are averaged, with a memory
    of one pass, and the best is the best at present. It decides nothing, so no checkpoint keeps it.

    Args:
        window: steps in a pass of minibatches; at most 1 where each step sees all points.
        best: the best so far of a loop that goes on.
    """

    def __init__(self, window: int, best: float) -> None:
        self.best = best
        self._window = window
        self._averages: dict[int, float] = {}
        self._n_steps = 0

    def of(self, running: list[int], values: list[float]) -> dict[int, float]:
        """What to show of the running restarts, by number, without those that are not finite."""
        if self._window <= 1:
            pairs = zip(running, values, strict=True)
            finite = {restart: value for restart, value in pairs if math.isfinite(value)}
            self.best = max(self.best, *finite.values()) if finite else self.best
            return finite
        self._n_steps += 1
        share = 1.0 / min(self._n_steps, self._window)
        averages = {
            restart: value + (1.0 - share) * (self._averages.get(restart, value) - value)
            for restart, value in zip(running, values, strict=True)
            if math.isfinite(value)
        }
        self._averages = averages
        self.best = max(averages.values(), default=self.best)
        return averages


def run_restarts(
    objective: Objective,
    optimizer: Optimizer,
    starts: Callable[[], Components],
    generators: list[torch.Generator],
    *,
    tolerance: float,
    max_steps: int,
    watch: Watch,
    journal: Journal,
    name: str,
    race: bool = False,
) -> list[RestartEnd]:
    """Runs every start to its end, from the beginning or from where the journal says; one end for each.

    In a race a restart that expects to end below where the best already is ends with left_behind.
    """
    finished = journal.ends(name)
    if finished is not None:
        return finished
    loop, midway = _resumed(objective, optimizer, journal, name), objective.statistics.midway
    if loop is None:
        loop = _begun(objective, optimizer, starts(), generators)
    # No rule can see a gain below the noise of a pass.
    seen = max(tolerance, objective.statistics.noise) if tolerance > 0 else 0.0
    rule = Plateau(seen, optimizer.window)
    shown = Shown(round(1 / optimizer.passes_per_step), loop.best)

    def entry() -> Entry:
        return entry_of_loop(loop, optimizer.kept(objective, loop.state)) | midway.entry()

    def offer() -> None:
        journal.offer(name, entry)

    while loop.running:
        offer()
        with midway.offering(offer):
            loop.state = optimizer.step(objective, loop.state)
        loop.n_steps += 1
        values: list[float] = loop.state["log_likelihood"].tolist()
        finite = shown.of(loop.running, values)
        loop.best = shown.best
        n_ended = len(loop.ends) - len(loop.running)
        asked = watch(Sight(loop.n_steps, n_ended, loop.best, finite))
        outcomes = _outcomes(loop, values, rule)
        if race and loop.n_steps >= RACE_STEPS:
            _leave_behind(loop, values, outcomes, seen)
        if loop.n_steps >= max_steps:
            outcomes = [outcome or "max_steps_reached" for outcome in outcomes]
        if any(outcomes):
            _take_out(objective, optimizer, loop, outcomes)
        if asked is not None:
            if asked == "released":
                # Those that have ended by themselves have; the others go on from here, in another process.
                journal.write(name, entry)
            if loop.running:
                _take_out(objective, optimizer, loop, [asked] * len(loop.running))
    journal.finish(name, entry_of_ends(loop.ends))
    return [end for end in loop.ends if end is not None]


def _resumed(objective: Objective, optimizer: Optimizer, journal: Journal, name: str) -> Loop | None:
    """The loop of this name where a checkpoint left it, if it was the one running."""
    loop = journal.loop(name)
    if loop is not None:
        loop.state = optimizer.restored(objective, loop.state)
        objective.statistics.midway.resume(journal.running(name) or {}, objective.statistics.device)
    return loop


def _begun(
    objective: Objective, optimizer: Optimizer, starts: Components, generators: list[torch.Generator]
) -> Loop:
    n_restarts = starts.means.shape[0]
    state = optimizer.start(objective, starts, generators)
    ends: list[RestartEnd | None] = [None] * n_restarts
    return Loop(state, list(range(n_restarts)), ends, [[] for _ in range(n_restarts)], 0, -math.inf)


def _outcomes(loop: Loop, values: list[float], rule: Plateau) -> list[str | None]:
    """What each running restart ended with at this step, or None."""
    state = loop.state
    decrements = state["decrement"].tolist() if "decrement" in state else [0.0] * len(values)
    outcomes: list[str | None] = []
    each = zip(values, decrements, state["valid"].tolist(), loop.windows, strict=True)
    for value, decrement, valid, window in each:
        window.append(value)
        if math.isnan(value) or value == math.inf:
            outcomes.append("non_finite")
        elif not valid:
            outcomes.append("collapsed")
        elif rule.reached(window, decrement):
            outcomes.append("converged")
        else:
            outcomes.append(None)
    return outcomes


def _leave_behind(loop: Loop, values: list[float], outcomes: list[str | None], tolerance: float) -> None:
    """Ends those of the restarts that are behind by much more than the climb they still expect."""
    if "decrement" not in loop.state:
        return
    decrements = loop.state["decrement"].tolist()
    for row, (value, decrement) in enumerate(zip(values, decrements, strict=True)):
        behind = loop.best - value - tolerance * max(1.0, abs(loop.best))
        if outcomes[row] is None and behind > RACE_HOPE * decrement:
            outcomes[row] = "left_behind"


def _take_out(objective: Objective, optimizer: Optimizer, loop: Loop, outcomes: list[str | None]) -> None:
    """Ends the restarts that have an outcome and leaves the others running."""
    components = optimizer.components(objective, loop.state)
    n_passes = loop.n_steps * optimizer.passes_per_step
    for row, (restart, outcome) in enumerate(zip(loop.running, outcomes, strict=True)):
        if outcome:
            one = components.rows(torch.tensor([row], device=components.means.device))
            loop.ends[restart] = RestartEnd(one, outcome, loop.n_steps, n_passes)
    going = [row for row, outcome in enumerate(outcomes) if not outcome]
    loop.running = [loop.running[row] for row in going]
    loop.windows = [loop.windows[row] for row in going]
    loop.state = _kept(loop.state, going)


def _kept(state: State, rows: list[int]) -> State:
    return select_rows(state, torch.tensor(rows, dtype=torch.int64))
