"""Fits as their clients see them: submit, read, cancel, delete. What workers do to them is in `queue`."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, cast

from sqlalchemy import Table, Update, bindparam, func, inspect, select, update
from sqlalchemy.orm import Session

from service.errors import Conflict, ServiceError
from service.storage import events
from service.storage.columns import now_plus
from service.storage.owner_limits import record_device_use
from service.storage.rows import find, newest_first
from service.storage.tables import LIVE, LIVE_SQL, CheckpointPartRow, FitRow

_PARTS = cast(Table, CheckpointPartRow.__table__)
_FORGET_CHECKPOINTS = _PARTS.delete().where(_PARTS.c.fit_id == bindparam("fit"))
# Of the table, not of the class: objects that nobody changes would cost more than the statements.
_FITS = cast(Table, FitRow.__table__)
_N_QUEUED = select(func.count()).select_from(_FITS).where(LIVE_SQL, _FITS.c.status == "queued")
_GIVEN = tuple((attribute.key, attribute.columns[0].name) for attribute in inspect(FitRow).column_attrs)
_DEFAULTS = ("id", "owner", "status", "created_at", "attempt", "priority")
_INSERT = _FITS.insert().returning(*(_FITS.c[name] for name in _DEFAULTS))


class FitState(NamedTuple):
    """As much of a fit as a waiting client needs to know whether to look again."""

    status: str
    n_events: int


def submit(session: Session, row: FitRow, max_queued_fits: int) -> FitRow:
    """Returns a new fit, queued, with its defaults; it is of no session.

    Raises:
        ServiceError: The queue is full (429).
    """
    n_queued = session.scalar(_N_QUEUED) or 0
    if n_queued >= max_queued_fits:
        raise ServiceError(
            "QUEUE_FULL",
            429,
            f"{n_queued} fits are queued already; try again later.",
            headers={"Retry-After": "10"},
        )
    known = vars(row)
    given = {column: known[name] for name, column in _GIVEN if name in known}
    for name, value in session.execute(_INSERT, given | {"n_events": 1}).mappings().one().items():
        setattr(row, name, value)
    events.record(session, row.id, 1, "status", {"status": "queued"})
    return row


def get(session: Session, fit_id: str) -> FitRow:
    """Returns a fit.

    Raises:
        NotFound: There is none with this identifier.
    """
    return find(session, FitRow, "fit", fit_id)


def page(
    session: Session,
    page_size: int,
    before: str | None,
    *,
    status: str | None = None,
    dataset_id: str | None = None,
) -> tuple[list[FitRow], bool]:
    """Returns fits, newest first, and whether more follow."""
    query = select(FitRow)
    if status is not None:
        query = query.where(FitRow.status == status)
    if dataset_id is not None:
        query = query.where(FitRow.dataset_id == dataset_id)
    return newest_first(session, query, FitRow.id, page_size, before)


def states(session: Session, fit_ids: Iterable[str]) -> dict[str, FitState]:
    """Returns where fits stand; one that was deleted is missing."""
    query = select(FitRow.id, FitRow.status, FitRow.n_events).where(FitRow.id.in_(list(fit_ids)))
    return {row.id: FitState(row.status, row.n_events) for row in session.execute(query)}


def cancel(session: Session, fit_id: str) -> FitRow:
    """Returns the fit, cancelled if it was queued, asked to stop if it is running, as it was if it has ended.

    Raises:
        NotFound: There is none with this identifier.
    """
    row = find(session, FitRow, "fit", fit_id, lock=True)
    if row.status == "queued":
        ended = end(session, fit_id, None, "cancelled")
        assert ended, "the row is locked"  # noqa: S101
        session.refresh(row)
    elif row.status == "running" and row.cancel_requested_at is None:
        session.execute(update(FitRow).where(FitRow.id == fit_id).values(cancel_requested_at=now_plus()))
        events.announce(session)
    return row


def end(
    session: Session,
    fit_id: str,
    token: str | None,
    status: str,
    told: dict[str, Any] | None = None,
    **columns: Any,
) -> bool:
    """Puts a fit into a final status, with its event; False when it has ended, or its claim is another's.

    Args:
        session: A writing session.
        fit_id: The fit.
        token: Of the claim that ends it; None ends it whoever holds it.
        status: The final one.
        told: What a progress event tells before that, if it is given.
        columns: What else to write, by the names of the table's columns.
    """
    given = {"fit": fit_id, "held_token": token, "new_status": status}
    given |= {f"new_{name}": value for name, value in columns.items()}
    n_more = 1 if told is None else 2
    statement = _ending(token is not None, n_more, tuple(sorted(columns)))
    row = session.execute(statement, given).one_or_none()
    if row is None:
        return False
    n_events = row.n_events
    if row.n_checkpoints:
        session.execute(_FORGET_CHECKPOINTS, {"fit": fit_id})
    data = {"status": status} | ({"error": columns["error"]} if columns.get("error") else {})
    happened = [("status", data)] if told is None else [("progress", told), ("status", data)]
    events.record_all(session, fit_id, n_events, happened)
    record_device_use(session, fit_id)
    return True


@lru_cache(maxsize=32)
def _ending(of_a_claim: bool, n_more_events: int, names: tuple[str, ...]) -> Update:
    """Returns the statement that ends a fit; built once, since that takes longer than running it."""
    written: dict[str, Any] = {
        "status": bindparam("new_status"),
        "finished_at": now_plus(),
        "n_events": _FITS.c.n_events + n_more_events,
        **dict.fromkeys(("token", "lease_expires_at", "worker_id", "checkpoint")),
    }
    written |= {name: bindparam(f"new_{name}", type_=_FITS.c[name].type) for name in names}
    statement = update(_FITS).where(_FITS.c.id == bindparam("fit"), _FITS.c.status.in_(LIVE))
    if of_a_claim:
        statement = statement.where(_FITS.c.token == bindparam("held_token"))
    return statement.values(written).returning(_FITS.c.n_events, _FITS.c.n_checkpoints)


def delete(session: Session, fit_id: str) -> str | None:
    """Deletes a fit and its events; its mixture stays. Returns the hash of its weights, if it had any.

    Raises:
        NotFound: There is none with this identifier.
        Conflict: It has not ended.
    """
    row = find(session, FitRow, "fit", fit_id, lock=True)
    if row.status in LIVE:
        raise Conflict("FIT_NOT_ENDED", f"The fit is {row.status}; cancel it first, or let it end.")
    session.delete(row)
    return row.weights_sha256
