"""Stochastic gradient descent with momentum, in PyTorch's convention."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.optimizers.gradient_descent import GradientDescent
from service.mixture.optimizers.optimizer import State


class StochasticGradientDescent(GradientDescent):
    """v = momentum v + gradient; x = x - learning_rate v.

    References:
        Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning",
        2013, in the form of torch.optim.SGD.
    """

    name = "sgd"

    def __init__(self, learning_rate: float, momentum: float, batch_size: int | None, n_samples: int) -> None:
        super().__init__(learning_rate, batch_size, n_samples)
        self.momentum = momentum

    @override
    def memory(self, rows: Tensor) -> State:
        return {"velocity": torch.zeros_like(rows)}

    @override
    def update(self, state: State, gradient: Tensor) -> State:
        velocity = torch.add(gradient, state["velocity"], alpha=self.momentum)
        return {"velocity": velocity, "rows": torch.add(state["rows"], velocity, alpha=-self.learning_rate)}
