"""Claims: how a worker comes by its next fit."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    exists,
    false,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from service.storage import events, fits, running_fits
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.identifiers import new_id
from service.storage.large_fits import LARGE_SECONDS, LOCK, one_to_spare
from service.storage.queue import Claim, end_as_lost
from service.storage.tables import LIVE_SQL, DatasetRow, FitRow

# All queries here are built once: that takes longer than asking.
# In the words of the partial index: PostgreSQL may plan for any status without them, and read all fits.
_ABANDONED = and_(LIVE_SQL, FitRow.status == "running", FitRow.lease_expires_at < now_plus())
# What is asked with every claim is asked of the tables, for no objects come of it.
_FITS = cast(Table, FitRow.__table__)
_COLUMN = _FITS.c
_CLAIMED = (
    "id", "owner", "token", "attempt", "request", "timeout_seconds", "weights_sha256", "dataset_id",
    "n_checkpoints", "created_at", "claimed_at", "traceparent", "n_events",
)  # fmt: skip
_DATASETS = DatasetRow.__table__.c
_DATASET = select(
    _DATASETS.sha256.label("dataset_sha256"),
    _DATASETS.components_sha256,
    _DATASETS.gold,
    _DATASETS["columns"],
    _DATASETS.n_samples,
    _DATASETS.n_features,
    _DATASETS.url,
    _DATASETS.files,
).where(_DATASETS.id == bindparam("wanted_id"))
_FIRST = (FitRow.priority.desc(), FitRow.id)
_NO = false()


@dataclass(frozen=True)
class Claimant:
    """Who claims, and how.

    Attributes:
        worker_id: The worker.
        devices: The `device` values of requests that it can serve.
        lease_seconds: How long a claim holds without a heartbeat.
        max_attempts: After so many lost workers a fit fails with WORKER_LOST.
        max_running_fits: Of one owner, unless it has a limit of its own; None for no limit.
        n_devices: How many devices the worker has; fits that ask for more are not for it.
    """

    worker_id: str
    devices: tuple[str, ...]
    lease_seconds: float
    max_attempts: int
    max_running_fits: int | None = None
    n_devices: int = 1


def claim(database: Database, claimant: Claimant) -> Claim | None:
    """Returns the next fit for a worker, now its own, or None when there is none for it.

    The highest priority goes first, then the oldest. But while two or more workers of this one's device type
    are alive, at least one of them is without a large fit: whoever would be the last to take one leaves it
    and takes the next that is not large. So small fits wait for small fits only, as long as what was
    estimated holds; the price is that one worker idles while there is nothing but large fits. A worker that
    joins or dies counts once it has registered, or has been silent for a lease.

    Queued fits of an owner of whose fits as many run as may are left where they are.
    """
    with database.write() as session:
        seen = _look(session, claimant)
        if seen.any_to_settle:
            _settle_abandoned(session, claimant.max_attempts)
            seen = _look(session, claimant)
        return _claim(database, session, claimant, seen)


def claim_after(database: Database, session: Session, claimant: Claimant) -> Claim | None:
    """Does as `claim` in the transaction that has ended the worker's fit, which saves a wait for the disk.

    It returns None too when dead workers left fits that are to be ended: that locks what several owners have
    used, in their order, and this transaction holds what one of them has. `claim` does it.
    """
    seen = _look(session, claimant)
    return None if seen.any_to_settle else _claim(database, session, claimant, seen)


def _look(session: Session, claimant: Claimant) -> Row[Any]:
    """Returns what `_outlook` asks for."""
    spare = one_to_spare(claimant.worker_id, claimant.lease_seconds)
    outlook = _outlook(claimant.devices, spare, claimant.max_running_fits, claimant.max_attempts)
    return session.connection().execute(outlook, {"size_of_worker": claimant.n_devices}).one()


def _claim(database: Database, session: Session, claimant: Claimant, seen: Row[Any]) -> Claim | None:
    if seen.next_is_large is None:
        return None
    if seen.next_is_large:
        # Chosen behind it only: two workers that choose at once would take both, and the one that then
        # has to leave its own may be the one with the older.
        database.lock(session, LOCK)
    if seen.any_limited:
        database.lock(session, running_fits.LOCK)
    spare = one_to_spare(claimant.worker_id, claimant.lease_seconds)
    large_too = spare if seen.next_is_large else _NO
    claiming = _claiming(claimant.devices, large_too, claimant.max_running_fits, claimant.lease_seconds)
    given = {"new_token": new_id("tok"), "claimer": claimant.worker_id, "size_of_worker": claimant.n_devices}
    row = session.connection().execute(claiming, given).one_or_none()
    if row is None:
        return None
    data = {"status": "running", "attempt": row.attempt, "worker_id": claimant.worker_id}
    events.record(session, row.id, row.n_events, "status", data)
    return _claimed(session, row)


@lru_cache(maxsize=32)
def _outlook(
    devices: tuple[str, ...], large_too: ColumnElement[bool], max_running_fits: int | None, max_attempts: int
) -> Select[Any]:
    """Returns the query for whether the next fit is large, and whether dead workers left some to be ended."""
    is_open = _open_to(devices, large_too, max_running_fits)
    next_is_large = select(FitRow.estimated_seconds > LARGE_SECONDS).where(*is_open)
    left = exists().where(_ABANDONED, _over(max_attempts))
    return select(
        next_is_large.order_by(*_FIRST).limit(1).scalar_subquery().label("next_is_large"),
        left.label("any_to_settle"),
        running_fits.any_limited(max_running_fits).label("any_limited"),
    )


@lru_cache(maxsize=32)
def _claiming(
    devices: tuple[str, ...],
    large_too: ColumnElement[bool],
    max_running_fits: int | None,
    lease_seconds: float,
) -> Update:
    """Returns the statement that claims what is next and free, large ones only under a condition."""
    is_open = _open_to(devices, large_too, max_running_fits)
    chosen = select(FitRow.id).where(*is_open).order_by(*_FIRST).limit(1)
    taken_over = case((_COLUMN.status == "running", 1), else_=0)
    return (
        update(_FITS)
        .where(_COLUMN.id == chosen.with_for_update(skip_locked=True).scalar_subquery())
        .values(
            status="running",
            token=bindparam("new_token"),
            worker_id=bindparam("claimer"),
            lease_expires_at=now_plus(lease_seconds),
            attempt=_COLUMN.attempt + 1,
            n_workers_lost=_COLUMN.n_workers_lost + taken_over,
            claimed_at=now_plus(),
            started_at=func.coalesce(_COLUMN.started_at, now_plus()),
            n_events=_COLUMN.n_events + 1,
        )
        .returning(*(_COLUMN[name] for name in _CLAIMED))
    )


def _open_to(
    devices: tuple[str, ...], large_too: ColumnElement[bool], max_running_fits: int | None
) -> tuple[Any, ...]:
    may_run = FitRow.owner.not_in(running_fits.owners_at_limit(max_running_fits))
    return (
        # In the words of the partial index: SQLite takes it for nothing else.
        LIVE_SQL,
        or_(and_(FitRow.status == "queued", may_run), _ABANDONED),
        FitRow.device.in_(devices),
        FitRow.n_devices <= bindparam("size_of_worker"),
        or_(FitRow.estimated_seconds <= LARGE_SECONDS, large_too),
    )


def _over(max_attempts: int) -> ColumnElement[bool]:
    """Whether nobody should try an abandoned fit again: it is to be cancelled, or was too often fatal."""
    return or_(FitRow.cancel_requested_at.is_not(None), FitRow.n_workers_lost + 1 >= max_attempts)


def _claimed(session: Session, row: Row[Any]) -> Claim:
    # It is there: a dataset stays while a live fit needs it.
    dataset = session.connection().execute(_DATASET, {"wanted_id": row.dataset_id}).mappings().one()
    return Claim(
        fit_id=row.id,
        owner=row.owner,
        token=row.token,
        attempt=row.attempt,
        request=row.request,
        timeout_seconds=row.timeout_seconds,
        weights_sha256=row.weights_sha256,
        waited_seconds=0.0 if row.claimed_at is None else (row.claimed_at - row.created_at).total_seconds(),
        traceparent=row.traceparent,
        n_checkpoints=row.n_checkpoints,
        **dataset,
    )


def _settle_abandoned(session: Session, max_attempts: int) -> None:
    """Ends the fits of dead workers that nobody should try again.

    Owner by owner: whoever ends others' fits at the same time then locks what their owners have used in the
    same order, and neither waits for the other.
    """
    query = select(FitRow).where(_ABANDONED, _over(max_attempts)).order_by(FitRow.owner, FitRow.id)
    for row in session.scalars(query.with_for_update(skip_locked=True)):
        if row.cancel_requested_at is not None:
            fits.end(session, row.id, None, "cancelled")
        else:
            end_as_lost(session, row, max_attempts)
