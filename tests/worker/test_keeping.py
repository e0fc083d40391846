"""A checkpoint that cannot be kept costs its fit nothing but that checkpoint."""

import sqlite3

import pytest
from sqlalchemy import event, select

from service.settings import Settings
from service.storage import queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow
from service.worker.supervisor import Supervisor
from tests.storage.making import add_dataset, claimed, queue_fit


def _kept(database: Database, fit_id: str) -> bytes | None:
    with database.read() as session:
        return session.scalar(select(FitRow.checkpoint).where(FitRow.id == fit_id))


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_the_database_refuses_is_logged_and_left(
    settings: Settings, database: Database, store: DatasetStore, caplog: pytest.LogCaptureFixture
) -> None:
    fit_id = queue_fit(database, add_dataset(database, store))
    held = claimed(database)
    supervisor = Supervisor(settings, database, "cpu")
    supervisor._keep(held, b"small")

    def set_limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)

    event.listen(database.engine, "checkout", set_limit)
    supervisor._keep(held, bytes(200_000))
    assert "cannot be kept" in caplog.text
    assert _kept(database, fit_id) == b"small"
    supervisor._keep(held, b"another")
    assert _kept(database, fit_id) == b"another"
    assert queue.standing(database, held) == queue.Standing(lost=False)
