"""What an optimiser is: a start and a step over rows of state; the loop around it lies elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from service.mixture.components import Components
from service.mixture.families import Family
from service.mixture.statistics import StatisticsPass

# Every tensor has the restart as its first axis, so that ended restarts can be taken out and states saved.
State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Objective:
    """What every optimiser climbs: the regularised mean log-likelihood of mixtures of one family.

    Attributes:
        statistics: the pass over the points.
        family: of covariances.
        n_components: K.
    """

    statistics: StatisticsPass
    family: Family
    n_components: int


class Optimizer(ABC):
    """One algorithm.

    A state has at least ``log_likelihood`` (R,), the mean objective in nats at the point last looked at, and
    ``valid`` (R,), false where a restart cannot go on because a covariance or a weight has collapsed.

    Attributes:
        name: as in a request.
        window: over how many steps the stopping rule takes its means.
        passes_per_step: passes over the data that one step costs.
        derived: entries of a state that no checkpoint keeps, since ``restored`` has them from the others.
    """

    name: str
    window: int = 1
    passes_per_step: float = 1.0
    derived: frozenset[str] = frozenset()

    @abstractmethod
    def start(self, objective: Objective, components: Components, seeds: list[torch.Generator]) -> State:
        """The state from which the first step goes, for R restarts."""

    def kept(self, objective: Objective, state: State) -> State:
        """What a checkpoint keeps of a state."""
        del objective
        return {name: values for name, values in state.items() if name not in self.derived}

    def restored(self, objective: Objective, state: State) -> State:
        """The whole state from what a checkpoint kept of it."""
        del objective
        return state

    @abstractmethod
    def step(self, objective: Objective, state: State) -> State:
        """The state after one update of the parameters of every restart."""

    @abstractmethod
    def components(self, objective: Objective, state: State) -> Components:
        """The mixtures that a state stands for."""


def select_rows(state: State, index: Tensor) -> State:
    """The state of those restarts alone."""
    return {name: values[index] for name, values in state.items()}
