"""Adam, in PyTorch's convention."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.optimizers.gradient_descent import GradientDescent
from service.mixture.optimizers.optimizer import State

FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8


class Adam(GradientDescent):
    """Steps along the running mean of the gradient, divided by its running root mean square.

    References:
        Kingma, Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1.
    """

    name = "adam"

    @override
    def memory(self, rows: Tensor) -> State:
        return {
            "first": torch.zeros_like(rows),
            "second": torch.zeros_like(rows),
            "updates": torch.zeros(rows.shape[0], dtype=torch.int64),
        }

    @override
    def update(self, state: State, gradient: Tensor) -> State:
        updates = int(state["updates"][0]) + 1
        first = torch.lerp(state["first"], gradient, 1 - FIRST_DECAY)
        second = torch.lerp(state["second"], gradient.square(), 1 - SECOND_DECAY)
        root = second.div(1 - SECOND_DECAY**updates).sqrt_().add_(EPSILON)
        length = self.learning_rate / (1 - FIRST_DECAY**updates)
        return {
            "first": first,
            "second": second,
            "updates": torch.full_like(state["updates"], updates),
            "rows": torch.addcdiv(state["rows"], first, root, value=-length),
        }
