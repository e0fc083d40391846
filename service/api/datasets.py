"""/v1/datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from service.api import subsample
from service.api.answers import JSON, UNCHANGING, JsonAnswer, json_only, negotiate, unchanging
from service.api.bodies import documented, json_body
from service.api.creation import Once
from service.api.new_datasets import add_dataset, new_dataset
from service.api.points import require_servable
from service.api.query import Paging, page_answer
from service.api.services import Services, Use
from service.errors import FieldError, Unprocessable
from service.schemas.dataset import Dataset, DatasetCreation, DatasetPoints
from service.schemas.service import Page
from service.storage import datasets
from service.storage.tables import DatasetRow

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    openapi_extra=documented(DatasetCreation),
    dependencies=[Depends(json_only)],
    operation_id="create_dataset",
)
def create_dataset(
    body: Annotated[DatasetCreation, Depends(json_body(DatasetCreation))], once: Once, services: Use
) -> Response:
    """Stores points, or draws them from a gold mixture and keeps the true component of each."""
    with (
        new_dataset(services, body, name=body.name, columns=body.columns) as new,
        services.database.write() as session,
    ):
        row = add_dataset(services, session, new)
        return once.created(session, as_answer(row), f"/v1/datasets/{row.id}")


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
    responses=UNCHANGING,
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
    """Returns points, with the true components of a gold dataset.

    `sample=N` draws N of them (all when there are no more), in the order of the dataset, with their
    `indices`: enough to look at where all would be too many.
    """
    negotiate(request, [JSON])
    row = _get(services, dataset_id)
    if sample is not None:
        return _sampled(services, request, row, sample, seed)
    n_rows = max(0, min(row.n_samples - offset, row.n_samples if limit is None else limit))
    n_numbers = n_rows * (row.n_features + (row.components_sha256 is not None))
    require_servable(
        20 * n_numbers, f"{n_rows} points of {row.n_features} features", services.settings.max_answer_bytes
    )
    version = f"{row.sha256[:32]}-{(row.components_sha256 or '')[:16]}-{offset}-{n_rows}"
    return unchanging(request, lambda: _points(services, row, offset, n_rows), version)


@router.delete("/{dataset_id}", status_code=204, responses={409: {}}, operation_id="delete_dataset")
def delete_dataset(dataset_id: str, services: Use) -> Response:
    """Deletes a dataset that no queued or running fit needs. Fits and mixtures made from it stay."""
    datasets.delete(services.database, services.store, dataset_id)
    return Response(status_code=204)


def as_answer(row: DatasetRow) -> dict[str, Any]:
    """Returns a row as `Dataset`."""
    return {name: getattr(row, name) for name in Dataset.model_fields}


def _get(services: Services, dataset_id: str) -> DatasetRow:
    with services.database.read() as session:
        return datasets.get(session, dataset_id)


def _sampled(services: Services, request: Request, row: DatasetRow, n_sampled: int, seed: int) -> Response:
    for name in ("limit", "offset"):
        if name in request.query_params:
            raise Unprocessable(
                f"sample does not go with {name}.", [FieldError((name,), "leave it out, or leave sample out")]
            )
    n_rows = min(n_sampled, row.n_samples)
    require_servable(
        n_rows * (row.n_features + 2),
        f"{n_rows} points of {row.n_features} features",
        services.settings.max_answer_bytes,
    )

    def content() -> dict[str, Any]:
        taken = subsample.places(row.n_samples, n_rows, seed)
        points = subsample.rows_at(services, row.sha256, taken).tolist()
        answer = {"points": points, "indices": taken.tolist(), "offset": 0, "n_samples": row.n_samples}
        if row.components_sha256 is not None:
            answer["components"] = subsample.rows_at(services, row.components_sha256, taken)[:, 0].tolist()
        return answer

    return unchanging(
        request, content, f"{row.sha256[:32]}-{(row.components_sha256 or '')[:16]}-{n_rows}@{seed}"
    )


def _points(services: Services, row: DatasetRow, offset: int, n_rows: int) -> dict[str, Any]:
    def read(sha256: str) -> list[Any]:
        return [
            values for chunk in services.store.open(sha256).rows(offset, n_rows) for values in chunk.tolist()
        ]

    answer: dict[str, Any] = {"points": read(row.sha256), "offset": offset, "n_samples": row.n_samples}
    if row.components_sha256 is not None:
        answer["components"] = [component for (component,) in read(row.components_sha256)]
    return answer
