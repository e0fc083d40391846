"""Claims: how a worker comes by its next fit."""

from collections.abc import Collection
from functools import lru_cache
from typing import TypeVar

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, false, or_, select, update
from sqlalchemy.orm import Session

from service.storage import events, fits
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.identifiers import new_id
from service.storage.large_fits import LARGE_SECONDS, LOCK, one_to_spare
from service.storage.queue import Claim, end_as_lost
from service.storage.tables import LIVE_SQL, DatasetRow, FitRow

Value = TypeVar("Value")

_ABANDONED = and_(FitRow.status == "running", FitRow.lease_expires_at < now_plus())


def claim(
    database: Database, worker_id: str, devices: Collection[str], *, lease_seconds: float, max_attempts: int
) -> Claim | None:
    """Returns the next fit for a worker, now its own, or None when there is none for it.

    The highest priority goes first, then the oldest. But while two or more workers of this one's device type
    are alive, at least one of them is without a large fit: whoever would be the last to take one leaves it
    and takes the next that is not large. So small fits wait for small fits only, as long as what was
    estimated holds; the price is that one worker idles while there is nothing but large fits. A worker that
    joins or dies counts once it has registered, or has been silent for a lease.

    Args:
        database: Where the queue is.
        worker_id: Who claims.
        devices: The `device` values of requests that this worker can serve.
        lease_seconds: How long the claim holds without a heartbeat.
        max_attempts: After so many lost workers a fit fails with WORKER_LOST.
    """
    with database.write() as session:
        _settle_abandoned(session, max_attempts)
        spare = one_to_spare(worker_id, lease_seconds)
        next_is_large = session.scalar(
            _first(tuple(devices), spare, FitRow.estimated_seconds > LARGE_SECONDS)
        )
        if next_is_large is None:
            return None
        if next_is_large:
            # Chosen behind it only: two workers that choose at once would take both, and the one that then
            # has to leave its own may be the one with the older.
            database.lock(session, LOCK)
        row = _next(session, worker_id, devices, lease_seconds, spare if next_is_large else false())
        if row is None:
            return None
        data = {"status": "running", "attempt": row.attempt, "worker_id": worker_id}
        events.record(session, row.id, row.n_events, "status", data)
        return _claimed(session, row)


def _next(
    session: Session,
    worker_id: str,
    devices: Collection[str],
    lease_seconds: float,
    large_too: ColumnElement[bool],
) -> FitRow | None:
    """Returns the fit that is next, claimed, large ones only under a condition."""
    chosen = _chosen(tuple(devices), large_too)
    taken_over = case((FitRow.status == "running", 1), else_=0)
    statement = (
        update(FitRow)
        .where(FitRow.id == chosen)
        .values(
            status="running",
            token=new_id("tok"),
            worker_id=worker_id,
            lease_expires_at=now_plus(lease_seconds),
            attempt=FitRow.attempt + 1,
            n_workers_lost=FitRow.n_workers_lost + taken_over,
            claimed_at=now_plus(),
            started_at=case((FitRow.started_at.is_(None), now_plus()), else_=FitRow.started_at),
            n_events=FitRow.n_events + 1,
        )
        .returning(FitRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return session.scalar(statement)


@lru_cache(maxsize=16)
def _chosen(devices: tuple[str, ...], large_too: ColumnElement[bool]) -> ScalarSelect[str]:
    """Returns the query for what is next and free, locked."""
    return _first(devices, large_too, FitRow.id).with_for_update(skip_locked=True).scalar_subquery()


@lru_cache(maxsize=32)
def _first(
    devices: tuple[str, ...], large_too: ColumnElement[bool], wanted: ColumnElement[Value]
) -> Select[Value]:
    """Returns the query for something of the next fit; built once, since that takes longer than asking."""
    return (
        select(wanted)
        # In the words of the partial index: SQLite takes it for nothing else.
        .where(LIVE_SQL, or_(FitRow.status == "queued", _ABANDONED), FitRow.device.in_(devices))
        .where(or_(FitRow.estimated_seconds <= LARGE_SECONDS, large_too))
        .order_by(FitRow.priority.desc(), FitRow.id)
        .limit(1)
    )


def _claimed(session: Session, row: FitRow) -> Claim:
    dataset = session.get(DatasetRow, row.dataset_id)
    assert dataset is not None, "a dataset stays while a live fit needs it"  # noqa: S101
    assert row.token is not None, "the claim wrote one"  # noqa: S101
    return Claim(
        fit_id=row.id,
        owner=row.owner,
        token=row.token,
        attempt=row.attempt,
        request=row.request,
        timeout_seconds=row.timeout_seconds,
        weights_sha256=row.weights_sha256,
        dataset_sha256=dataset.sha256,
        components_sha256=dataset.components_sha256,
        gold=dataset.gold,
        columns=dataset.columns,
        n_samples=dataset.n_samples,
        n_features=dataset.n_features,
        waited_seconds=0.0 if row.claimed_at is None else (row.claimed_at - row.created_at).total_seconds(),
        traceparent=row.traceparent,
        checkpoint=row.checkpoint,
    )


def _settle_abandoned(session: Session, max_attempts: int) -> None:
    """Ends the fits of dead workers that nobody should try again: cancelled, or too often fatal."""
    over = or_(FitRow.cancel_requested_at.is_not(None), FitRow.n_workers_lost + 1 >= max_attempts)
    query = select(FitRow).where(_ABANDONED, over).with_for_update(skip_locked=True)
    for row in session.scalars(query):
        if row.cancel_requested_at is not None:
            fits.end(session, FitRow.id == row.id, "cancelled")
        else:
            end_as_lost(session, row, max_attempts)
