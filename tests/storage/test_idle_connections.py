"""Connections that wait in the pool, on a real PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from service.storage import idle_connections
from service.storage.database import Database
from tests.conftest import PostgresqlServer


@pytest.fixture
def database(postgresql_server: PostgresqlServer) -> Iterator[Database]:
    url = postgresql_server.create(migrated=False)
    opened = Database(url)
    yield opened
    opened.close()
    postgresql_server.drop(url)


def process_of(database: Database) -> int:
    with database.read() as session:
        return int(session.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_only_a_connection_that_was_idle_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect, asked = database.engine.dialect, []
    ping = dialect.do_ping

    def noted(driver: object) -> bool:
        asked.append(driver)
        return ping(driver)  # type: ignore[arg-type]

    monkeypatch.setattr(dialect, "do_ping", noted)
    processes = {process_of(database) for _ in range(5)}
    assert (len(processes), len(asked)) == (1, 0)
    monkeypatch.setattr(idle_connections, "_IDLE_SECONDS", 0)
    assert {process_of(database)} == processes
    assert len(asked) == 1


def test_connections_that_the_server_has_closed_are_replaced(database: Database) -> None:
    with database.read() as one, database.read() as other:
        closed = [int(each.execute(text("SELECT pg_backend_pid()")).scalar_one()) for each in (one, other)]
    with (
        closing(Database(database.url.render_as_string(hide_password=False))) as other_database,
        other_database.read() as elsewhere,
    ):
        for process in closed:
            elsewhere.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
    assert process_of(database) not in closed
