"""Everything a fit depends on beside the points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch

from service.mixture.families import FAMILIES
from service.mixture.invalid import InvalidFit
from service.mixture.optimizers import DEFAULTS
from service.mixture.starts import STARTS

COVARIANCE_TYPES: tuple[str, ...] = tuple(FAMILIES)
OPTIMIZERS: tuple[str, ...] = tuple(DEFAULTS)
INITIALIZATIONS: tuple[str, ...] = (*STARTS, "mixture")
CRITERIA: tuple[str, ...] = ("bic", "aic", "icl", "held_out")
DTYPES: dict[str, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}


def _auto() -> Mapping[str, Any]:
    return MappingProxyType({"name": "auto"})


def _kmeans() -> Mapping[str, Any]:
    return MappingProxyType({"method": "kmeans++"})


@dataclass(frozen=True)
class FitOptions:
    """A fit's request, with the names of the HTTP contract.

    Attributes:
        n_components: candidates for K.
        covariance_type: candidates for the family.
        optimizer: its name and fields.
        initialization: its method, and for ``mixture`` the mixture.
        n_init: restarts of each candidate.
        tolerance: nats per point; zero runs every step.
        max_steps: updates of the parameters at most, minibatches counted one by one.
        regularization: added to covariance diagonals, in units of each feature's variance (of the mean
            variance for families that must scale all features alike).
        criterion: by which candidates are compared.
        held_out_fraction: of the points kept out of the fit, for the criterion held_out.
        seed: of every random number of the fit.
        dtype: of the points on the device.
    """

    n_components: tuple[int, ...]
    covariance_type: tuple[str, ...] = ("full",)
    optimizer: Mapping[str, Any] = field(default_factory=_auto)
    initialization: Mapping[str, Any] = field(default_factory=_kmeans)
    n_init: int = 8
    tolerance: float = 1e-6
    max_steps: int = 1000
    regularization: float = 1e-6
    criterion: str = "bic"
    held_out_fraction: float = 0.1
    seed: int = 0
    dtype: str = "float64"

    def check(self) -> None:
        """Refuses values that no fit can have.

        Raises:
            InvalidFit: for the first value found wrong.
        """
        _check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        _check_choice("optimizer", (self.optimizer.get("name"),), OPTIMIZERS)
        _check_choice("initialization", (self.initialization.get("method"),), INITIALIZATIONS)
        _check_choice("criterion", (self.criterion,), CRITERIA)
        _check_choice("dtype", (self.dtype,), tuple(DTYPES))
        for name in self.covariance_type:
            if self.optimizer["name"] == "em" and not FAMILIES[name].closed_form:
                raise InvalidFit(
                    f"em has no closed-form update for {name}; take the optimizer lbfgs or auto",
                    ("optimizer",),
                )
        unknown = set(self.optimizer) - {"name"} - set(DEFAULTS[self.optimizer["name"]])
        if unknown:
            raise InvalidFit(f"{self.optimizer['name']} takes no {sorted(unknown)[0]}", ("optimizer",))
        if not self.n_components or min(self.n_components) < 1:
            raise InvalidFit("n_components must be at least 1", ("n_components",))
        for name in ("n_init", "max_steps"):
            if getattr(self, name) < 1:
                raise InvalidFit(f"{name} is {getattr(self, name)}; it must be at least 1", (name,))
        for name in ("tolerance", "regularization"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidFit(f"{name} is {getattr(self, name)}; it must be zero or positive", (name,))
        if not 0 < self.held_out_fraction < 1:
            raise InvalidFit(
                f"held_out_fraction is {self.held_out_fraction}; it must lie between 0 and 1", ("selection",)
            )


def _check_choice(name: str, given: tuple[Any, ...], known: tuple[str, ...]) -> None:
    for value in given or (None,):
        if value not in known:
            raise InvalidFit(f"{name} {value!r} is not one of {', '.join(known)}", (name,))
