"""A mixture that the service keeps, and the questions it answers."""

from collections.abc import Callable
from typing import TypeVar

import httpx
import numpy as np

from service.client.calls import Call, Caller, nothing, path
from service.client.points import (
    Floats,
    Integers,
    PointsLike,
    accepting_arrays,
    array_of,
    points_of,
)
from service.client.steps import Async, Steps, Sync, operation
from service.schemas import mixture as schemas

T = TypeVar("T")


class _Mixture:
    """What a mixture is and can do, whichever way its questions are asked.

    Attributes:
        info: Everything that the service says about it.
    """

    def __init__(self, caller: Caller, info: schemas.Mixture) -> None:
        self._caller = caller
        self.info = info

    @property
    def id(self) -> str:
        """Its id."""
        return self.info.id

    @property
    def columns(self) -> list[str] | None:
        """The names of its features, if they have any."""
        return self.info.columns

    @property
    def n_components(self) -> int:
        """K."""
        return self.info.n_components

    @property
    def n_features(self) -> int:
        """D."""
        return self.info.n_features

    @property
    def covariance_type(self) -> str:
        """full, tied, diag or spherical."""
        return self.info.covariance_type

    @property
    def weights(self) -> Floats:
        """(K,), falling, summing to 1."""
        return np.array(self.info.weights)

    @property
    def means(self) -> Floats:
        """(K, D), in data units."""
        return np.array(self.info.means)

    @property
    def covariances(self) -> Floats:
        """In squared data units: full (K, D, D), tied (D, D), diag (K, D), spherical (K,)."""
        return np.array(self.info.covariances)

    @property
    def precisions(self) -> Floats:
        """(K, D, D), the inverses of the covariances."""
        return np.array(self.info.precisions)

    @property
    def standard_deviations(self) -> Floats:
        """(K, D), in data units."""
        return np.array(self.info.standard_deviations)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.id}: {self.n_components} components, {self.n_features} features, "
            f"{self.covariance_type}>"
        )

    @operation
    def log_density(self, points: PointsLike) -> Steps[Floats]:
        """Returns the log-density (N,) of points (N, D), in nats."""
        return (yield from self._asked("log-density", points, "log_density"))

    @operation
    def responsibilities(self, points: PointsLike) -> Steps[Floats]:
        """Returns the posterior probability (N, K) of each component for points (N, D)."""
        return (yield from self._asked("responsibilities", points, "responsibilities"))

    @operation
    def labels(self, points: PointsLike) -> Steps[Integers]:
        """Returns the likeliest component (N,) for points (N, D)."""
        posterior: Floats = yield from self._asked("responsibilities", points, "responsibilities")
        labels: Integers = posterior.argmax(axis=1)
        return labels

    @operation
    def sample(self, n_samples: int = 1000, *, seed: int | None = None) -> Steps[Floats]:
        """Returns points (n_samples, D), independent; without a seed, fresh ones each time."""
        call: Call[Floats] = self._samples(
            n_samples, seed, lambda response: array_of(response, "points"), accepting_arrays()
        )
        return (yield from self._caller.answer(call))

    @operation
    def sample_with_components(
        self, n_samples: int = 1000, *, seed: int | None = None
    ) -> Steps[tuple[Floats, Integers]]:
        """Returns points (n_samples, D), and the component (n_samples,) that each was drawn from."""

        def read(response: httpx.Response) -> tuple[Floats, Integers]:
            content = response.json()
            return np.array(content["points"], dtype=np.float64), np.array(content["components"], np.int64)

        call: Call[tuple[Floats, Integers]] = self._samples(n_samples, seed, read, {})
        return (yield from self._caller.answer(call))

    @operation
    def delete(self) -> Steps[None]:
        """Deletes the mixture; the fit that made it keeps its result."""
        yield from self._caller.answer(Call("DELETE", path("mixtures", self.id), nothing))

    def _asked(self, question: str, given: PointsLike, field: str) -> Steps[Floats]:
        place, body = path("mixtures", self.id, question), points_of(given).body()
        call = Call(
            "POST", place, lambda response: array_of(response, field), headers=accepting_arrays(), **body
        )
        return (yield from self._caller.answer(call))

    def _samples(
        self, n_samples: int, seed: int | None, read: Callable[[httpx.Response], T], headers: dict[str, str]
    ) -> Call[T]:
        body = {"n_samples": n_samples} | ({} if seed is None else {"seed": seed})
        return Call("POST", path("mixtures", self.id, "samples"), read, headers=headers, json=body)


class Mixture(_Mixture, Sync):
    """A mixture that the service keeps; its methods block."""

    def __init__(self, caller: Caller, info: schemas.Mixture) -> None:
        super().__init__(caller, info)
        self._http = caller.http


class AsyncMixture(_Mixture, Async):
    """A mixture that the service keeps; its methods are awaited."""

    def __init__(self, caller: Caller, info: schemas.Mixture) -> None:
        super().__init__(caller, info)
        self._http = caller.http
