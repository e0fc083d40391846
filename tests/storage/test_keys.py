"""Keys: a slip of the pen shows offline, the database gives no key away, and revoked is revoked."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from service.errors import NotFound
from service.storage import keys
from service.storage.database import Database
from service.storage.keys import KeyHolder


def made(database: Database, **said: object) -> tuple[str, str]:
    """A new key, and its id."""
    fields = {"name": "a key", "owner": "a", "scopes": {"write", "read"}, "expires_at": None} | said
    with database.write() as session:
        key, row = keys.create(session, **fields)  # type: ignore[arg-type]
        return key, row.id


def test_keys_are_long_random_and_checked() -> None:
    some = {keys.new_key() for _ in range(200)}
    assert len(some) == 200
    assert all(re.fullmatch(r"mixs_[0-9A-Za-z]{49}", key) and keys.is_well_formed(key) for key in some)
    assert len({key[5:9] for key in some}) > 150  # the first digits are random too


def test_every_slip_of_one_character_shows() -> None:
    key = keys.new_key()
    for place in range(5, len(key)):
        for digit in "09AZaz":
            slip = key[:place] + digit + key[place + 1 :]
            assert keys.is_well_formed(slip) == (slip == key)
        if key[place : place + 2] != key[place : place + 2][::-1]:
            assert not keys.is_well_formed(key[:place] + key[place : place + 2][::-1] + key[place + 2 :])
    for wrong in (
        key[:-1],
        key + "0",
        key.upper(),
        "",
        "mixs_",
        key + "\n",
        " " + key,
        key.replace("_", "-"),
    ):
        assert not keys.is_well_formed(wrong)


def test_the_database_has_the_hash_alone(database: Database) -> None:
    key, key_id = made(database)
    with database.read() as session:
        (row,) = keys.all_of(session)
        assert row.sha256 == hashlib.sha256(key.encode()).hexdigest()
        assert (row.id, row.scopes) == (key_id, "read write")
        stored = "".join(str(getattr(row, column.key)) for column in row.__table__.columns)
    assert key not in stored
    assert key[5:20] not in stored


def test_a_key_is_known_by_its_holder(database: Database) -> None:
    key, key_id = made(database)
    made(database, owner="b")
    expected = KeyHolder(key_id, "a key", "a", frozenset({"read", "write"}), revoked=False, expired=False)
    assert keys.holder(database, key) == expected
    assert keys.holder(database, keys.new_key()) is None


def test_a_revoked_key_stays_known_and_revoked(database: Database) -> None:
    key, key_id = made(database)
    with database.write() as session:
        revoked_at = keys.revoke(session, key_id).revoked_at
    assert revoked_at is not None
    with database.write() as session:
        assert keys.revoke(session, key_id).revoked_at == revoked_at
    holder = keys.holder(database, key)
    assert holder is not None
    assert holder.revoked
    with pytest.raises(NotFound), database.write() as session:
        keys.revoke(session, "key_00000000000000000000000000")


def test_a_key_expires_by_the_databases_clock(database: Database) -> None:
    for hours, expired in ((-1, True), (1, False)):
        key, _ = made(database, expires_at=datetime.now(UTC) + timedelta(hours=hours))
        holder = keys.holder(database, key)
        assert holder is not None
        assert holder.expired is expired


def test_whether_any_key_opens_anything(database: Database) -> None:
    def any_valid() -> bool:
        with database.read() as session:
            return keys.any_valid(session)

    assert not any_valid()
    made(database, expires_at=datetime.now(UTC) - timedelta(hours=1))
    _, key_id = made(database)
    assert any_valid()
    with database.write() as session:
        keys.revoke(session, key_id)
    assert not any_valid()
