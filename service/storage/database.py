"""One database, embedded or a server: connections, transactions, and what their failures mean to a client."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from psycopg.errors import UndefinedTable
from pydantic_core import from_json, to_json
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session as Session

from service.errors import ServiceError, Unavailable
from service.storage.idle_connections import ask_idle_ones
from service.storage.together import Answer, Together
from service.storage.turns import Turns

BUSY_TIMEOUT_SECONDS = 5.0
# How long a reader asks for its lock before it waits in line with the writers.
_ASKING_MS = 50
_TAKES_A_READERS_LOCK = "SELECT 1 FROM sqlite_master LIMIT 1"
_POOL_SIZE = 40
_LOCK_TIMEOUT_MS = 5_000
_UNDO = "undo"


def sqlite_version() -> tuple[int, ...]:
    """Returns the version of SQLite that this process has."""
    return sqlite3.sqlite_version_info


def sqlite_journal_mode(version: tuple[int, ...]) -> str:
    """Returns WAL where this SQLite has the fix for several writers corrupting it, DELETE otherwise.

    Fixed in 3.51.3 and, as backports, in 3.50.7 and 3.44.6.
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "WAL" if fixed else "DELETE"


class Database:
    """Sessions on the database that holds everything but points. Safe to share between threads."""

    def __init__(self, url: str, *, lease_seconds: float = 30.0) -> None:
        self.url: URL = make_url(url).set(
            drivername="sqlite+pysqlite" if url.startswith("sqlite") else "postgresql+psycopg"
        )
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._turns = Turns(self._sqlite_file()) if self.is_sqlite else None
        self._engine = self._sqlite_engine() if self.is_sqlite else self._postgresql_engine(lease_seconds)
        # A transaction that means to write says so at its start: on SQLite a read lock that is raised later
        # can only fail, without the busy timeout being waited for.
        self._writing_engine = self._engine.execution_options(mixserve_begin="BEGIN IMMEDIATE")
        self._together = Together(self._transaction, _savepoint)

    def _sqlite_file(self) -> Path | None:
        name = self.url.database
        return None if name is None or name in ("", ":memory:") else Path(name)

    def _sqlite_engine(self) -> Engine:
        file = self._sqlite_file()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            self.url,
            connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            pool_size=_POOL_SIZE,
            json_serializer=_as_json,
            json_deserializer=from_json,
        )
        event.listen(engine, "connect", _prepare_sqlite_connection)
        event.listen(engine, "begin", self._begin_on_sqlite)
        return engine

    def _begin_on_sqlite(self, connection: Connection) -> None:
        statements = connection.get_execution_options().get("mixserve_begin")
        for statement in (statements or "BEGIN").split(";"):
            connection.exec_driver_sql(statement)
        if statements is None and sqlite_journal_mode(sqlite_version()) != "WAL":
            self._read_between_writers(connection)

    def _read_between_writers(self, connection: Connection) -> None:
        """Takes a reader's lock, in a turn of its own where writers that follow one another leave no gap.

        With a rollback journal nobody reads while a writer commits, and SQLite has readers ask for their lock
        ever more seldom: beside writers that never pause they could ask in vain for as long as they may.
        """
        driver: Any = connection.connection.dbapi_connection
        driver.execute(f"PRAGMA busy_timeout={_ASKING_MS}")
        try:
            with suppress(sqlite3.Error):  # whatever it was, it is asked for once more below
                driver.execute(_TAKES_A_READERS_LOCK).fetchall()
                return
        finally:
            driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000:.0f}")
        with self._one_at_a_time():
            connection.exec_driver_sql(_TAKES_A_READERS_LOCK)

    def _postgresql_engine(self, lease_seconds: float) -> Engine:
        # A process frozen inside a transaction would hold its row locks, and so its fit, for ever.
        idle_limit_ms = max(1, int(lease_seconds * 1000 / 2))
        options = (
            f"-c idle_in_transaction_session_timeout={idle_limit_ms} -c lock_timeout={_LOCK_TIMEOUT_MS}"
            " -c timezone=UTC"
        )
        engine = create_engine(
            self.url,
            pool_size=_POOL_SIZE,
            pool_timeout=BUSY_TIMEOUT_SECONDS,
            json_serializer=_as_json,
            json_deserializer=from_json,
            connect_args={"options": options, "connect_timeout": 5, "application_name": "mixserve"},
        )
        ask_idle_ones(engine)
        return engine

    @property
    def engine(self) -> Engine:
        """The engine, for looking at the schema."""
        return self._engine

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yields a session for reading.

        Raises:
            Unavailable: The database does not answer.
        """
        with _client_readable_errors(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yields a session for writing, committed at the end unless an exception passes through.

        Raises:
            Unavailable: The database does not answer, or stays locked.
            ServiceError: There is no room left on its disk (STORAGE_FULL).
        """
        with (
            _undoing() as undo,
            _client_readable_errors(),
            self._one_at_a_time(),
            Session(self._writing_engine, expire_on_commit=False, info={_UNDO: undo}) as session,
            session.begin(),
        ):
            yield session

    def write_together(self, act: Callable[[Session], Answer]) -> Answer:
        """Returns what an act returns that writes, once that is committed.

        On SQLite, where one writes at a time, those who wait for their turn by then share one commit, which
        waits for the disk; on PostgreSQL they write at the same time.

        Raises:
            Unavailable: The database does not answer, or stays locked.
            ServiceError: There is no room left on its disk (STORAGE_FULL).
        """
        if not self.is_sqlite:
            with self.write() as session:
                return act(session)
        with _undoing() as undo:

            def noting(session: Session) -> Answer:
                session.info[_UNDO] = undo
                return act(session)

            return self._together.write(noting)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with (
            _client_readable_errors(),
            self._one_at_a_time(),
            self._writing_engine.begin() as connection,
        ):
            yield connection

    @contextmanager
    def rebuild(self) -> Iterator[Connection]:
        """Yields a connection in a transaction that may rebuild tables, committed at the end.

        SQLite changes a table by copying it and dropping the old one. With foreign keys on, the drop would
        delete what refers to it; they are off meanwhile, and checked before the commit.

        Raises:
            Unavailable: The database does not answer, or stays locked.
            RuntimeError: A row would refer to one that is not there.
        """
        engine = self._engine.execution_options(mixserve_begin="PRAGMA foreign_keys=OFF;BEGIN IMMEDIATE")
        try:
            with _client_readable_errors(), self._one_at_a_time(), engine.begin() as connection:
                yield connection
                if self.is_sqlite and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                    raise RuntimeError("the change of the schema leaves rows that refer to nothing; undone")
        finally:
            self._engine.dispose()  # fresh connections have foreign keys on

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with ExitStack() as held:
            if self._turns is not None:
                try:
                    held.enter_context(self._turns.taken(BUSY_TIMEOUT_SECONDS))
                except TimeoutError as error:
                    raise Unavailable(
                        "DATABASE_UNAVAILABLE", "The database is busy; try again shortly."
                    ) from error
            yield

    def when_undone(self, session: Session, act: Callable[[], object]) -> None:
        """Has something outside the database taken back when this writing session fails, after its end."""
        session.info[_UNDO].append(act)

    def lock(self, session: Session, name: str) -> None:
        """Waits until no other transaction holds the same name; held until the end of this one."""
        if self.is_sqlite:
            session.connection()  # a session begins with its first statement: BEGIN IMMEDIATE is the lock
        else:
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})

    def close(self) -> None:
        """Closes all pooled connections."""
        self._engine.dispose()


