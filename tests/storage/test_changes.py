"""Waiting for somebody else's commit."""

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from service.storage import changes
from service.storage.changes import Changes
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from tests.storage.making import add_dataset, queue_fit

PROMPTLY = 10.0
"""Seconds within which a machine under load does what takes milliseconds."""


@pytest.fixture
def listening(database: Database) -> Iterator[Changes]:
    """Changes that have seen all there was."""
    with closing(changes.listen(database)) as source:
        while source.wait(0):
            pass
        yield source


def _quiet(source: Changes) -> None:
    while source.wait(0):
        pass


def test_nothing_is_seen_when_nothing_happens(listening: Changes) -> None:
    begun = time.monotonic()
    assert not listening.wait(0.2)
    assert time.monotonic() - begun >= 0.19
    assert not listening.wait(0)


def test_a_commit_of_this_process_is_seen_once(
    listening: Changes, database: Database, store: DatasetStore
) -> None:
    dataset_id = add_dataset(database, store)
    _quiet(listening)
    queue_fit(database, dataset_id)
    assert listening.wait(PROMPTLY)
    assert not listening.wait(0)


def test_a_commit_of_another_process_wakes_who_waits(
    listening: Changes, database: Database, database_url: str, store: DatasetStore
) -> None:
    dataset_id = add_dataset(database, store)
    _quiet(listening)
    code = (
        "import sys, time\n"
        "from service.storage.database import Database\n"
        "from tests.storage.making import queue_fit\n"
        "database = Database(sys.argv[1])\n"
        "sys.stdin.read()\n"
        "queue_fit(database, sys.argv[2])\n"
        "print(time.time(), flush=True)\n"
        "database.close()\n"
    )
    command = [sys.executable, "-c", code, database_url, dataset_id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        threading.Timer(0.0, other.stdin.close).start()  # type: ignore[union-attr]
        assert listening.wait(60)
        seen = time.time()
        assert other.stdout is not None
        committed = float(other.stdout.readline())
    assert seen - committed < 1.0


def test_what_is_undone_is_not_seen(listening: Changes, database: Database, store: DatasetStore) -> None:
    dataset_id = add_dataset(database, store)
    _quiet(listening)

    def fail() -> None:
        with database.write() as session:
            row = session.execute(text("UPDATE datasets SET name = 'x' WHERE id = :id"), {"id": dataset_id})
            assert row.rowcount == 1  # type: ignore[attr-defined]
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not listening.wait(0.05)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_locked_sqlite_says_that_something_may_have_changed(listening: Changes, database_url: str) -> None:
    listening._connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[attr-defined]
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        assert listening.wait(0.05)
        holder.rollback()
    _quiet(listening)


def _end_other_connections(url: str) -> None:
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(query)


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_a_lost_connection_is_made_again(
    listening: Changes, database: Database, database_url: str, store: DatasetStore
) -> None:
    dataset_id = add_dataset(database, store)
    _quiet(listening)
    _end_other_connections(database_url)
    # It says so, since something may have been missed, and once more when it listens again.
    assert listening.wait(PROMPTLY)
    deadline = time.monotonic() + PROMPTLY
    while listening.wait(0.05):
        assert time.monotonic() < deadline
    queue_fit(database, dataset_id)
    assert listening.wait(PROMPTLY)


def test_a_stopped_server_is_waited_for(own_postgresql_server: Any, store: DatasetStore) -> None:
    url = own_postgresql_server.create(migrated=True)
    with closing(Database(url)) as database, closing(changes.listen(database)) as source:
        dataset_id = add_dataset(database, store)
        _quiet(source)
        own_postgresql_server.stop()
        for _ in range(3):
            begun = time.monotonic()
            assert source.wait(0.2)
            assert time.monotonic() - begun < 5
        own_postgresql_server.start()
        _quiet(source)
        queue_fit(database, dataset_id)
        assert source.wait(PROMPTLY)
