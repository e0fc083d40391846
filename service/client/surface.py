"""What both clients can do, written once."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import httpx
import numpy as np
from numpy.typing import ArrayLike

from service.client.calls import Call, Caller, nothing, once, path, reading
from service.client.fit import AsyncFit, Fit
from service.client.mixture import AsyncMixture, Mixture
from service.client.points import Floats, Points, PointsLike, accepting_arrays, array_of, points_of
from service.client.steps import Items, Steps, operation, stream
from service.schemas import fit as fit_schemas
from service.schemas import mixture as mixture_schemas
from service.schemas.dataset import Dataset
from service.schemas.service import Health, Worker

T = TypeVar("T")
F = TypeVar("F", Fit, AsyncFit)
M = TypeVar("M", Mixture, AsyncMixture)

_PAGE_SIZE = 200


class Surface(Generic[F, M]):
    """The operations of a client, on an `httpx` client whose requests a `Caller` builds."""

    _caller: Caller
    _fit_kind: type[F]
    _mixture_kind: type[M]

    @operation
    def upload(
        self, points: PointsLike, *, name: str | None = None, columns: list[str] | None = None
    ) -> Steps[Dataset]:
        """Returns the stored dataset of points (N, D); a table's column names are kept.

        Raises:
            ValueError: The points are not a table of numbers.
            Unprocessable: The service does not take them.
        """
        return (yield from self._caller.answer(_upload(points, name, columns)))

    @operation
    def draw(
        self, gold: dict[str, Any], n_samples: int = 1000, *, seed: int = 0, name: str | None = None
    ) -> Steps[Dataset]:
        """Returns a stored dataset drawn from a mixture, which is kept with it as the truth."""
        body = {"gold": gold, "n_samples": n_samples, "seed": seed, "name": name}
        return (yield from self._caller.answer(_creation("datasets", reading(Dataset), body)))

    @operation
    def register(
        self, url: str, *, name: str | None = None, columns: list[str] | None = None
    ) -> Steps[Dataset]:
        """Returns a dataset whose points stay in the Parquet files at a URL that the service may read.

        Args:
            url: Of a folder or a file: `s3://bucket/folder`, `file:///folder`.
            name: To find it by.
            columns: Which columns to take, in this order; all of them unless given.

        Raises:
            Unprocessable: The service may not read it, or finds no points there that it takes.
            Unavailable: Its store does not answer; it was so after several tries.
        """
        body = {"url": url, "name": name, "columns": columns}
        return (yield from self._caller.answer(_creation("datasets", reading(Dataset), body)))

    @operation
    def dataset(self, dataset_id: str) -> Steps[Dataset]:
        """Returns a dataset, without its points."""
        return (yield from self._caller.answer(Call("GET", path("datasets", dataset_id), reading(Dataset))))

    @operation
    def points(self, dataset_id: str, *, limit: int | None = None, offset: int = 0) -> Steps[Floats]:
        """Returns points (n, D) of a dataset, all of them or `limit` from `offset` on."""
        call = Call(
            "GET",
            path("datasets", dataset_id, "points"),
            lambda response: array_of(response, "points"),
            params={"limit": limit, "offset": offset or None},
            headers=accepting_arrays(),
        )
        return (yield from self._caller.answer(call))

    @stream
    def datasets(self) -> Items[Dataset]:
        """Emits every dataset, newest first, asking for pages as they are needed."""

        def read(item: dict[str, Any]) -> Dataset:
            return Dataset.model_validate(item, extra="ignore")

        yield from self._caller.pages("datasets", read, page_size=_PAGE_SIZE)

    @operation
    def delete_dataset(self, dataset_id: str) -> Steps[None]:
        """Deletes a dataset that no queued or running fit needs."""
        yield from self._caller.answer(Call("DELETE", path("datasets", dataset_id), nothing))

    @operation
    def fit(
        self,
        /,
        points: PointsLike | None = None,
        n_components: int | list[int] = 1,
        *,
        dataset_id: str | None = None,
        sample_weight: ArrayLike | None = None,
        **request: Any,
    ) -> Steps[F]:
        """Returns a fit that has been queued; `wait()` for it.

        Args:
            points: (N, D), stored as a dataset on the way; or else
            n_components: One number, or several to choose from.
            dataset_id: a dataset that is stored already.
            sample_weight: (N,) how much each point counts.
            **request: Everything else that `POST /v1/fits` takes: `covariance_type`, `n_init`, `seed` ...

        Raises:
            ValueError: Not exactly one of points and dataset_id is given, or the points are no table.
            Unprocessable: The service does not take the request; `errors` says where.
        """
        if (points is None) == (dataset_id is None):
            raise ValueError("give either points or dataset_id")
        if dataset_id is None:
            dataset = yield from self._caller.answer(_upload(points, None, None))
            dataset_id = dataset.id
        data: dict[str, Any] = {"id": dataset_id}
        if sample_weight is not None:
            data["weights"] = np.asarray(sample_weight, dtype=np.float64).tolist()
        body = {"dataset": data, "n_components": n_components} | request
        info = yield from self._caller.answer(_creation("fits", reading(fit_schemas.Fit), body))
        return self._fit_kind(self._caller, info)

    @operation
    def get_fit(self, fit_id: str) -> Steps[F]:
        """Returns a fit that was asked for before."""
        info = yield from self._caller.answer(Call("GET", path("fits", fit_id), reading(fit_schemas.Fit)))
        return self._fit_kind(self._caller, info)

    @stream
    def fits(self, *, status: str | None = None, dataset_id: str | None = None) -> Items[F]:
        """Emits every fit, newest first, asking for pages as they are needed."""

        def bound(item: dict[str, Any]) -> F:
            return self._fit_kind(self._caller, fit_schemas.Fit.model_validate(item, extra="ignore"))

        yield from self._caller.pages(
            "fits", bound, page_size=_PAGE_SIZE, status=status, dataset_id=dataset_id
        )

    @operation
    def create_mixture(self, /, **specification: Any) -> Steps[M]:
        """Returns a stored mixture from its parameters: `weights`, `means`, `covariances` and so on."""
        body = {name: _plain(value) for name, value in specification.items()}
        info = yield from self._caller.answer(_creation("mixtures", reading(mixture_schemas.Mixture), body))
        return self._mixture_kind(self._caller, info)

    @operation
    def mixture(self, mixture_id: str) -> Steps[M]:
        """Returns a mixture that the service keeps."""
        call = Call("GET", path("mixtures", mixture_id), reading(mixture_schemas.Mixture))
        info = yield from self._caller.answer(call)
        return self._mixture_kind(self._caller, info)

    @stream
    def mixtures(self) -> Items[M]:
        """Emits every mixture, newest first, asking for pages as they are needed."""

        def bound(item: dict[str, Any]) -> M:
            info = mixture_schemas.Mixture.model_validate(item, extra="ignore")
            return self._mixture_kind(self._caller, info)

        yield from self._caller.pages("mixtures", bound, page_size=_PAGE_SIZE)

    @stream
    def workers(self) -> Items[Worker]:
        """Emits the workers that the service has heard of lately."""
        yield from self._caller.pages("workers", lambda item: Worker.model_validate(item, extra="ignore"))

    @operation
    def health(self) -> Steps[Health]:
        """Returns whether fits can be taken and done.

        Raises:
            Unavailable: They cannot; it was so after several tries.
        """
        return (yield from self._caller.answer(Call("GET", "/readyz", reading(Health))))

    @operation
    def plot(self, /, noun: str, identifier: str, *, file_format: str = "svg", **params: Any) -> Steps[bytes]:
        """Returns a picture.

        Args:
            noun: `fits` or `mixtures`.
            identifier: The id.
            file_format: `svg` or `png`.
            **params: `kind`, and what else the plot takes.
        """
        place = path(noun, identifier, f"plot.{file_format}")
        call = Call("GET", place, lambda response: response.content, params, {"Accept": "*/*"})
        return (yield from self._caller.answer(call))


def _creation(collection: str, read: Callable[[httpx.Response], T], body: dict[str, Any]) -> Call[T]:
    given = {name: value for name, value in body.items() if value is not None}
    return Call("POST", path(collection), read, headers=once(), json=given)


def _upload(given: PointsLike, name: str | None, columns: list[str] | None) -> Call[Dataset]:
    points = points_of(given)
    named = Points(points.rows, columns or points.columns)
    return Call("POST", path("datasets"), reading(Dataset), headers=once(), **named.body(name=name))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
