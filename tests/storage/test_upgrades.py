"""Upgrades of a database in use: from every earlier revision, with data in it; the release before goes on."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Boolean, Date, Float, Integer, LargeBinary, MetaData, Table, insert, select
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
    row: dict[str, Any] = {}
    for column in table.columns:
        name, kind = column.name, column.type
        if name == "id":
            row[name] = identifier(table.name, number)
        elif name in ("fit_id", "dataset_id"):
            row[name] = identifier(f"{name[:-3]}s", number)
        elif name == "owner":  # of some tables the whole key, or part of it
            row[name] = f"{number}" if table.name in BY_OWNER else LOCAL
        elif isinstance(kind, Date):
            row[name] = date(2023, 11, 14) + timedelta(days=number)
        elif name in KNOWN:
            row[name] = KNOWN[name]
        elif name in PARAMETERS:
            row[name] = _bytes_of(PARAMETERS[name])
        elif isinstance(kind, DateTime) or (is_sqlite and name.endswith("_at")):
            row[name] = 1_700_000_000.0 if is_sqlite else "2023-11-14T22:13:20Z"
        elif isinstance(kind, JSON):
            row[name] = {"kept": number}
        elif isinstance(kind, LargeBinary):
            row[name] = b"{}"
        elif isinstance(kind, Integer | Float) and not isinstance(kind, Boolean):
            row[name] = 201 if name == "status" else 1
        else:
            row[name] = f"{number}"
    if table.name == "idempotency_keys":
        row |= {"key": f"key {number}", "status": 201, "headers": {"Location": "/x"}}
    return row


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
