"""The queue: what a worker does to the fits it claims.

Each claim writes a fresh token, and each later write of that worker names it: one that finds no row has lost
its fit to another and discards what it has.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, and_, case, false, or_, select, update
from sqlalchemy.orm import Session

from service.storage import events, fits, mixtures
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.identifiers import new_id
from service.storage.large_fits import LARGE_SECONDS, LOCK, one_to_spare
from service.storage.mixtures import Parameters
from service.storage.tables import LIVE_SQL, DatasetRow, FitRow

_ABANDONED = and_(FitRow.status == "running", FitRow.lease_expires_at < now_plus())


@dataclass(frozen=True)
class Claim:
    """A fit that a worker holds, with all that it needs to do it."""

    fit_id: str
    token: str
    attempt: int
    request: dict[str, Any]
    timeout_seconds: float | None
    weights_sha256: str | None
    dataset_sha256: str
    components_sha256: str | None
    gold: dict[str, Any] | None
    columns: list[str] | None
    n_samples: int
    n_features: int
    checkpoint: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Standing:
    """How a worker stands to its fit after a heartbeat."""

    lost: bool
    cancel_requested: bool = False


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
    spare = one_to_spare(worker_id, lease_seconds)
    try:
        return _claim_next(database, worker_id, devices, lease_seconds, max_attempts, spare)
    except _NoneToSpare:
        return _claim_next(database, worker_id, devices, lease_seconds, max_attempts, false())


class _NoneToSpare(Exception):
    """Others have taken large fits in the same moment, so that this worker must leave its own."""


def _claim_next(
    database: Database,
    worker_id: str,
    devices: Collection[str],
    lease_seconds: float,
    max_attempts: int,
    large_too: ColumnElement[bool],
) -> Claim | None:
    with database.write() as session:
        _settle_abandoned(session, max_attempts)
        row = _next(session, worker_id, devices, lease_seconds, large_too)
        if row is None:
            return None
        if row.estimated_seconds > LARGE_SECONDS:
            database.lock(session, LOCK)  # behind it, others have said what they took
            if not session.scalar(select(large_too)):
                raise _NoneToSpare
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
            started_at=case((FitRow.started_at.is_(None), now_plus()), else_=FitRow.started_at),
            n_events=FitRow.n_events + 1,
        )
        .returning(FitRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return session.scalar(statement)


@lru_cache(maxsize=16)
def _chosen(devices: tuple[str, ...], large_too: ColumnElement[bool]) -> ScalarSelect[str]:
    """Returns the query for what is next; built once, since that takes longer than asking."""
    return (
        select(FitRow.id)
        # In the words of the partial index: SQLite takes it for nothing else.
        .where(LIVE_SQL, or_(FitRow.status == "queued", _ABANDONED), FitRow.device.in_(devices))
        .where(or_(FitRow.estimated_seconds <= LARGE_SECONDS, large_too))
        .order_by(FitRow.priority.desc(), FitRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _claimed(session: Session, row: FitRow) -> Claim:
    dataset = session.get(DatasetRow, row.dataset_id)
    assert dataset is not None, "a dataset stays while a live fit needs it"  # noqa: S101
    assert row.token is not None, "the claim wrote one"  # noqa: S101
    return Claim(
        fit_id=row.id,
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
            _end_as_lost(session, row, max_attempts)


def heartbeat(
    database: Database, held: Claim, lease_seconds: float, progress: dict[str, Any] | None = None
) -> Standing:
    """Extends the lease, carries progress out and the wish to cancel back, in one statement."""
    with database.write() as session:
        values: dict[str, Any] = {"lease_expires_at": now_plus(lease_seconds)}
        if progress is not None:
            values |= {"progress": progress, "n_events": FitRow.n_events + 1}
        statement = update(FitRow).where(*_held(held)).values(**values)
        row = session.execute(
            statement.returning(FitRow.cancel_requested_at, FitRow.n_events).execution_options(
                synchronize_session=False
            )
        ).one_or_none()
        if row is None:
            return Standing(lost=True)
        if progress is not None:
            events.record(session, held.fit_id, row.n_events, "progress", progress)
        return Standing(lost=False, cancel_requested=row.cancel_requested_at is not None)


def standing(database: Database, held: Claim) -> Standing:
    """Returns how a worker stands to its fit, without writing."""
    with database.read() as session:
        row = session.execute(select(FitRow.cancel_requested_at).where(*_held(held))).one_or_none()
    return Standing(
        lost=row is None, cancel_requested=row is not None and row.cancel_requested_at is not None
    )


def checkpoint(database: Database, held: Claim, state: bytes) -> bool:
    """Keeps a state to go on from, for whoever does the fit next; False when it was another's by then."""
    with database.write() as session:
        statement = update(FitRow).where(*_held(held)).values(checkpoint=state).returning(FitRow.id)
        return session.scalar(statement.execution_options(synchronize_session=False)) is not None


