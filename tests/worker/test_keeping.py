"""A checkpoint that cannot be kept costs its fit nothing but that checkpoint."""

import sqlite3

import pytest
from sqlalchemy import event

from service.storage import checkpoints, queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.worker.keeping import Keeping
from service.worker.messages import Checkpointed
from tests.storage.making import add_dataset, claimed, queue_fit


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_the_database_refuses_is_logged_and_left(
    database: Database, store: DatasetStore, caplog: pytest.LogCaptureFixture
) -> None:
    fit_id = queue_fit(database, add_dataset(database, store))
    held = claimed(database)
    keeping = Keeping(database, held)
    keeping.take(Checkpointed(0, b"small", last=True))

    def set_limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)

    event.listen(database.engine, "checkout", set_limit)
    keeping.take(Checkpointed(0, b"half", last=False))
    keeping.take(Checkpointed(1, bytes(200_000), last=False))
    assert "cannot be kept" in caplog.text
    keeping.take(Checkpointed(2, b"and the rest", last=True))
    assert checkpoints.read(database, fit_id) == b"small"
    keeping.take(Checkpointed(0, b"ano", last=False))
    keeping.take(Checkpointed(1, b"ther", last=True))
    assert checkpoints.read(database, fit_id) == b"another"
    assert queue.standing(database, held) == queue.Standing(lost=False)
