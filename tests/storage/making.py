"""Rows and files for tests, made the way the service makes them."""

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from service.schemas.fit import FitRequest
from service.storage import claims, datasets, events, fits
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore, Draft
from service.storage.queue import Claim
from service.storage.tables import FitRow

MANY = 1_000_000
NOWHERE = "0" * 26

# A mixture as a fitter hands it over.
PARAMETERS = {
    "weights": np.array([0.25, 0.75]),
    "means": np.array([[0.0, -0.0], [1.0, 2.0]]),
    "covariances": np.array([[[1.0, 0.5], [0.5, 1.0]]] * 2),
    "covariance_type": "full",
}


def written(draft: Draft, rows: ArrayLike, dtype: str = "float64") -> Draft:
    """Returns the draft, finished, with these rows in it."""
    draft.append(np.asarray(rows, dtype=dtype))
    draft.finish()
    return draft


def add_dataset(
    database: Database,
    store: DatasetStore,
    points: ArrayLike = ((0.0, 1.0), (2.0, 3.0), (4.0, 6.0)),
    *,
    components: Sequence[int] | None = None,
    **said: Any,
) -> str:
    """Returns the identifier of a new dataset."""
    points = np.asarray(points, dtype=np.float64)
    with (
        store.draft(points.shape[1]) as draft,
        store.draft(1, "int64") as labels,
        database.write() as session,
    ):
        drawn = None if components is None else written(labels, np.array(components)[:, None], "int64")
        new = datasets.NewDataset(written(draft, points), components=drawn, **said)
        return datasets.add(database, store, session, new).id


def stored_request(dataset_id: str, **fields: Any) -> dict[str, Any]:
    """Returns a request as the API stores it, every default filled in."""
    body = {"dataset": {"id": dataset_id}, "n_components": 1} | fields
    request = FitRequest.model_validate(body)
    stored = request.model_dump(mode="json", exclude={"dataset", "initialization"})
    stored["dataset"] = {"id": dataset_id, "weights_sha256": None}
    stored["initialization"] = request.initialization.model_dump(mode="json", exclude_none=True)
    return stored


def queue_fit(
    database: Database,
    dataset_id: str,
    *,
    weights_sha256: str | None = None,
    estimated_seconds: float = 0.0,
    **fields: Any,
) -> str:
    """Returns the identifier of a new fit, queued."""
    request = stored_request(dataset_id, **fields)
    row = FitRow(
        dataset_id=dataset_id,
        request=request,
        device=request["device"],
        n_devices=1 if request["devices"] == "auto" else request["devices"],
        priority=request["priority"],
        timeout_seconds=request["timeout_seconds"],
        estimated_seconds=estimated_seconds,
        fit_metadata=request["metadata"],
        weights_sha256=weights_sha256,
    )
    with database.write() as session:
        return fits.submit(session, row, max_queued_fits=MANY).id


def claim(database: Database, worker_id: str = "wrk_test", **how: Any) -> Claim | None:
    """Returns the next fit for a worker with a CPU, now its own."""
    options = {"devices": ("auto", "cpu"), "lease_seconds": 30.0, "max_attempts": 3} | how
    return claims.claim(database, claims.Claimant(worker_id, **options))


def claimed(database: Database, **how: Any) -> Claim:
    """Returns the next fit, which must be there."""
    held = claim(database, **how)
    assert held is not None
    return held


def fit_row(database: Database, fit_id: str) -> FitRow:
    """Returns a fit as it stands."""
    with database.read() as session:
        return fits.get(session, fit_id)


def events_of(database: Database, fit_id: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Returns the number, type and data of every event of a fit."""
    with database.read() as session:
        rows = events.after(session, fit_id, 0, MANY)
        return [(row.number, row.type, row.data) for row in rows]


def is_locked(path: Path) -> bool:
    """Returns whether somebody holds the lock on this file."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
