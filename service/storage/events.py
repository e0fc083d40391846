"""What happens to fits, numbered from 1, and the word that something changed."""

from collections.abc import Iterator
from typing import Any, cast

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from service.storage.tables import FitEventRow

CHANNEL = "mixserve"
_INSERT = insert(cast(Table, FitEventRow.__table__))
# On SQLite who waits sees the file change.
_INSERTS = {"sqlite": _INSERT, "postgresql": _INSERT.returning(func.pg_notify(CHANNEL, ""))}


def record(session: Session, fit_id: str, number: int, kind: str, data: dict[str, Any]) -> None:
    """Writes an event and tells whoever listens, in the transaction that made it happen.

    Args:
        session: A writing session that holds the fit's row.
        fit_id: The fit.
        number: The fit's `n_events` after counting this one.
        kind: `status`, `progress` or `log`.
        data: What the event says.
    """
    record_all(session, fit_id, number, [(kind, data)])


def record_all(
    session: Session, fit_id: str, number: int, happened: list[tuple[str, dict[str, Any]]]
) -> None:
    """Writes events that happened together, kind and data of each; `number` is that of the last."""
    insert_and_tell = _INSERTS[session.get_bind().dialect.name]
    first = number - len(happened) + 1
    rows = [
        {"fit_id": fit_id, "number": first + place, "type": kind, "data": data}
        for place, (kind, data) in enumerate(happened)
    ]
    session.execute(insert_and_tell, rows)


def announce(session: Session) -> None:
    """Wakes those who wait for a change that is no event, at the commit."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


def after(session: Session, fit_id: str, number: int, limit: int) -> list[FitEventRow]:
    """Returns the events of a fit that follow a number, oldest first."""
    query = select(FitEventRow).where(FitEventRow.fit_id == fit_id, FitEventRow.number > number)
    return list(session.scalars(query.order_by(FitEventRow.number).limit(limit)))


def progress_of(session: Session, fit_id: str) -> Iterator[dict[str, Any]]:
    """Yields the data of every progress event of a fit, oldest first."""
    query = select(FitEventRow.data).where(FitEventRow.fit_id == fit_id, FitEventRow.type == "progress")
    yield from session.scalars(query.order_by(FitEventRow.number).execution_options(yield_per=1000))
