"""What sgd and adam share: unconstrained rows, exact gradients, minibatches in fresh random order."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.components import Components
from service.mixture.optimizers.optimizer import Objective, Optimizer, State

AVERAGED_PASSES = 10
ORDER = frozenset({"order", "next_generator"})


class GradientDescent(Optimizer):
    """Descent on the mean negative log-likelihood of all points or of a minibatch.

    Attributes:
        learning_rate: the length of a step.
        batch_size: points per step; None for all.
    """

    def __init__(self, learning_rate: float, batch_size: int | None, n_samples: int) -> None:
        self.learning_rate = learning_rate
        self.batch_size = None if batch_size is None or batch_size >= n_samples else batch_size
        steps_per_pass = 1 if self.batch_size is None else -(-n_samples // self.batch_size)
        self.passes_per_step = 1.0 / steps_per_pass
        # An order has as many numbers as there are points; where its generator stood tells it too.
        self.derived = frozenset() if self.batch_size is None else ORDER
        # A minibatch's likelihood is noisy: two passes are compared, not two steps.
        self.window = max(10, steps_per_pass)

    @abstractmethod
    def memory(self, rows: Tensor) -> State:
        """What the update remembers beside the parameters, at the start."""

    @abstractmethod
    def update(self, state: State, gradient: Tensor) -> State:
        """New ``rows`` and memory, given the gradient (R, size) of the mean negative log-likelihood."""

    @override
    def start(self, objective: Objective, components: Components, seeds: list[torch.Generator]) -> State:
        form = objective.family.unconstrained(objective.n_components, components.means.shape[-1])
        rows = form.rows_of(components)
        n_restarts = rows.shape[0]
        state: State = {
            "rows": rows,
            "log_likelihood": rows.new_full((n_restarts,), -torch.inf),
            "valid": torch.ones(n_restarts, dtype=torch.bool, device=rows.device),
            **self.memory(rows),
        }
        if self.batch_size is not None:
            state["pass_sum"] = torch.zeros_like(rows)
            state["pass_means"] = rows.new_zeros(n_restarts, 0, rows.shape[1])
            state["n_passes"] = torch.zeros(n_restarts, dtype=torch.int64)
            generators = torch.stack([seed.get_state() for seed in seeds])
            state |= _pass_from(generators, objective.statistics.data.n_samples)
        return state

    @override
    def restored(self, objective: Objective, state: State) -> State:
        if self.batch_size is None:
            return state
        return _pass_from(state["generator"], objective.statistics.data.n_samples) | state

    @override
    def step(self, objective: Objective, state: State) -> State:
        rows = state["rows"]
        data = objective.statistics.data
        form = objective.family.unconstrained(objective.n_components, data.n_features)
        components, pullback = form.at(rows)
        if self.batch_size is None:
            statistics = objective.statistics(components)
            weight = data.total_weight
        else:
            state, indices = self._next_batch(state, data.n_samples)
            statistics = objective.statistics.minibatch(components, indices.to(rows.device))
            weight = indices.shape[1] * data.total_weight / data.n_samples
        gradient = pullback(statistics).mul_(-1.0 / weight)
        state = {
            **state,
            **self.update(state, gradient),
            "log_likelihood": statistics.log_likelihood / weight,
        }
        return state if self.batch_size is None else self._averaged(state, data.n_samples)

    def _averaged(self, state: State, n_samples: int) -> State:
        """The state with its running sum over this pass, and at the end of a pass the mean of that pass."""
        total = state["pass_sum"] + state["rows"]
        if int(state["position"][0]) < n_samples:
            return {**state, "pass_sum": total}
        mean = (total * self.passes_per_step).unsqueeze(1)
        return {
            **state,
            "pass_sum": torch.zeros_like(total),
            "pass_means": torch.cat([state["pass_means"], mean], dim=1)[:, -AVERAGED_PASSES:],
            "n_passes": state["n_passes"] + 1,
        }

    def _next_batch(self, state: State, n_samples: int) -> tuple[State, Tensor]:
        """The points (R, n) of the next minibatch; each restart walks through an order of its own."""
        size = self.batch_size or n_samples
        if int(state["position"][0]) >= n_samples:
            state = state | _pass_from(state["next_generator"], n_samples)
        position = int(state["position"][0])
        moved = torch.full_like(state["position"], position + size)
        return {**state, "position": moved}, state["order"][:, position : position + size]

    @override
    def components(self, objective: Objective, state: State) -> Components:
        """The last parameters, or with minibatches their mean over the last tenth of the passes.

        Single parameters wander about the optimum by the minibatches' noise; their mean does not.

        References:
            Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
        """
        form = objective.family.unconstrained(objective.n_components, objective.statistics.data.n_features)
        rows = state["rows"]
        if self.batch_size is not None and int(state["n_passes"][0]) > 0:
            n_averaged = min(max(int(state["n_passes"][0]) // 10, 1), AVERAGED_PASSES)
            rows = state["pass_means"][:, -n_averaged:].mean(1)
        return form.at(rows)[0]


def _pass_from(generators: Tensor, n_samples: int) -> State:
    """The beginning of a pass of R restarts: the order of its points (R, N), and where that leads.

    Args:
        generators: (R, bytes) their states before the order is drawn.
        n_samples: N.
    """
    order = torch.empty(generators.shape[0], n_samples, dtype=torch.int64)
    after = []
    for row, saved in enumerate(generators):
        generator = torch.Generator()
        generator.set_state(saved.clone())  # torch reads a view from its storage's start
        torch.randperm(n_samples, generator=generator, out=order[row])
        after.append(generator.get_state())
    position = torch.zeros(generators.shape[0], dtype=torch.int64)
    following = torch.stack(after) if after else generators
    return {"generator": generators, "order": order, "next_generator": following, "position": position}
