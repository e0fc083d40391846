"""A database's sessions: what is committed, and what its failures become."""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from service.errors import ServiceError, Unavailable
from service.storage import database as module
from service.storage.database import Database, sqlite_journal_mode
from service.storage.tables import WorkerRow
from service.storage.turns import Turns
from tests.serving import until
from tests.storage.making import is_locked


def _worker(name: str = "here") -> WorkerRow:
    return WorkerRow(
        hostname=name, process_id=1, device_type="cpu", device="cpu", device_name="cpu", memory_bytes=1
    )


def _count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(WorkerRow)) or 0


def test_a_write_is_committed_at_its_end(database: Database) -> None:
    with database.write() as session:
        session.add(_worker())
        assert _count(database) == 0 if not database.is_sqlite else True
    assert _count(database) == 1


def test_an_exception_undoes_a_write(database: Database) -> None:
    def fail() -> None:
        with database.write() as session:
            session.add(_worker())
            session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert _count(database) == 0


def test_a_broken_constraint_stays_a_broken_constraint(database: Database) -> None:
    with database.write() as session:
        session.add(row := _worker())
    copy = _worker()
    copy.id = row.id
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(copy)


def test_foreign_keys_are_kept(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(
            text(
                "INSERT INTO fit_events (fit_id, number, type, data, created_at)"
                " VALUES ('x', 1, 's', '{}', :t)"
            ),
            {"t": 0.0 if database.is_sqlite else "2026-01-01"},
        )


def test_writers_wait_for_one_another(database: Database) -> None:
    """Eight threads add to the same number; none is refused and none is lost."""
    with database.write() as session:
        session.add(row := _worker())

    def add() -> None:
        for _ in range(5):
            with database.write() as session:
                session.get_one(WorkerRow, row.id, with_for_update=True).memory_bytes += 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.get_one(WorkerRow, row.id).memory_bytes == 41


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_sqlite_that_stays_locked_is_unavailable(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_SECONDS", 0.05)
    hurried = Database(database_url)
    holder = sqlite3.connect(database_url.removeprefix("sqlite:///"))
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable) as refused, hurried.write() as session:
        session.add(_worker())
    assert (refused.value.status, refused.value.code) == (503, "DATABASE_UNAVAILABLE")
    assert int(refused.value.headers["Retry-After"]) >= 1
    with pytest.raises(Unavailable), hurried.read() as session:
        session.scalar(select(func.count()).select_from(WorkerRow))
    holder.rollback()
    with hurried.write() as session:
        session.add(_worker())
    holder.close()
    hurried.close()
    assert _count(database) == 1


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_reader_has_a_turn_among_writers_that_leave_no_gap(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "sqlite_journal_mode", lambda _: "DELETE")
    reading = Database(database_url)
    assert _count(reading) == 0  # its connection is there
    looked = threading.Event()

    def read() -> None:
        with reading.read() as session:
            session.scalar(select(func.count()).select_from(WorkerRow))
            looked.wait(60)

    reader = threading.Thread(target=read)
    path = Path(database_url.removeprefix("sqlite:///"))
    turns = Turns(path)
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as writer:
        with turns.taken(60.0):
            writer.execute("BEGIN EXCLUSIVE")
            reader.start()
            until(lambda: is_locked(Path(f"{path}.next")))
            writer.execute("ROLLBACK")
        # As SQLite would have it, the writer's next transaction could come first, and so on and on.
        with turns.taken(60.0), pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("BEGIN EXCLUSIVE")
        looked.set()
        reader.join()
    reading.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_full_disk_is_said_to_be_full(database: Database) -> None:
    def fill() -> None:
        with database.write() as session:
            pages = session.scalar(text("PRAGMA page_count"))
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.add_all(_worker("x" * 255) for _ in range(1000))

    with pytest.raises(ServiceError) as refused:
        fill()
    assert (refused.value.status, refused.value.code) == (507, "STORAGE_FULL")
    assert _count(database) == 0


def test_a_database_without_tables_is_unavailable_and_says_why(empty_database_url: str) -> None:
    with closing(Database(empty_database_url)) as empty, pytest.raises(Unavailable) as refused:
        _count(empty)
    assert refused.value.code == "DATABASE_NOT_MIGRATED"
    assert "mixserve migrate" in refused.value.detail


def test_a_stopped_server_is_unavailable_until_it_is_back(own_postgresql_server: Any) -> None:
    def lose_the_server(database: Database) -> None:
        with database.write() as session:
            session.add(_worker("lost"))
            session.flush()
            own_postgresql_server.stop()

    with closing(Database(own_postgresql_server.create(migrated=True))) as database:
        with database.write() as session:
            session.add(_worker())
        with pytest.raises(Unavailable) as lost:
            lose_the_server(database)
        assert (lost.value.status, lost.value.code) == (503, "DATABASE_UNAVAILABLE")
        with pytest.raises(Unavailable):
            _count(database)
        own_postgresql_server.start()
        assert _count(database) == 1


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_writer_that_falls_silent_loses_its_locks(database: Database, database_url: str) -> None:
    with database.write() as session:
        session.add(row := _worker())

    def freeze(brief: Database) -> None:
        with brief.write() as session:
            session.get_one(WorkerRow, row.id, with_for_update=True).memory_bytes = 7
            session.flush()
            # Another gets the lock while this one is, as it were, frozen; it would wait 5 s at most.
            with database.write() as other:
                other.get_one(WorkerRow, row.id, with_for_update=True).memory_bytes = 8

    with closing(Database(database_url, lease_seconds=0.2)) as brief, pytest.raises(Unavailable):
        freeze(brief)
    with database.read() as session:
        assert session.get_one(WorkerRow, row.id).memory_bytes == 8


def test_a_named_lock_is_held_until_the_transaction_ends(database: Database) -> None:
    order: list[str] = []
    held = threading.Event()

    def hold() -> None:
        with database.write() as session:
            database.lock(session, "content")
            held.set()
            if not database.is_sqlite:
                with database.write() as unrelated:
                    database.lock(unrelated, "other content")
            deadline = time.monotonic() + 0.1
            while time.monotonic() < deadline:
                time.sleep(0.01)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with database.write() as session:
        database.lock(session, "content")
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "DELETE"),
        ((3, 44, 5), "DELETE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 0), "DELETE"),
        ((3, 50, 6), "DELETE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 0), "DELETE"),
        ((3, 51, 2), "DELETE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "WAL"),
    ],
)
def test_wal_only_where_it_is_safe(version: tuple[int, ...], mode: str) -> None:
    assert sqlite_journal_mode(version) == mode


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_sqlite_connections_are_prepared(database: Database) -> None:
    with database.read() as session:
        found = {
            name: session.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    mode = sqlite_journal_mode(sqlite3.sqlite_version_info).lower()
    assert found == {"journal_mode": mode, "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}
