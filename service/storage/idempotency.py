"""Idempotency keys: what a key was first used for, and the answer it got."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.errors import Conflict, Unprocessable
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.owners import acting_owner
from service.storage.tables import IdempotencyKeyRow

# The process that serves a first call renews its key this often; one that has not been renewed for the longer
# time was held by a process that died, and goes to the next call. Taken from a living one, which was frozen,
# it costs that one its answer, never a second creation: see `complete`.
RENEWAL_SECONDS = 3.0
SERVING_SECONDS = 12.0


@dataclass(frozen=True)
class StoredAnswer:
    """The answer that a key's first call got."""

    status: int
    headers: dict[str, Any]
    body: bytes


def begin(
    database: Database, key: str, request_sha256: str, holder: str, kept_seconds: float
) -> StoredAnswer | None:
    """Returns the answer that this key has already got, or None when the caller now holds the key.

    Raises:
        Unprocessable: The key was used for another request.
        Conflict: The key's first call is still being served.
    """
    with database.write() as session:
        old = IdempotencyKeyRow.created_at < now_plus(-kept_seconds)
        dead = and_(
            IdempotencyKeyRow.created_at < now_plus(-SERVING_SECONDS), IdempotencyKeyRow.status.is_(None)
        )
        session.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.key == key, or_(old, dead)))
        insert = sqlite.insert if database.is_sqlite else postgresql.insert
        made = session.execute(
            insert(IdempotencyKeyRow)
            .values(key=key, request_sha256=request_sha256, holder=holder, created_at=now_plus())
            .on_conflict_do_nothing()
            .returning(IdempotencyKeyRow.key)
        ).scalar()
        if made is not None:
            return None
        row = session.get(IdempotencyKeyRow, (acting_owner(), key))
        if row is None:  # its first call gave it up between the two statements
            raise _in_use()
        if row.request_sha256 != request_sha256:
            raise Unprocessable(
                "This Idempotency-Key was used for another request; use a fresh key for a new one.",
                code="IDEMPOTENCY_KEY_REUSED",
            )
        if row.status is None:
            raise _in_use()
        return StoredAnswer(row.status, row.headers or {}, row.body or b"")


def _in_use() -> Conflict:
    return Conflict(
        "IDEMPOTENCY_KEY_IN_USE",
        "The first call with this Idempotency-Key is still being served; repeat it shortly.",
        headers={"Retry-After": "1"},
    )


def complete(session: Session, key: str, holder: str, answer: StoredAnswer) -> None:
    """Keeps the answer, in the transaction that creates what the answer tells of.

    Raises:
        Conflict: This call took so long that another took the key; nothing must be created.
    """
    statement = (
        update(IdempotencyKeyRow)
        .where(IdempotencyKeyRow.key == key, IdempotencyKeyRow.holder == holder)
        .values(status=answer.status, headers=answer.headers, body=answer.body)
        .returning(IdempotencyKeyRow.key)
        .execution_options(synchronize_session=False)
    )
    if session.execute(statement).scalar() is None:
        raise Conflict(
            "IDEMPOTENCY_KEY_IN_USE", "Another call with this Idempotency-Key has overtaken this one."
        )


def renew(database: Database, held: Mapping[str, str]) -> None:
    """Says that calls are still being served, by key and holder."""
    with database.write() as session:
        session.execute(
            update(IdempotencyKeyRow)
            .where(
                IdempotencyKeyRow.key.in_(held),
                IdempotencyKeyRow.holder.in_(held.values()),
                IdempotencyKeyRow.status.is_(None),
            )
            .values(created_at=now_plus())
            .execution_options(synchronize_session=False)
        )


def abandon(database: Database, key: str, holder: str) -> None:
    """Frees a key whose call created nothing, so that it can be tried again."""
    with database.write() as session:
        session.execute(
            delete(IdempotencyKeyRow).where(
                IdempotencyKeyRow.key == key,
                IdempotencyKeyRow.holder == holder,
                IdempotencyKeyRow.status.is_(None),
            )
        )