def succeed(
    database: Database,
    held: Claim,
    result: dict[str, Any],
    parameters: Parameters,
    progress: dict[str, Any] | None = None,
) -> bool:
    """Writes the mixture and the result in one transaction; False when the fit was another's by then.

    Here and below, `progress` is the last that the fit made, kept with how it ended.
    """
    with database.write() as session:
        mixture_id = new_id("mix")
        written = {"mixture_id": mixture_id} | result
        if not _end(session, held, "succeeded", progress, result=written):
            return False
        mixtures.add(session, parameters, mixture_id=mixture_id, columns=held.columns, fit_id=held.fit_id)
        return True


def fail(
    database: Database, held: Claim, code: str, message: str, progress: dict[str, Any] | None = None
) -> bool:
    """Ends the fit as failed; False when it was another's by then."""
    with database.write() as session:
        return _end(session, held, "failed", progress, error={"code": code, "message": message})


def cancelled(database: Database, held: Claim, progress: dict[str, Any] | None = None) -> bool:
    """Ends the fit as cancelled; False when it was another's by then."""
    with database.write() as session:
        return _end(session, held, "cancelled", progress)


def release(database: Database, held: Claim) -> bool:
    """Puts the fit back into the queue for any worker; False when it was another's by then.

    A fit that was to be cancelled is.
    """
    with database.write() as session:
        row = _locked(session, held)
        if row is None:
            return False
        if row.cancel_requested_at is not None:
            return _end(session, held, "cancelled", None)
        return _requeue(session, held, n_workers_lost=0)


def lose(database: Database, held: Claim, max_attempts: int) -> bool:
    """Says that the fit's process died: back into the queue, or failed when that was the last attempt.

    A fit that was to be cancelled is.
    """
    with database.write() as session:
        row = _locked(session, held)
        if row is None:
            return False
        if row.cancel_requested_at is not None:
            return _end(session, held, "cancelled", None)
        if row.n_workers_lost + 1 < max_attempts:
            return _requeue(session, held, n_workers_lost=1)
        return _end_as_lost(session, row, max_attempts)


def _locked(session: Session, held: Claim) -> FitRow | None:
    return session.scalar(select(FitRow).where(*_held(held)).with_for_update())


def _end(session: Session, held: Claim, status: str, progress: dict[str, Any] | None, **columns: Any) -> bool:
    if progress is not None:
        columns["progress"] = progress
    return fits.end(session, and_(*_held(held)), status, **columns) is not None


def _requeue(session: Session, held: Claim, *, n_workers_lost: int) -> bool:
    statement = (
        update(FitRow)
        .where(*_held(held))
        .values(
            status="queued",
            token=None,
            worker_id=None,
            lease_expires_at=None,
            n_workers_lost=FitRow.n_workers_lost + n_workers_lost,
            n_events=FitRow.n_events + 1,
        )
        .returning(FitRow.n_events)
        .execution_options(synchronize_session=False)
    )
    n_events = session.scalar(statement)
    if n_events is None:
        return False
    events.record(session, held.fit_id, n_events, "status", {"status": "queued"})
    return True


def _end_as_lost(session: Session, row: FitRow, max_attempts: int) -> bool:
    message = f"{max_attempts} workers died or fell silent while they worked on this fit."
    error = {"code": "WORKER_LOST", "message": message}
    lost = row.n_workers_lost + 1
    return fits.end(session, FitRow.id == row.id, "failed", error=error, n_workers_lost=lost) is not None


def _held(held: Claim) -> tuple[Any, Any]:
    return FitRow.id == held.fit_id, FitRow.token == held.token
