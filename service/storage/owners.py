"""Who a row belongs to, and the one place that keeps everybody else from it.

Whoever serves a client does so within `acting_for`; from there on, every session of that thread or coroutine
sees and changes the rows of that owner only, whatever it asks for, and what it adds is that owner's. Without
it, as in workers and in upkeep, all rows are seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, String, event
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

OWNER_LENGTH = 64
LOCAL = "local"
"""The only owner where nobody is asked for a key."""

_acting: ContextVar[str | None] = ContextVar("acting_for", default=None)


@contextmanager
def acting_for(owner: str) -> Iterator[None]:
    """Has sessions see the rows of one owner only, for as long as the block lasts."""
    token = _acting.set(owner)
    try:
        yield
    finally:
        _acting.reset(token)


@contextmanager
def everyone() -> Iterator[None]:
    """Has sessions see all rows: for what is shared between owners, such as files of equal content."""
    token = _acting.set(None)
    try:
        yield
    finally:
        _acting.reset(token)


def acting_owner() -> str:
    """Returns the owner of what is added now."""
    owner = _acting.get()
    return LOCAL if owner is None else owner


class Owned:
    """A table whose rows each have an owner."""

    owner: Mapped[str] = mapped_column(
        String(OWNER_LENGTH), default=acting_owner, server_default=LOCAL, sort_order=1
    )

    @classmethod
    def belongs_to(cls, owner: str) -> ColumnElement[bool]:
        """Whether a row is of an owner; a table of parts says it by what they are part of."""
        return cls.owner == owner


def filtered(table: type[Any]) -> type[Any]:
    """Has a table's rows, which say by `belongs_to` whose they are, kept from all but their owners."""
    _filtered.append(table)
    return table


_filtered: list[type[Any]] = []


@lru_cache(maxsize=1024)
def _criteria(owner: str) -> tuple[ExecutableOption, ...]:
    return tuple(
        with_loader_criteria(table, table.belongs_to(owner), include_aliases=True) for table in _filtered
    )


@event.listens_for(Session, "do_orm_execute")
def _only_own(state: ORMExecuteState) -> None:
    owner = _acting.get()
    # What loads more of a row names one that the session has seen.
    if owner is not None and state.is_orm_statement and not (state.is_insert or state.is_column_load):
        state.statement = state.statement.options(*_criteria(owner))
