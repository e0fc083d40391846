"""Keys to the API: made once, shown once, and known afterwards by their SHA-256 alone."""

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ScalarSelect, bindparam, false, func, select, update
from sqlalchemy.orm import Session

from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.rows import find
from service.storage.tables import ApiKeyRow, OwnerLimitRow

SCOPES = ("read", "write", "admin")
PATTERN = re.compile(r"mixs_[0-9A-Za-z]{43}[0-9A-Za-z]{6}")
"""A key: 32 random bytes in base 62, and their CRC-32, so that a slip of the pen shows without a database."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_DIGITS = 43
_CHECK_DIGITS = 6


@dataclass(frozen=True)
class KeyHolder:
    """Whose key it is and what it opens; the rate of requests, if its owner has one of its own."""

    key_id: str
    name: str
    owner: str
    scopes: frozenset[str]
    revoked: bool
    expired: bool
    requests_per_second: float | None = None
    request_burst: float | None = None


def new_key() -> str:
    """Returns a fresh key."""
    body = "mixs_" + _base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_DIGITS)
    return body + _check(body)


def is_well_formed(key: str) -> bool:
    """Returns whether a text is a key as it was made: right in form and in its check digits."""
    return PATTERN.fullmatch(key) is not None and hmac.compare_digest(
        _check(key[:-_CHECK_DIGITS]), key[-_CHECK_DIGITS:]
    )


def create(
    session: Session, name: str, owner: str, scopes: Collection[str], expires_at: datetime | None
) -> tuple[str, ApiKeyRow]:
    """Returns a new key, which nobody can find out later, and its row."""
    key = new_key()
    row = ApiKeyRow(
        name=name,
        owner=owner,
        scopes=" ".join(scope for scope in SCOPES if scope in scopes),
        sha256=_digest(key),
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return key, row


def all_of(session: Session) -> list[ApiKeyRow]:
    """Returns the row of every key there was, oldest first."""
    return list(session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.id)))


def any_valid(session: Session) -> bool:
    """Returns whether there is a key that opens anything."""
    usable = ApiKeyRow.revoked_at.is_(None), func.coalesce(ApiKeyRow.expires_at > now_plus(), True)
    return session.scalar(select(ApiKeyRow.id).where(*usable).limit(1)) is not None


def revoke(session: Session, key_id: str) -> ApiKeyRow:
    """Returns the row of a key that opens nothing from now on; once revoked, it stays as it is.

    Raises:
        NotFound: There is none with this identifier.
    """
    row = find(session, ApiKeyRow, "key", key_id, lock=True)
    if row.revoked_at is None:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(revoked_at=now_plus()))
        session.refresh(row)
    return row


_KEYS = ApiKeyRow.__table__.c
_LIMITS = OwnerLimitRow.__table__.c


def _own(limit: str) -> ScalarSelect[float]:
    """Returns the query for a limit that the owner of a key has of its own."""
    of_owner = select(_LIMITS.value).where(_LIMITS.name == limit, _LIMITS.owner == _KEYS.owner)
    return of_owner.scalar_subquery()


# Of the table, not of the class: it is asked with every request, and makes no objects.
_BY_DIGEST = select(
    _KEYS.id,
    _KEYS.name,
    _KEYS.owner,
    _KEYS.scopes,
    _KEYS.sha256,
    _KEYS.revoked_at.is_not(None),
    func.coalesce(_KEYS.expires_at <= now_plus(), false()),
    _own("requests_per_second"),
    _own("request_burst"),
).where(_KEYS.sha256 == bindparam("sha256"))


def holder(database: Database, key: str) -> KeyHolder | None:
    """Returns who holds a key, revoked or expired though it may be; None when it is nobody's.

    It asks the database each time, so that a key is revoked on every replica once its row says so.
    """
    digest = _digest(key)
    with database.read() as session:
        row = session.execute(_BY_DIGEST, {"sha256": digest}).first()
    # The index has compared digests, which tell nothing of the key; the word is left to this comparison.
    if row is None or not hmac.compare_digest(row[4], digest):
        return None
    key_id, name, owner, scopes, _, revoked, expired, *own = row
    return KeyHolder(key_id, name, owner, frozenset(scopes.split()), bool(revoked), bool(expired), *own)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _check(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_DIGITS)


def _base62(number: int, n_digits: int) -> str:
    digits = []
    for _ in range(n_digits):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
