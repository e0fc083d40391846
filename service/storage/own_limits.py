"""Limits that one owner has of its own, in place of what the settings say for all."""

import math
from collections.abc import Mapping

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.storage.tables import OwnerLimitRow

LIMITS: Mapping[str, type[int] | type[float]] = {
    "requests_per_second": float,
    "request_burst": int,
    "queued_fits": int,
    "running_fits": int,
    "stored_bytes": int,
    "device_seconds": float,
}
"""What can be limited, and whether it is counted or measured."""

UNLIMITED = math.inf
"""The value of a limit that is none."""

_LIMITS = OwnerLimitRow.__table__.c
# Of the table, not of the class: it is asked with every fit, and makes no objects.
_OF_OWNER = select(_LIMITS.name, _LIMITS.value).where(
    _LIMITS.name.in_(LIMITS), _LIMITS.owner == bindparam("owner")
)


def of_owner(session: Session, owner: str) -> dict[str, float]:
    """Returns the limits of an owner's own, by name; `UNLIMITED` where it has none."""
    return {row.name: row.value for row in session.execute(_OF_OWNER, {"owner": owner})}


def all_of(session: Session) -> list[OwnerLimitRow]:
    """Returns every limit of an owner's own, owner by owner."""
    return list(session.scalars(select(OwnerLimitRow).order_by(OwnerLimitRow.owner, OwnerLimitRow.name)))


def give(session: Session, owner: str, name: str, value: float) -> None:
    """Gives an owner a limit of its own, in place of the one that it had."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    new = insert(OwnerLimitRow).values(owner=owner, name=name, value=value)
    session.execute(new.on_conflict_do_update(index_elements=["name", "owner"], set_={"value": value}))


def take_back(session: Session, owner: str, name: str) -> bool:
    """Has the settings hold for an owner again; returns whether it had a limit of its own."""
    statement = delete(OwnerLimitRow).where(OwnerLimitRow.owner == owner, OwnerLimitRow.name == name)
    return session.scalar(statement.returning(OwnerLimitRow.owner)) is not None
