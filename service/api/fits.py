"""/v1/fits: submit, read, cancel, delete."""

import time
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.answers import JsonAnswer, json_only
from service.api.bodies import documented
from service.api.creation import Key, WholeDigest, once
from service.api.inflow import Digest
from service.api.json_bodies import posted_body
from service.api.json_points import POINTS, WEIGHTS, Posted
from service.api.new_fits import queue_fit
from service.api.query import Paging, page_answer, preferred_wait
from service.api.services import Services, Use
from service.schemas.fit import FINAL_STATUSES, Fit, FitRequest
from service.schemas.service import Page
from service.storage import datasets, fits
from service.storage.database import Session
from service.storage.identifiers import PATTERN
from service.storage.tables import FitRow

router = APIRouter(prefix="/v1/fits", tags=["fits"], dependencies=[Depends(json_only)])
_LISTS = {("dataset", *path): short for path, short in ({**POINTS, **WEIGHTS}).items()}
_PREFER = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string", "examples": ["wait=30"]},
            "description": "wait=N holds the answer until the fit ends or N seconds pass, at most 60",
        }
    ]
}


@router.post(
    "",
    status_code=202,
    response_model=Fit,
    openapi_extra=documented(FitRequest) | _PREFER,
    responses={404: {}, 429: {}},
    operation_id="create_fit",
)
async def create_fit(
    body: Annotated[Posted[FitRequest], Depends(posted_body(FitRequest, _LISTS))],
    key: Key,
    digest: WholeDigest,
    request: Request,
    services: Use,
) -> Response:
    """Queues a fit. A 202 is a promise: whatever crashes, the fit ends in one of the final statuses."""
    wait = preferred_wait(request)
    fit_id, response = await run_in_threadpool(_submit, services, body, key, digest)
    if wait is None:
        return response
    fit = await _ended(services, fit_id, wait)
    headers = {"Location": response.headers["Location"], "Preference-Applied": f"wait={wait}"}
    return JsonAnswer(fit, 202, headers)


@router.get("", response_model=Page[Fit], operation_id="list_fits")
def list_fits(
    paging: Paging,
    services: Use,
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"] | None = None,
    dataset_id: Annotated[str | None, Query(pattern=PATTERN)] = None,
) -> Response:
    """Lists fits, newest first."""
    with services.database.read() as session:
        rows, more = fits.page(session, paging.size, paging.before, status=status, dataset_id=dataset_id)
    return JsonAnswer(page_answer([as_answer(row) for row in rows], more))


@router.get("/{fit_id}", response_model=Fit, openapi_extra=_PREFER, operation_id="get_fit")
async def get_fit(fit_id: str, request: Request, services: Use) -> Response:
    """Returns a fit as it stands."""
    wait = preferred_wait(request)
    if wait is None:
        return JsonAnswer(as_answer(await run_in_threadpool(_get, services, fit_id)))
    return JsonAnswer(await _ended(services, fit_id, wait), headers={"Preference-Applied": f"wait={wait}"})


@router.post("/{fit_id}/cancel", response_model=Fit, operation_id="cancel_fit")
def cancel_fit(fit_id: str, services: Use) -> Response:
    """Cancels a fit: a queued one at once, a running one within 2 s. An ended one stays as it is."""
    with services.database.write() as session:
        return JsonAnswer(as_answer(fits.cancel(session, fit_id)))


@router.delete("/{fit_id}", status_code=204, responses={409: {}}, operation_id="delete_fit")
def delete_fit(fit_id: str, services: Use) -> Response:
    """Deletes a fit that has ended, with its events. Its mixture stays."""
    with services.database.write() as session:
        weights_sha256 = fits.delete(session, fit_id)
    if weights_sha256 is not None:
        datasets.remove_unused(services.database, services.store, weights_sha256)
    return Response(status_code=204)


def as_answer(row: FitRow) -> dict[str, Any]:
    """Returns a row as `Fit`."""
    names = (name for name in Fit.model_fields if name != "metadata")
    return {name: getattr(row, name) for name in names} | {"metadata": row.fit_metadata}


def _submit(
    services: Services, body: Posted[FitRequest], key: str | None, digest: Digest | None
) -> tuple[str, Response]:
    with once(services, key, digest) as creation:

        def answer(session: Session, row: FitRow) -> tuple[str, Response]:
            return row.id, creation.created(session, as_answer(row), f"/v1/fits/{row.id}", 202)

        return queue_fit(services, body, answer)


def _get(services: Services, fit_id: str) -> FitRow:
    with services.database.read() as session:
        return fits.get(session, fit_id)


async def _ended(services: Services, fit_id: str, wait_seconds: float) -> dict[str, Any]:
    """Returns the fit once it has ended, or as it stands after a while."""
    deadline = time.monotonic() + wait_seconds
    watcher = services.watcher
    with watcher.watching(fit_id):
        while True:
            row = await watcher.shared(("fit", fit_id), partial(_get, services, fit_id))
            remaining = deadline - time.monotonic()
            if row.status in FINAL_STATUSES or remaining <= 0:
                return as_answer(row)
            woken = await watcher.wait(fit_id, row.n_events, remaining, for_end=True)
            if not woken and watcher.draining.is_set():
                return as_answer(row)