@contextmanager
def _undoing() -> Iterator[list[Callable[[], object]]]:
    """Yields the list of what is to be done, the last of it first, should the block fail."""
    undo: list[Callable[[], object]] = []
    try:
        yield undo
    except BaseException:
        for act in reversed(undo):
            with suppress(ServiceError):  # the first error is the one to tell of
                act()
        raise


@contextmanager
def _savepoint(connection: Connection) -> Iterator[Session]:
    """Yields a session that knows no rows of others', within the transaction that they share."""
    mode: Any = "create_savepoint"
    with Session(connection, expire_on_commit=False, join_transaction_mode=mode) as session, session.begin():
        yield session


def _as_json(value: Any) -> str:
    """Numbers that are not finite go in as they go out to clients; PostgreSQL would refuse a bare NaN."""
    return to_json(value, inf_nan_mode="strings").decode()


@contextmanager
def _client_readable_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, ProgrammingError, InterfaceError, PoolTimeoutError) as error:
        if _says_of_no_table(error):
            raise Unavailable(
                "DATABASE_NOT_MIGRATED",
                "The database has no tables yet; bring it up to date: mixserve migrate",
            ) from error
        if isinstance(error, ProgrammingError) and not error.connection_invalidated:
            raise
        if "disk is full" in str(error) or "No space left" in str(error):
            raise ServiceError("STORAGE_FULL", 507, "The service has no room left on its disk.") from error
        raise Unavailable(
            "DATABASE_UNAVAILABLE", "The database does not answer; try again shortly."
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("DATABASE_UNAVAILABLE", "The database went away; try again shortly.") from error
        raise


def _says_of_no_table(error: Exception) -> bool:
    return "no such table" in str(error) or isinstance(getattr(error, "orig", None), UndefinedTable)


def _prepare_sqlite_connection(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin in _begin_on_sqlite, not by the driver's guess
    for pragma in (
        f"journal_mode={sqlite_journal_mode(sqlite3.sqlite_version_info)}",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
