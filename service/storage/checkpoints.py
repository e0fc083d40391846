"""Checkpoints of running fits, in parts: none is too large, and none keeps other writers waiting for long."""

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from service.storage.database import Database
from service.storage.queue import Claim, held_by
from service.storage.tables import CheckpointPartRow, FitRow

PART_BYTES = 1 << 22


def begin(database: Database, held: Claim, data: bytes, *, last: bool) -> int | None:
    """Keeps the first part of another checkpoint; its number, or None when the fit was another's by then."""
    with database.write() as session:
        counted = {"n_checkpoints": FitRow.n_checkpoints + 1}
        statement = update(FitRow).where(*held_by(held)).values(counted).returning(FitRow.n_checkpoints)
        number = session.scalar(statement.execution_options(synchronize_session=False))
        if number is not None:
            _add(session, held.fit_id, number, 0, data, last)
        return number


def go_on(database: Database, held: Claim, number: int, part: int, data: bytes, *, last: bool) -> bool:
    """Keeps another part of a checkpoint; False when the fit was another's by then."""
    with database.write() as session:
        found = session.scalar(select(FitRow.id).where(*held_by(held)).with_for_update())
        if found is not None:
            _add(session, held.fit_id, number, part, data, last)
        return found is not None


def read(database: Database, fit_id: str) -> bytes | None:
    """Returns the last whole checkpoint of a fit; only who holds the fit may count on it."""
    row = CheckpointPartRow
    with database.read() as session:
        whole = select(func.max(row.checkpoint)).where(row.fit_id == fit_id, row.last).scalar_subquery()
        query = select(row.data).where(row.fit_id == fit_id, row.checkpoint == whole).order_by(row.part)
        parts = list(session.scalars(query))
    return b"".join(parts) if parts else None


def _add(session: Session, fit_id: str, number: int, part: int, data: bytes, last: bool) -> None:
    values = {"fit_id": fit_id, "checkpoint": number, "part": part, "last": last, "data": data}
    session.execute(insert(CheckpointPartRow).values(values))
    if last:
        earlier = delete(CheckpointPartRow).where(
            CheckpointPartRow.fit_id == fit_id, CheckpointPartRow.checkpoint < number
        )
        session.execute(earlier.execution_options(synchronize_session=False))
