"""What goes because it is old or was left behind, and what stays."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from service.storage import datasets, fits, idempotency, queue, upkeep
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.idempotency import StoredAnswer
from service.storage.owners import LOCAL
from service.storage.tables import FitEventRow, FitRow, IdempotencyKeyRow, MixtureRow
from tests.storage.making import PARAMETERS, add_dataset, claimed, events_of, queue_fit, written

DAY = 86_400.0


def _count(database: Database, table: type) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def _end_long_ago(database: Database, fit_id: str, seconds: float) -> None:
    with database.write() as session:
        row = session.get_one(FitRow, fit_id)
        assert row.finished_at is not None
        aged = row.finished_at - timedelta(seconds=seconds)
        session.execute(update(FitRow).where(FitRow.id == fit_id).values(finished_at=aged))


def _published(database: Database, store: DatasetStore, rows: list[list[float]]) -> str:
    with store.draft(1) as draft, database.write() as session:
        datasets.publish(database, store, session, written(draft, rows))
        return draft.sha256


def test_old_ended_fits_go_with_their_events_and_leave_the_rest(
    database: Database, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    dataset_id = add_dataset(database, store)
    weights = _published(database, store, [[1.0], [2.0]])
    old = [queue_fit(database, dataset_id, weights_sha256=weights) for _ in range(5)]
    for _ in old:
        assert queue.succeed(database, claimed(database), {}, PARAMETERS)
    for fit_id in old:
        _end_long_ago(database, fit_id, DAY)
    recent, live = queue_fit(database, dataset_id), queue_fit(database, dataset_id)
    assert queue.fail(database, claimed(database), "INTERNAL", "it broke")
    assert upkeep.remove_ended_fits(database, store, DAY + 60) == 0
    assert upkeep.remove_ended_fits(database, store, DAY - 60) == 5
    with database.read() as session:
        assert set(session.scalars(select(FitRow.id))) == {recent, live}
        assert set(session.scalars(select(FitEventRow.fit_id))) == {recent, live}
        assert datasets.get(session, dataset_id).id == dataset_id
    assert len(events_of(database, recent)) == 3
    assert _count(database, MixtureRow) == 5
    assert not store.path(weights).exists()
    with database.write() as session:
        fits.cancel(session, live)


def test_old_keys_go_and_fresh_ones_stay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_BATCH", 2)
    for index in range(5):
        idempotency.begin(database, f"key {index}", "a" * 64, "holder", DAY)
        with database.write() as session:
            idempotency.complete(session, f"key {index}", "holder", StoredAnswer(201, {}, b""))
    with database.write() as session:
        row = session.get_one(IdempotencyKeyRow, (LOCAL, "key 0"))
        session.execute(
            update(IdempotencyKeyRow)
            .where(IdempotencyKeyRow.key != "key 4")
            .values(created_at=row.created_at - timedelta(seconds=2 * DAY))
        )
    assert upkeep.remove_old_keys(database, DAY) == 4
    with database.read() as session:
        assert list(session.scalars(select(IdempotencyKeyRow.key))) == ["key 4"]


def _aged(path: Path, seconds: float = 7200.0) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_the_sweep_removes_old_files_that_nothing_refers_to(database: Database, store: DatasetStore) -> None:
    dataset_id = add_dataset(database, store, [[0.0], [1.0]], components=[0, 1], gold={})
    weights = _published(database, store, [[1.0], [2.0]])
    queue_fit(database, dataset_id, weights_sha256=weights)
    orphan = _published(database, store, [[3.0], [4.0]])
    fresh = _published(database, store, [[5.0], [6.0]])
    with database.read() as session:
        row = datasets.get(session, dataset_id)
    kept = [row.sha256, row.components_sha256 or "", weights]
    for sha256 in (*kept, orphan):
        _aged(store.path(sha256))
    with store.draft(1) as old_draft, store.draft(1) as fresh_draft:
        _aged(old_draft.path)
        assert upkeep.sweep(database, store, older_than_seconds=3600.0) == 1
        assert not old_draft.path.exists()
        assert fresh_draft.path.exists()
    assert not store.path(orphan).exists()
    for sha256 in (*kept, fresh):
        assert store.path(sha256).exists()
    assert store.open(row.sha256).columns().tolist() == [[0.0, 1.0]]


def test_the_sweep_leaves_what_came_into_use_meanwhile(
    database: Database, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = _published(database, store, [[0.0], [1.0]])
    _aged(store.path(orphan))
    found = upkeep._unreferred

    def used_in_between(database: Database, contents: list[str]) -> list[str]:
        unused = list(found(database, contents))
        add_dataset(database, store, [[0.0], [1.0]])
        return unused

    monkeypatch.setattr(upkeep, "_unreferred", used_in_between)
    assert upkeep.sweep(database, store, older_than_seconds=3600.0) == 0
    assert store.open(orphan).columns().tolist() == [[0.0, 1.0]]
