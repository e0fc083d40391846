"""Optimisers by their names in a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.mixture.families import Family
from service.mixture.optimizers.adam import Adam
from service.mixture.optimizers.em import ExpectationMaximization
from service.mixture.optimizers.lbfgs import LimitedMemoryBfgs
from service.mixture.optimizers.optimizer import Objective, Optimizer, State
from service.mixture.optimizers.sgd import StochasticGradientDescent

# The fields that each takes beside its name, with their defaults.
DEFAULTS: dict[str, dict[str, Any]] = {
    "auto": {},
    "em": {},
    "lbfgs": {},
    "adam": {"learning_rate": 0.01, "batch_size": None},
    "sgd": {"learning_rate": 0.01, "momentum": 0.9, "batch_size": None},
}

_MAKERS: dict[str, Callable[..., Optimizer]] = {
    "em": lambda n_samples: ExpectationMaximization(),
    "lbfgs": lambda n_samples: LimitedMemoryBfgs(),
    "adam": Adam,
    "sgd": StochasticGradientDescent,
}


def make_optimizer(request: Mapping[str, Any], family: Family, n_samples: int) -> Optimizer:
    """The optimiser that a validated request names, for a family and so many points.

    auto takes accelerated em wherever the family has its closed-form update, and lbfgs elsewhere.
    """
    name = request["name"]
    if name == "auto":
        name = "em" if family.closed_form else "lbfgs"
    fields = {**DEFAULTS[name], **{key: value for key, value in request.items() if key != "name"}}
    return _MAKERS[name](**fields, n_samples=n_samples)


__all__ = ["DEFAULTS", "Objective", "Optimizer", "State", "make_optimizer"]
