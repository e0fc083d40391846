"""Fits on their way into the queue: whatever can be refused is refused here, before a 202."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from service.api.effort import estimated_seconds
from service.api.json_points import Posted
from service.api.new_datasets import add_dataset, new_dataset
from service.api.services import Services
from service.api.specifications import mixture_of, parameters_answer
from service.codecs.points import Rows
from service.errors import FieldError, Unprocessable
from service.mixture import FitOptions, InvalidFit, estimate_fit_bytes
from service.schemas.fit import Adam, FitRequest, HeldOut, MixtureStart, Sgd
from service.storage import datasets, fits, mixtures, owner_limits, workers
from service.storage.database import Session
from service.storage.dataset_store import Draft
from service.storage.datasets import NewDataset
from service.storage.tables import DatasetRow, FitRow, MixtureRow
from service.storage.together import Answer

_ROW_GROUPS_IN_HAND = 4


def queue_fit(
    services: Services, body: Posted[FitRequest], answer: Callable[[Session, FitRow], Answer]
) -> Answer:
    """Returns the answer about a new fit, made in the transaction that queues it and stores what came along.

    Raises:
        NotFound: The dataset or the mixture to start from does not exist.
        Unprocessable: The request cannot be done.
        ServiceError: The queue is full.
    """
    request = body.fields
    with ExitStack() as stack:
        new = None
        if request.dataset.id is None:
            points = body.points(("dataset", "points"))
            new = stack.enter_context(new_dataset(services, request.dataset, points, place=("dataset",)))
        weights = _weights_draft(services, body.weights(("dataset", "weights")), stack)
        return services.database.write_together(
            lambda session: answer(session, _queued(services, session, request, new, weights))
        )


def _queued(
    services: Services,
    session: Session,
    request: FitRequest,
    new: NewDataset | None,
    weights: Draft | None,
) -> FitRow:
    owner_limits.require_room_for_fit(services.database, session, services.limits)
    if new is not None:
        dataset = add_dataset(services, session, new)
    else:
        dataset = datasets.get(session, request.dataset.id or "", for_fit=True, with_files=True)
    stored = _stored(session, request, dataset, weights)
    _require_doable(request, dataset, weights)
    _require_near(services, request, dataset)
    _require_device(services, session, request, dataset)
    if weights is not None:
        datasets.publish(services.database, services.store, session, weights)
    row = FitRow(
        dataset_id=dataset.id,
        request=stored,
        device=request.device,
        n_devices=_n_devices(request),
        priority=request.priority,
        timeout_seconds=request.timeout_seconds,
        estimated_seconds=estimated_seconds(request, dataset.n_samples, dataset.n_features),
        fit_metadata=request.metadata,
        weights_sha256=weights.sha256 if weights else None,
        traceparent=services.tracing.traceparent(),
    )
    return fits.submit(session, row, services.settings.max_queued_fits)


def _weights_draft(services: Services, weights: Iterator[Rows] | None, stack: ExitStack) -> Draft | None:
    if weights is None:
        return None
    draft = stack.enter_context(services.store.draft(1))
    for rows in weights:
        draft.append(rows)
    draft.finish()
    return draft


def _stored(
    session: Session, request: FitRequest, dataset: DatasetRow, weights: Draft | None
) -> dict[str, Any]:
    """Returns the request as kept: every default filled in, data by reference, the start's parameters whole.

    A mixture to start from is copied, so that the fit stays a function of its request when the mixture goes.
    """
    stored = request.model_dump(mode="json", exclude={"dataset", "initialization"})
    stored["dataset"] = {"id": dataset.id, "weights_sha256": weights.sha256 if weights else None}
    stored["initialization"] = request.initialization.model_dump(mode="json", exclude_none=True)
    if isinstance(request.initialization, MixtureStart):
        stored["initialization"]["mixture"] = _start(
            session, request, request.initialization, dataset.n_features
        )
    return stored


def _start(session: Session, request: FitRequest, start: MixtureStart, n_features: int) -> dict[str, Any]:
    if start.mixture is not None:
        parameters = parameters_answer(mixture_of(start.mixture, ("initialization", "mixture")))
    else:
        row: MixtureRow = mixtures.get(session, start.mixture_id or "")
        arrays = {name: getattr(row, name).tolist() for name in ("weights", "means", "covariances")}
        parameters = arrays | {"covariance_type": row.covariance_type}
    n_components = len(parameters["weights"])
    if any(wanted != n_components for wanted in _list_of(request.n_components)):
        raise _refusal(("n_components",), f"must be {n_components}, as in the mixture to start from")
    if len(parameters["means"][0]) != n_features:
        found = len(parameters["means"][0])
        raise _refusal(("initialization",), f"the mixture has {found} features; the dataset has {n_features}")
    return parameters


def _require_doable(request: FitRequest, dataset: DatasetRow, weights: Draft | None) -> None:
    n_fitted = dataset.n_samples
    if weights is not None and weights.n_rows != dataset.n_samples:
        raise _refusal(
            ("dataset", "weights"), f"there are {weights.n_rows} weights for {dataset.n_samples} points"
        )
    if isinstance(request.selection, HeldOut):
        n_fitted -= max(1, round(request.selection.fraction * dataset.n_samples))
    try:
        _options(request).check()
    except InvalidFit as error:
        raise _refusal(tuple(str(part) for part in error.path), str(error)) from error
    most = max(_list_of(request.n_components))
    if most > n_fitted:
        raise _refusal(
            ("n_components",), f"{most} components need at least as many points; there are {n_fitted}"
        )


def _require_near(services: Services, request: FitRequest, dataset: DatasetRow) -> None:
    """Refuses minibatches of points that stay elsewhere, unless all of them can be kept in memory.

    Each is drawn from all over the dataset, so every step would fetch all of it.
    """
    limit = services.settings.row_group_cache_bytes
    minibatches = isinstance(request.optimizer, Sgd | Adam) and request.optimizer.batch_size is not None
    if dataset.url is not None and minibatches and _size_bytes(dataset) > limit:
        raise _refusal(
            ("optimizer", "batch_size"),
            f"the points of this dataset stay at its URL and take {_size_bytes(dataset)} bytes, of which "
            f"{limit} are kept in memory: each minibatch would fetch most of them anew. Leave batch_size "
            "out, or take em or lbfgs",
        )


def _size_bytes(dataset: DatasetRow) -> int:
    """Returns how large the points are as float64."""
    return dataset.n_samples * dataset.n_features * 8


def _fetched_bytes(services: Services, dataset: DatasetRow) -> int:
    """Returns what a fit holds of points that stay elsewhere: what is kept, and the row groups in hand."""
    if dataset.url is None:
        return 0
    largest: int = max(n_rows for file in dataset.files or [] for n_rows in file["n_rows"])
    in_hand = _ROW_GROUPS_IN_HAND * largest * dataset.n_features * 8
    return min(_size_bytes(dataset), services.settings.row_group_cache_bytes + in_hand)


def _require_device(services: Services, session: Session, request: FitRequest, dataset: DatasetRow) -> None:
    """Refuses a fit that no worker has the device or the memory for.

    With no worker at all only a named GPU is refused: a worker may come, and it will have a CPU.
    """
    alive = workers.devices(session, services.settings.lease_seconds)
    able = [device for device in alive if request.device in device.serves]
    if not able and (alive or request.device.startswith("cuda")):
        there = ", ".join(sorted({device.device for device in alive})) or "none"
        raise _refusal(
            ("device",), f"no worker has it; devices of workers: {there}", code="DEVICE_UNAVAILABLE"
        )
    most = max((device.n_devices for device in able), default=None)
    if most is not None and _n_devices(request) > most:
        raise _refusal(
            ("devices",),
            f"{request.devices} are more than any worker has; ask for {most} at most, as the largest has",
            code="DEVICE_UNAVAILABLE",
        )
    if able:
        enough = [device for device in able if device.n_devices >= _n_devices(request)]
        pairs = [(_needed(services, request, dataset, device), device.memory_bytes) for device in enough]
        needed, largest = max(pairs, key=lambda pair: pair[1] - pair[0])
        if needed > largest:
            raise Unprocessable(
                f"The fit needs about {needed} bytes of memory; the largest worker has {largest}. "
                "Use fewer components or restarts, a simpler covariance_type, or fewer points.",
                code="FIT_TOO_LARGE",
            )


def _needed(services: Services, request: FitRequest, dataset: DatasetRow, device: workers.Device) -> int:
    """Returns how many bytes the fit needs on a device.

    Of several GPUs each has its share; the processes on a CPU have one memory together.
    """
    size = _n_devices(request)
    kind = "cpu" if request.device == "cpu" else device.type
    needed = estimate_fit_bytes(
        -(-dataset.n_samples // size),
        dataset.n_features,
        _options(request),
        kind,
        weighted=request.dataset.weights is not None,
        fetched_bytes=_fetched_bytes(services, dataset),
    )
    return needed * size if kind == "cpu" else needed


def _n_devices(request: FitRequest) -> int:
    """Returns how many devices a worker must have to do the fit."""
    return 1 if request.devices == "auto" else request.devices


def _options(request: FitRequest) -> FitOptions:
    return FitOptions(
        n_components=tuple(_list_of(request.n_components)),
        covariance_type=tuple(_list_of(request.covariance_type)),
        optimizer=request.optimizer.model_dump(),
        n_init=request.n_init,
        criterion=request.selection.criterion,
        dtype=request.dtype,
    )


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _refusal(path: tuple[str, ...], message: str, code: str = "INVALID_REQUEST") -> Unprocessable:
    return Unprocessable(f"{'.'.join(path)}: {message}.", [FieldError(path, message)], code=code)
