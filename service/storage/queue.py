"""The queue: what a worker does to the fits that it has claimed.

Each claim writes a fresh token, and each later write of that worker names it: one that finds no row has lost
its fit to another and discards what it has.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from service.storage import events, fits, mixtures
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.identifiers import new_id
from service.storage.mixtures import Parameters
from service.storage.owner_limits import record_device_use
from service.storage.owners import acting_for
from service.storage.tables import FitRow

Then = Callable[[Session], object]
"""What is done in the transaction that has ended a fit, and only if it has."""


@dataclass(frozen=True)
class Claim:
    """A fit that a worker holds, with all that it needs to do it."""

    fit_id: str
    owner: str
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
    url: str | None = None
    files: list[dict[str, Any]] | None = field(default=None, repr=False)
    waited_seconds: float = 0.0
    traceparent: str | None = None
    n_checkpoints: int = 0


@dataclass(frozen=True)
class Standing:
    """How a worker stands to its fit after a heartbeat."""

    lost: bool
    cancel_requested: bool = False


def heartbeat(
    database: Database, held: Claim, lease_seconds: float, progress: dict[str, Any] | None = None
) -> Standing:
    """Extends the lease, carries progress out and the wish to cancel back, in one statement.

    Here and below, `progress` may hold `traces`, what is new of them: its event tells them, and the fit's own
    `progress` does not keep them.
    """
    with database.write() as session:
        values: dict[str, Any] = {"lease_expires_at": now_plus(lease_seconds)}
        if progress is not None:
            values |= {"progress": _without_traces(progress), "n_events": FitRow.n_events + 1}
        statement = update(FitRow).where(*held_by(held)).values(**values)
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
        row = session.execute(select(FitRow.cancel_requested_at).where(*held_by(held))).one_or_none()
    return Standing(
        lost=row is None, cancel_requested=row is not None and row.cancel_requested_at is not None
    )


def succeed(
    database: Database,
    held: Claim,
    result: dict[str, Any],
    parameters: Parameters,
    progress: dict[str, Any] | None = None,
    then: Then | None = None,
) -> bool:
    """Writes the mixture and the result in one transaction; False when the fit was another's by then.

    Here and below, `progress` is the last that the fit made, kept with how it ended; if it has traces, an
    event of its own tells them before. `then` is done in the same transaction, if the fit was not another's.
    """
    with database.write() as session:
        mixture_id = new_id("mix")
        written = {"mixture_id": mixture_id} | result
        if not _end(session, held, "succeeded", progress, result=written):
            return False
        with acting_for(held.owner):
            mixtures.add(session, parameters, mixture_id=mixture_id, columns=held.columns, fit_id=held.fit_id)
        if then is not None:
            then(session)
        return True


def fail(
    database: Database,
    held: Claim,
    code: str,
    message: str,
    progress: dict[str, Any] | None = None,
    then: Then | None = None,
) -> bool:
    """Ends the fit as failed; False when it was another's by then."""
    with database.write() as session:
        ended = _end(session, held, "failed", progress, error={"code": code, "message": message})
        if ended and then is not None:
            then(session)
        return ended


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
        return end_as_lost(session, row, max_attempts)


def _locked(session: Session, held: Claim) -> FitRow | None:
    return session.scalar(select(FitRow).where(*held_by(held)).with_for_update())


def _end(session: Session, held: Claim, status: str, progress: dict[str, Any] | None, **columns: Any) -> bool:
    last = None
    if progress is not None:
        columns["progress"] = _without_traces(progress)
        last = progress if progress.get("traces") else None
    return fits.end(session, held.fit_id, held.token, status, last, **columns)


def _without_traces(progress: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in progress.items() if name != "traces"}


def _requeue(session: Session, held: Claim, *, n_workers_lost: int) -> bool:
    record_device_use(session, held.fit_id)
    statement = (
        update(FitRow)
        .where(*held_by(held))
        .values(
            status="queued",
            claimed_at=None,
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


def end_as_lost(session: Session, row: FitRow, max_attempts: int) -> bool:
    """Ends a fit that has lost its last worker; False when it has ended already."""
    message = f"{max_attempts} workers died or fell silent while they worked on this fit."
    error = {"code": "WORKER_LOST", "message": message}
    lost = row.n_workers_lost + 1
    return fits.end(session, row.id, None, "failed", error=error, n_workers_lost=lost)


def held_by(held: Claim) -> tuple[Any, Any]:
    """Returns the conditions that a fit is still this claim's."""
    return FitRow.id == held.fit_id, FitRow.token == held.token
