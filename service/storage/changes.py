"""Waiting for somebody else's commit: NOTIFY on PostgreSQL, the file's change counter on SQLite."""

import sqlite3
import time
from typing import Protocol

import psycopg

from service.storage.database import BUSY_TIMEOUT_SECONDS, Database
from service.storage.events import CHANNEL

_SQLITE_POLL_SECONDS = 0.01
_RECONNECT_SECONDS = 1.0


class Changes(Protocol):
    """Tells one thread that the queue may have changed."""

    def wait(self, timeout_seconds: float) -> bool:
        """Returns True soon after a commit, False when none was seen in time.

        It may say True without a change, and at first and after a lost connection it does.
        """

    def close(self) -> None:
        """Lets go of the connection."""


def listen(database: Database) -> Changes:
    """Returns the changes of a database, from now on."""
    if database.is_sqlite:
        return _SqliteChanges(str(database.url.database))
    return _PostgresqlChanges(database.url.set(drivername="postgresql").render_as_string(hide_password=False))


class _SqliteChanges:
    """Asks for the change counter, which costs some ten microseconds; its answer misses no commit."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        self._version: int | None = None

    def _read_version(self) -> int | None:
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:  # locked for longer than the timeout: who locks it may change it
            return None

    def wait(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while (version := self._read_version()) is not None and version == self._version:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(_SQLITE_POLL_SECONDS, remaining))
        self._version = version
        return True

    def close(self) -> None:
        self._connection.close()


class _PostgresqlChanges:
    """Listens on a connection of its own, and connects again when it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection | None = None

    def _connect(self) -> None:
        self._connection = psycopg.connect(
            self._url, autocommit=True, connect_timeout=5, application_name="mixserve"
        )
        self._connection.execute(f"LISTEN {CHANNEL}")

    def wait(self, timeout_seconds: float) -> bool:
        try:
            if self._connection is None:
                self._connect()
                return True
            assert self._connection is not None  # noqa: S101 - _connect has set it
            return any(True for _ in self._connection.notifies(timeout=timeout_seconds, stop_after=1))
        except psycopg.OperationalError:
            self.close()
            time.sleep(min(_RECONNECT_SECONDS, timeout_seconds))
            return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
