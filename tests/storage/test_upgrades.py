"""Upgrades of a database in use: from every earlier revision, with data in it; the release before goes on."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Column, Date, Float, Integer, LargeBinary, MetaData, Table, insert, select
from sqlalchemy.types import JSON, DateTime

from service.storage import datasets, events, fits, idempotency, migrations, mixtures
from service.storage.database import Database
from service.storage.idempotency import StoredAnswer
from service.storage.owners import LOCAL, acting_for
from tests.storage.making import MANY, PARAMETERS, claimed

IDS = {"datasets": "dat", "fits": "fit", "mixtures": "mix", "workers": "wrk", "api_keys": "key"}
BY_OWNER = ("device_use", "owner_limits", "request_allowances")
KNOWN: dict[str, Any] = {
    "status": "queued",
    "device": "auto",
    "columns": None,
    "token": None,
    "lease_expires_at": None,
    "finished_at": None,
    "request_sha256": "a" * 64,
    "covariance_type": "full",
}


def earlier() -> list[str]:
    """Every revision before the newest."""
    revisions = ScriptDirectory.from_config(migrations._config()).walk_revisions()
    return sorted(revision.revision for revision in revisions)[:-1]


@pytest.fixture(params=earlier())
def revision(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.close()


def identifier(table: str, number: int) -> str:
    return f"{IDS[table]}_{number:026d}"


def row_of(table: Table, number: int, is_sqlite: bool) -> dict[str, Any]:
    """A row with every column that the table has at its revision."""
    row = {
        column.name: _named(table.name, column.name, number) or _of_kind(column, number, is_sqlite)
        for column in table.columns
        if column.name not in KNOWN
    }
    row |= {column.name: KNOWN[column.name] for column in table.columns if column.name in KNOWN}
    if table.name == "idempotency_keys":
        row |= {"key": f"key {number}", "status": 201, "headers": {"Location": "/x"}}
    return row


def _named(table: str, name: str, number: int) -> Any:
    """What goes into a column for its name; None when it has nothing special."""
    if name == "id":
        return identifier(table, number)
    if name in ("fit_id", "dataset_id"):
        return identifier(f"{name[:-3]}s", number)
    if name == "owner":  # of some tables the whole key, or part of it
        return f"{number}" if table in BY_OWNER else LOCAL
    return _bytes_of(PARAMETERS[name]) if name in PARAMETERS and name != "covariance_type" else None


def _of_kind(column: Column[Any], number: int, is_sqlite: bool) -> Any:
    kind = column.type
    if isinstance(kind, DateTime) or (is_sqlite and column.name.endswith("_at")):
        return 1_700_000_000.0 if is_sqlite else "2023-11-14T22:13:20Z"
    if isinstance(kind, Date):
        return date(2023, 11, 14) + timedelta(days=number)
    if isinstance(kind, JSON):
        return {"kept": number}
    if isinstance(kind, LargeBinary):
        return b"{}"
    if isinstance(kind, Boolean):
        return True
    return 1 if isinstance(kind, Integer | Float) else f"{number}"


def _bytes_of(array: Any) -> bytes:
    from service.storage.columns import Array

    encoded = Array().process_bind_param(array, None)  # type: ignore[arg-type]
    assert encoded is not None
    return encoded


def fill(database: Database, tables: list[Table], number: int) -> None:
    """Adds a row to each table by the statements that the code of its revision used."""
    with database.write() as session:
        for table in tables:
            session.connection().execute(insert(table), row_of(table, number, database.is_sqlite))


def tables_at(database: Database, revision: str) -> list[Table]:
    """The tables as they are at a revision, in the order of their foreign keys."""
    migrations.upgrade(database, revision)
    metadata = MetaData()
    metadata.reflect(database.engine)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def assert_whole(database: Database, number: int) -> None:
    """The code of today finds a row of earlier, and it belongs to the only owner that there was."""
    with acting_for(LOCAL), database.read() as session:
        dataset = datasets.get(session, identifier("datasets", number))
        assert (dataset.statistics, dataset.owner) == ({"kept": number}, LOCAL)
        fit = fits.get(session, identifier("fits", number))
        assert (fit.status, fit.request, fit.fit_metadata) == ("queued", {"kept": number}, {"kept": number})
        assert [event.data for event in events.after(session, fit.id, 0, MANY)] == [{"kept": number}]
        mixture = mixtures.get(session, identifier("mixtures", number))
        assert (mixture.means == PARAMETERS["means"]).all()
        assert mixture.fit_id == fit.id
    with acting_for(LOCAL):
        again = idempotency.begin(database, f"key {number}", "a" * 64, "another", 1e9)
    assert again == StoredAnswer(201, {"Location": "/x"}, b"{}")


def test_a_database_of_every_earlier_revision_is_brought_up_to_date(empty: Database, revision: str) -> None:
    tables = tables_at(empty, revision)
    fill(empty, tables, 1)
    migrations.upgrade(empty)
    assert_whole(empty, 1)
    held = claimed(empty)
    assert (held.fit_id, held.owner) == (identifier("fits", 1), LOCAL)


def test_the_release_before_goes_on_with_the_new_schema(empty: Database) -> None:
    tables = tables_at(empty, earlier()[-1])
    fill(empty, tables, 1)
    migrations.upgrade(empty)
    fill(empty, tables, 2)
    assert_whole(empty, 2)
    # It reads, too, what today's code has written.
    with acting_for(LOCAL), empty.write() as session:
        made = mixtures.add(session, PARAMETERS, name="new").id
    (old,) = [table for table in tables if table.name == "mixtures"]
    with empty.read() as session:
        query = select(old.c.name).where(old.c.id == made)
        assert session.connection().execute(query).scalar() == "new"


def test_a_downgrade_keeps_what_the_revision_before_can_hold(empty: Database, revision: str) -> None:
    tables = tables_at(empty, revision)
    fill(empty, tables, 1)
    before = _contents(empty, tables)
    migrations.upgrade(empty)
    migrations.downgrade(empty, revision)
    assert _contents(empty, tables) == before


def _contents(database: Database, tables: list[Table]) -> dict[str, str]:
    with database.read() as session:
        return {
            table.name: json.dumps(
                [list(map(str, row)) for row in session.connection().execute(select(table))]
            )
            for table in tables
        }
