"""Migrations: what they make is what the code is written for, whoever runs them and however often."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import String, inspect, text
from sqlalchemy.exc import IntegrityError

from service.storage import database as database_module
from service.storage import datasets, migrations, mixtures
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import Table
from tests.storage.catalogue import described
from tests.storage.making import add_dataset, claimed, events_of, fit_row, queue_fit


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    database = Database(empty_database_url)
    yield database
    database.close()


def test_the_upgraded_schema_is_the_codes(database: Database, empty: Database) -> None:
    with empty.write() as session:
        Table.metadata.create_all(session.connection())
    ours, theirs = described(database.engine), described(empty.engine)
    assert set(ours) == {table.name for table in Table.metadata.sorted_tables}
    for name, table in theirs.items():
        assert ours[name] == table


def test_constraints_and_indexes_have_names(database: Database) -> None:
    fits = described(database.engine)["fits"]
    assert fits["primary key"]["name"] == "pk_fits"
    assert set(fits["checks"]) == {"ck_fits_status", "ck_fits_token", "ck_fits_lease"}
    live = fits["indexes"]["ix_fits_live"]
    assert "priority DESC" in live
    assert "WHERE" in live


def test_a_downgrade_to_base_leaves_nothing(database: Database) -> None:
    migrations.downgrade(database, "base")
    assert migrations.current_revision(database) is None
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    with database.read() as session:
        query = "SELECT count(*) FROM alembic_version"
        assert session.scalar(text(query)) == 0
    migrations.upgrade(database)
    assert migrations.current_revision(database) == migrations.head_revision()


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(database: Database, store: DatasetStore) -> None:
    dataset_id = add_dataset(database, store, [[1.5, -0.0]])
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    with database.write() as session:
        given = {"weights": [1.0], "means": [[0.1]], "covariances": [[[2.0]]], "covariance_type": "full"}
        mixture_id = mixtures.add(session, given).id
    before = described(database.engine)
    migrations.upgrade(database)
    assert described(database.engine) == before
    assert fit_row(database, fit_id).token == held.token
    with database.read() as session:
        assert datasets.get(session, dataset_id).statistics["mean"] == [1.5, 0.0]
        assert mixtures.get(session, mixture_id).means.tolist() == [[0.1]]


def test_a_database_that_was_never_migrated_has_no_revision(empty: Database) -> None:
    assert migrations.current_revision(empty) is None
    migrations.upgrade(empty)
    assert migrations.current_revision(empty) == migrations.head_revision()


def test_several_processes_may_upgrade_at_once(empty: Database, empty_database_url: str) -> None:
    code = (
        "import sys\n"
        "from service.storage import migrations\n"
        "from service.storage.database import Database\n"
        "database = Database(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "migrations.upgrade(database)\n"
        "database.close()\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, empty_database_url]
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # all are let go at once
        process.stdin = None
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 3
    assert migrations.current_revision(empty) == migrations.head_revision()


def test_an_upgrade_that_fails_leaves_nothing_behind(
    empty: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = migrations.command.upgrade

    def failing(*arguments: object) -> None:
        upgrade(*arguments)
        raise KeyError

    monkeypatch.setattr(migrations.command, "upgrade", failing)
    with pytest.raises(KeyError):
        migrations.upgrade(empty)
    assert inspect(empty.engine).get_table_names() == []


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_an_upgrade_waits_for_another_for_as_long_as_that_takes(
    empty: Database, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_LOCK_TIMEOUT_MS", 50)
    under_way, waits = threading.Event(), threading.Event()
    upgrade = migrations.command.upgrade

    def slowly(*arguments: object) -> None:
        under_way.set()
        upgrade(*arguments)
        waits.wait(0.5)  # nobody says so: this is how long the other would have to be patient

    with closing(Database(empty_database_url)) as hurried, ThreadPoolExecutor() as threads:
        monkeypatch.setattr(migrations.command, "upgrade", slowly)
        first = threads.submit(migrations.upgrade, empty)
        assert under_way.wait(10)
        monkeypatch.setattr(migrations.command, "upgrade", upgrade)
        migrations.upgrade(hurried)
        first.result()
    assert migrations.current_revision(empty) == migrations.head_revision()


def test_a_table_may_be_rebuilt_without_losing_what_refers_to_it(
    database: Database, store: DatasetStore
) -> None:
    fit_id = queue_fit(database, add_dataset(database, store, [[1.5]]))
    before = events_of(database, fit_id)
    assert before
    with database.rebuild() as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("fits", recreate="auto") as fits:
            fits.alter_column("device", type_=String(17), existing_type=String(16))
    assert events_of(database, fit_id) == before
    with database.write() as session:
        session.execute(text("DELETE FROM fits"))
    assert events_of(database, fit_id) == []


def test_a_rebuild_that_leaves_a_row_without_its_fit_is_undone(
    database: Database, store: DatasetStore
) -> None:
    fit_id = queue_fit(database, add_dataset(database, store, [[1.5]]))
    before = events_of(database, fit_id)
    orphan = text("INSERT INTO fit_events SELECT 'none', number, type, data, created_at FROM fit_events")
    with pytest.raises((RuntimeError, IntegrityError)), database.rebuild() as connection:
        connection.execute(orphan)
    assert events_of(database, fit_id) == before
    assert events_of(database, "none") == []
