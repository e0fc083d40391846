"""/v1/datasets."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.api import subsample
from service.api.answers import (
    UNCHANGING,
    JsonAnswer,
    is_known,
    json_only,
    negotiate,
    unchanging,
    version_headers,
)
from service.api.bodies import require_media_type, spooled_object
from service.api.creation import Creation, Key, once, request_digest
from service.api.dataset_points import written
from service.api.inflow import Inflow, inflow
from service.api.json_points import POINTS, posted
from service.api.new_datasets import add_dataset, new_dataset, surveyed, uploaded
from service.api.points import (
    POINT_TYPES,
    ColumnsQuery,
    binary_content,
    refuse_beside_json,
    require_servable,
    wanted,
)
from service.api.points import documented as documented_points
from service.api.query import Paging, page_answer
from service.api.services import Services, Use
from service.codecs.points import Wanted
from service.codecs.registry import ARROW, JSON, NPY, WRITABLE
from service.errors import FieldError, Unprocessable
from service.schemas.dataset import Dataset, DatasetCreation, DatasetPoints
from service.schemas.numbers import Name
from service.schemas.service import Page
from service.storage import datasets
from service.storage.datasets import NewDataset
from service.storage.tables import DatasetRow

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    openapi_extra=documented_points(DatasetCreation),
    dependencies=[Depends(json_only)],
    operation_id="create_dataset",
)
async def create_dataset(
    request: Request,
    services: Use,
    key: Key,
    columns: ColumnsQuery = None,
    name: Annotated[Name | None, Query(description="not for JSON: the dataset's name")] = None,
) -> Response:
    """Stores points as they come in, or draws them from a gold mixture and keeps their true components.

    With `url`, registers Parquet files that stay where they are: only their footers are read. Nothing of them
    is stored, so they count for no limit; should one of them change, or go, whatever needs it ends with
    `DATASET_CHANGED`. Files whose names do not end in `.parquet`, and files and folders whose names begin
    with `_` or `.`, are left out. A URL that may not be read is a 422, `URL_NOT_ALLOWED`; one that its store
    refuses the service, or that has no such files, `URL_UNREADABLE`; files without points that can be taken,
    `INVALID_POINTS`. A store that does not answer is a 503, `STORE_UNAVAILABLE`.
    """
    media_type = require_media_type(request, POINT_TYPES)
    asked = wanted(request, services, columns)
    async with inflow(request, services.settings.max_body_bytes) as body:
        body.digest = None if key is None else request_digest(request)
        if media_type == JSON:
            refuse_beside_json(columns=columns, name=name)
            create = partial(_create_from_json, services, body, key)
        else:
            create = partial(_create_from_stream, services, body, key, media_type, asked, name)
        return await services.upload_threads.run(body, create)


def _create_from_json(services: Services, inflow: Inflow, key: str | None) -> Response:
    body = posted(DatasetCreation, spooled_object(inflow, services.store.scratch), POINTS)
    name, columns = body.fields.name, body.fields.columns
    if body.fields.url is not None:
        return _create_from_url(services, body.fields, inflow, key)
    with (
        once(services, key, inflow.digest) as creation,
        new_dataset(services, body.fields, body.points(("points",)), name=name, columns=columns) as new,
    ):
        return _created(services, creation, new)


def _create_from_url(services: Services, asked: DatasetCreation, inflow: Inflow, key: str | None) -> Response:
    with once(services, key, inflow.digest) as creation:
        found = surveyed(services, asked)
        with services.database.write() as session:
            row = datasets.register(session, found, asked.name)
            return creation.created(session, as_answer(row), f"/v1/datasets/{row.id}")


def _create_from_stream(
    services: Services, inflow: Inflow, key: str | None, media_type: str, asked: Wanted, name: str | None
) -> Response:
    with (
        uploaded(services, media_type, inflow, asked, name) as new,
        once(services, key, inflow.digest) as creation,
    ):
        return _created(services, creation, new)


def _created(services: Services, creation: Creation, new: NewDataset) -> Response:
    with services.database.write() as session:
        row = add_dataset(services, session, new)
        return creation.created(session, as_answer(row), f"/v1/datasets/{row.id}")


@router.get("", response_model=Page[Dataset], dependencies=[Depends(json_only)], operation_id="list_datasets")
def list_datasets(paging: Paging, services: Use) -> Response:
    """Lists datasets, newest first."""
    with services.database.read() as session:
        rows, more = datasets.page(session, paging.size, paging.before)
    return JsonAnswer(page_answer([as_answer(row) for row in rows], more))


@router.get(
    "/{dataset_id}",
    response_model=Dataset,
    responses=UNCHANGING,
    dependencies=[Depends(json_only)],
    operation_id="get_dataset",
)
def get_dataset(dataset_id: str, request: Request, services: Use) -> Response:
    """Returns a dataset without its points."""
    return unchanging(request, as_answer(_get(services, dataset_id)))


@router.get(
    "/{dataset_id}/points",
    response_model=DatasetPoints,
    responses=UNCHANGING | {200: {"content": binary_content((NPY, ARROW))}, 409: {}},
    operation_id="get_dataset_points",
)
def get_dataset_points(
    dataset_id: str,
    request: Request,
    services: Use,
    limit: Annotated[int | None, Query(ge=1, description="how many points; all of them unless given")] = None,
    offset: Annotated[int, Query(ge=0, le=2**53)] = 0,
    sample: Annotated[
        int | None,
        Query(ge=1, description="in place of limit and offset: so many points drawn without replacement"),
    ] = None,
    seed: Annotated[int, Query(ge=0, lt=2**53, description="with sample: draws the same points again")] = 0,
) -> Response:
    """Returns points in the media type asked for; in JSON, a gold dataset's true components, too.

    `sample=N`, for JSON alone, draws N of them (all when there are no more), in the order of the dataset,
    with their `indices`: enough to look at where all would be too many. Of a dataset by URL they are drawn
    from a few of its row groups, and answers are bounded as those to questions are.
    """
    media_type = negotiate(request, WRITABLE if sample is None else [JSON])
    row = _get(services, dataset_id, with_files=True)
    if sample is not None:
        return _sampled(services, request, row, sample, seed)
    n_rows = max(0, min(row.n_samples - offset, row.n_samples if limit is None else limit))
    version = f"{row.sha256[:32]}-{(row.components_sha256 or '')[:16]}-{offset}-{n_rows}-{media_type[-4:]}"

    headers = version_headers(version) | {"Vary": "Accept"}
    if is_known(request, version):
        return Response(status_code=304, headers=headers)
    if row.url is not None:
        _require_servable(services, row, n_rows)
    pieces = written(services, row, media_type, offset, n_rows)
    return StreamingResponse(pieces, headers=headers, media_type=media_type)


@router.delete("/{dataset_id}", status_code=204, responses={409: {}}, operation_id="delete_dataset")
def delete_dataset(dataset_id: str, services: Use) -> Response:
    """Deletes a dataset that no queued or running fit needs. Fits and mixtures made from it stay."""
    datasets.delete(services.database, services.store, dataset_id)
    return Response(status_code=204)


def as_answer(row: DatasetRow) -> dict[str, Any]:
    """Returns a row as `Dataset`."""
    return {name: getattr(row, name) for name in Dataset.model_fields}


def _get(services: Services, dataset_id: str, *, with_files: bool = False) -> DatasetRow:
    with services.database.read() as session:
        return datasets.get(session, dataset_id, with_files=with_files)


def _sampled(services: Services, request: Request, row: DatasetRow, n_sampled: int, seed: int) -> Response:
    for name in ("limit", "offset"):
        if name in request.query_params:
            raise Unprocessable(
                f"sample does not go with {name}.", [FieldError((name,), "leave it out, or leave sample out")]
            )
    n_rows = min(n_sampled, row.n_samples)
    _require_servable(services, row, n_rows)

    def content() -> dict[str, Any]:
        taken = subsample.drawn(services, row, n_rows, seed)
        answer = {"points": taken.rows.tolist(), "indices": taken.places.tolist()}
        if taken.components is not None:
            answer["components"] = taken.components.tolist()
        return answer | {"offset": 0, "n_samples": row.n_samples}

    return unchanging(
        request, content, f"{row.sha256[:32]}-{(row.components_sha256 or '')[:16]}-{n_rows}@{seed}"
    )


def _require_servable(services: Services, row: DatasetRow, n_rows: int) -> None:
    require_servable(
        20 * n_rows * (row.n_features + 2),
        f"{n_rows} points of {row.n_features} features",
        services.settings.max_answer_bytes,
    )
