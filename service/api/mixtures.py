"""/v1/mixtures: keep, read and delete them."""

from functools import lru_cache
from itertools import accumulate
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from service.api.answers import UNCHANGING, JsonAnswer, json_only, unchanging
from service.api.bodies import documented
from service.api.creation import Key, WholeDigest, once
from service.api.json_bodies import json_body
from service.api.points import require_columns
from service.api.query import Paging, page_answer
from service.api.services import Services, Use
from service.api.specifications import mixture_of, parameters_answer, require_servable_mixture, size_bytes
from service.mixture import GaussianMixture
from service.schemas.mixture import Mixture, MixtureCreation
from service.schemas.service import Page
from service.storage import mixtures
from service.storage.tables import MixtureRow

router = APIRouter(prefix="/v1/mixtures", tags=["mixtures"])
# What follows from the covariances of small mixtures is kept: for a list of ten, torch would take as long as
# the database, and give other threads their turn at each of its hundred steps. These take up to 20 MB.
_MOST_KEPT = 512
_MOST_KEPT_NUMBERS = 512
_MOST_PAGE_BYTES = 256 << 20


@router.post(
    "",
    status_code=201,
    response_model=Mixture,
    openapi_extra=documented(MixtureCreation),
    dependencies=[Depends(json_only)],
    operation_id="create_mixture",
)
def create_mixture(
    body: Annotated[MixtureCreation, Depends(json_body(MixtureCreation))],
    key: Key,
    digest: WholeDigest,
    services: Use,
) -> Response:
    """Stores a given mixture, which then answers every question that a fitted one does."""
    mixture = mixture_of(body).in_canonical_order()
    require_columns(body.columns, mixture.n_features)
    with once(services, key, digest) as creation, services.database.write() as session:
        row = mixtures.add(session, parameters_answer(mixture), name=body.name, columns=body.columns)
        return creation.created(session, as_answer(row), f"/v1/mixtures/{row.id}")


@router.get("", response_model=Page[Mixture], dependencies=[Depends(json_only)], operation_id="list_mixtures")
def list_mixtures(paging: Paging, services: Use) -> Response:
    """Lists mixtures, newest first; of large ones fewer than were asked for."""
    with services.database.read() as session:
        rows, more = mixtures.page(session, paging.size, paging.before)
    sizes = accumulate(size_bytes(*row.means.shape) for row in rows)
    n_taken = max(1, sum(size <= _MOST_PAGE_BYTES for size in sizes))
    items = [as_answer(row) for row in rows[:n_taken]]
    return JsonAnswer(page_answer(items, more or n_taken < len(rows)))


@router.get(
    "/{mixture_id}",
    response_model=Mixture,
    responses=UNCHANGING,
    dependencies=[Depends(json_only)],
    operation_id="get_mixture",
)
def get_mixture(mixture_id: str, request: Request, services: Use) -> Response:
    """Returns a mixture with what follows from its parameters; components in canonical order."""
    return unchanging(request, as_answer(stored(services, mixture_id)))


@router.delete("/{mixture_id}", status_code=204, operation_id="delete_mixture")
async def delete_mixture(mixture_id: str, services: Use) -> Response:
    """Deletes a mixture; a fit that made it keeps its result.

    Once this is answered, nobody gets an answer about the mixture any more, from any replica.
    """
    await run_in_threadpool(_delete, services, mixture_id)
    await services.prepared.outlive(mixture_id)
    return Response(status_code=204)


def _delete(services: Services, mixture_id: str) -> None:
    with services.database.write() as session:
        mixtures.delete(session, mixture_id)


def stored(services: Services, mixture_id: str) -> MixtureRow:
    """Returns a mixture's row.

    Raises:
        NotFound: There is none.
    """
    with services.database.read() as session:
        return mixtures.get(session, mixture_id)


def as_answer(row: MixtureRow) -> dict[str, Any]:
    """Returns a row as `Mixture`.

    Raises:
        Unprocessable: It is too large to be answered with.
    """
    require_servable_mixture(row)
    (n_components, n_features), covariances = row.means.shape, row.covariances
    if n_components * n_features**2 <= _MOST_KEPT_NUMBERS:
        kind = row.covariance_type, n_components, n_features
        derived = _kept_derived(*kind, covariances.shape, covariances.tobytes())
    else:
        derived = _derived(row.covariance_type, n_components, n_features, covariances)
    return {
        "weights": row.weights.tolist(),
        "means": row.means.tolist(),
        "covariances": covariances.tolist(),
        "covariance_type": row.covariance_type,
        "id": row.id,
        "name": row.name,
        "columns": row.columns,
        "n_components": n_components,
        "n_features": n_features,
        **derived,
        "fit_id": row.fit_id,
        "created_at": row.created_at,
    }


@lru_cache(maxsize=_MOST_KEPT)
def _kept_derived(
    covariance_type: str, n_components: int, n_features: int, shape: tuple[int, ...], covariances: bytes
) -> dict[str, Any]:
    given = np.frombuffer(covariances, np.float64).reshape(shape).copy()
    return _derived(covariance_type, n_components, n_features, given)


def _derived(
    covariance_type: str, n_components: int, n_features: int, covariances: NDArray[np.float64]
) -> dict[str, Any]:
    """Returns what follows from covariances, of the shape of their type."""
    mixture = GaussianMixture(
        weights=torch.full((n_components,), 1.0 / n_components, dtype=torch.float64),
        means=torch.zeros(n_components, n_features, dtype=torch.float64),
        covariances=torch.from_numpy(covariances),
        covariance_type=covariance_type,
    )
    return {
        "precisions": mixture.precisions().tolist(),
        "standard_deviations": mixture.standard_deviations().tolist(),
        "correlations": mixture.correlations().tolist(),
    }
