"""Rows by identifier: one of them, or pages of them, newest first."""

from typing import Any, TypeVar

from sqlalchemy import Select
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ForUpdateParameter

from service.errors import NotFound
from service.storage.identifiers import is_id

Row = TypeVar("Row")


def find(
    session: Session, table: type[Row], noun: str, identifier: str, lock: ForUpdateParameter = None
) -> Row:
    """Returns a row by its identifier.

    Args:
        session: Where to read.
        table: Which table.
        noun: What its rows are called in an error.
        identifier: As a client wrote it.
        lock: True to lock the row for writing, `{"read": True}` to keep others from doing so.

    Raises:
        NotFound: There is none.
    """
    # Anything else could not be stored either: PostgreSQL refuses a NUL even in a comparison.
    row = session.get(table, identifier, with_for_update=lock) if is_id(identifier) else None
    if row is None:
        raise NotFound(noun, identifier)
    return row


def newest_first(
    session: Session, query: Select[Row], key: Any, page_size: int, before: str | None
) -> tuple[list[Row], bool]:
    """Returns a page of rows and whether more follow.

    Args:
        session: Where to read.
        query: What to read.
        key: The identifier column to order by.
        page_size: How many rows at most.
        before: Only rows whose key is below this one.
    """
    if before is not None:
        query = query.where(key < before)
    rows = list(session.scalars(query.order_by(key.desc()).limit(page_size + 1)))
    return rows[:page_size], len(rows) > page_size
