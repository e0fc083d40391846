"""Datasets: rows and their files come and go together, whoever else is at it."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from service.errors import Conflict, NotFound
from service.storage import datasets, fits
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import DatasetRow, FitRow
from tests.storage.making import NOWHERE, add_dataset, claimed, queue_fit, stored_request, written

GOLD = {"weights": [1.0], "means": [[0.0]], "standard_deviations": [[1.0]], "covariance_type": "full"}


def _rows(database: Database) -> list[DatasetRow]:
    with database.read() as session:
        return list(session.scalars(select(DatasetRow)))


def _stored(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "datasets" / "files").rglob("*.arrow")}


def _of(database: Database, dataset_id: str) -> DatasetRow:
    with database.read() as session:
        return datasets.get(session, dataset_id)


def test_a_dataset_says_what_it_holds(database: Database, store: DatasetStore) -> None:
    points = [[1.0, -2.0], [3.0, 5.5], [5.0, 1.0]]
    row = _of(database, add_dataset(database, store, points, name="three", columns=["a", "b"]))
    assert (row.name, row.source, row.n_samples, row.n_features) == ("three", "upload", 3, 2)
    assert (row.columns, row.size_bytes, row.gold) == (["a", "b"], 48, None)
    assert row.statistics["mean"] == [3.0, 1.5]
    assert row.statistics["standard_deviation"] == pytest.approx([(8 / 3) ** 0.5, np.std([-2, 5.5, 1])])
    assert row.statistics["minimum"] == [1.0, -2.0]
    assert row.statistics["maximum"] == [5.0, 5.5]
    np.testing.assert_array_equal(store.open(row.sha256).columns().T, points)


def test_a_gold_dataset_keeps_its_components(database: Database, store: DatasetStore) -> None:
    row = _of(database, add_dataset(database, store, [[0.0], [0.0]], components=[0, 0], gold=GOLD))
    assert (row.source, row.gold) == ("gold", GOLD)
    assert row.components_sha256 is not None
    components = store.open(row.components_sha256).columns()
    assert components.dtype == np.int64
    assert components.tolist() == [[0, 0]]
    assert store.open(row.sha256).columns().dtype == np.float64


def test_the_same_points_are_stored_once(database: Database, store: DatasetStore, tmp_path: Path) -> None:
    one, other = add_dataset(database, store), add_dataset(database, store)
    assert _of(database, one).sha256 == _of(database, other).sha256
    assert len(_stored(tmp_path)) == 1
    datasets.delete(database, store, one)
    assert store.open(_of(database, other).sha256).n_rows == 3
    datasets.delete(database, store, other)
    assert _stored(tmp_path) == set()


def test_a_deleted_dataset_takes_all_its_files_along(
    database: Database, store: DatasetStore, tmp_path: Path
) -> None:
    dataset_id = add_dataset(database, store, [[0.0], [1.0]], components=[0, 1], gold=GOLD)
    assert len(_stored(tmp_path)) == 2
    datasets.delete(database, store, dataset_id)
    assert _stored(tmp_path) == set()
    with pytest.raises(NotFound):
        _of(database, dataset_id)


@pytest.mark.parametrize("identifier", ["", "dat_nothing", "dat_\0", "dat_" + NOWHERE, "x" * 1000])
def test_what_is_not_there_is_not_found(database: Database, store: DatasetStore, identifier: str) -> None:
    with pytest.raises(NotFound) as refused:
        _of(database, identifier)
    assert refused.value.code == "DATASET_NOT_FOUND"
    with pytest.raises(NotFound):
        datasets.delete(database, store, identifier)


def test_a_live_fit_keeps_its_dataset(database: Database, store: DatasetStore, tmp_path: Path) -> None:
    dataset_id = add_dataset(database, store)
    fit_id = queue_fit(database, dataset_id)
    for _ in ("queued", "running"):
        with pytest.raises(Conflict, match=fit_id) as refused:
            datasets.delete(database, store, dataset_id)
        assert refused.value.code == "DATASET_IN_USE"
        claimed(database, lease_seconds=0.0)
    with database.write() as session:
        fits.end(session, fit_id, None, "cancelled")
    datasets.delete(database, store, dataset_id)
    assert _stored(tmp_path) == set()


def test_a_files_last_user_may_be_the_weights_of_a_fit(
    database: Database, store: DatasetStore, tmp_path: Path
) -> None:
    points = [[1.0], [2.0]]  # as weights, the same content
    dataset_id = add_dataset(database, store, points)
    sha256 = _of(database, dataset_id).sha256
    fit_id = queue_fit(database, dataset_id, weights_sha256=sha256)
    with database.write() as session:
        fits.end(session, fit_id, None, "cancelled")
    datasets.delete(database, store, dataset_id)
    assert _stored(tmp_path) == {sha256}
    with database.write() as session:
        assert fits.delete(session, fit_id) == sha256
    datasets.remove_unused(database, store, sha256)
    assert _stored(tmp_path) == set()


def test_what_a_failed_write_published_is_removed(
    database: Database, store: DatasetStore, tmp_path: Path
) -> None:
    kept = add_dataset(database, store, [[1.0], [2.0]])

    def fail(points: list[list[float]]) -> None:
        with store.draft(1) as draft, store.draft(1) as weights, database.write() as session:
            datasets.add(database, store, session, datasets.NewDataset(written(draft, points)))
            datasets.publish(database, store, session, written(weights, [[7.0], [8.0]]))
            raise KeyError

    for points in ([[3.0], [4.0]], [[1.0], [2.0]]):
        with pytest.raises(KeyError):
            fail(points)
    # The points of the second are another dataset's too.
    assert _stored(tmp_path) == {_of(database, kept).sha256}
    assert [row.id for row in _rows(database)] == [kept]


def test_a_fit_and_a_delete_of_its_dataset_have_one_winner(database: Database, store: DatasetStore) -> None:
    def submit(dataset_id: str) -> bool:
        try:
            with database.write() as session:
                dataset = datasets.get(session, dataset_id, for_fit=True)
                row = FitRow(
                    dataset_id=dataset.id,
                    request=stored_request(dataset_id),
                    device="cpu",
                    priority=0,
                    fit_metadata={},
                )
                fits.submit(session, row, max_queued_fits=1000)
        except NotFound:
            return False
        return True

    def delete(dataset_id: str) -> bool:
        try:
            datasets.delete(database, store, dataset_id)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        for _ in range(15):
            dataset_id = add_dataset(database, store)
            submitted = threads.submit(submit, dataset_id)
            deleted = threads.submit(delete, dataset_id)
            assert submitted.result() is not deleted.result()
            assert (dataset_id in {row.id for row in _rows(database)}) is submitted.result()


def test_a_delete_waits_for_a_publish_of_the_same_content(database: Database, store: DatasetStore) -> None:
    """The file is published before the row that needs it is seen; no delete may come between."""
    first = add_dataset(database, store)
    published, ended = threading.Event(), []

    def delete() -> None:
        published.wait(10)
        datasets.delete(database, store, first)
        ended.append("delete")

    thread = threading.Thread(target=delete)
    thread.start()
    with store.draft(2) as draft:
        written(draft, [[0.0, 1.0], [2.0, 3.0], [4.0, 6.0]])
        with database.write() as session:
            row = datasets.add(database, store, session, datasets.NewDataset(draft))
            published.set()
            thread.join(0.2)
            ended.append("add")
    thread.join()
    assert ended == ["add", "delete"]
    assert store.open(_of(database, row.id).sha256).n_rows == 3


def come_and_go(url: str, folder: Path, n_rounds: int) -> None:
    """Adds and deletes the same two contents again and again."""
    store = DatasetStore(folder)
    with closing(Database(url)) as database:
        for round_ in range(n_rounds):
            dataset_id = add_dataset(database, store, [[float(round_ % 2)], [1.0]])
            store.open(_of(database, dataset_id).sha256)
            if round_ % 4 != 3:
                datasets.delete(database, store, dataset_id)


def test_no_row_is_ever_without_its_file(
    database: Database, database_url: str, store: DatasetStore, tmp_path: Path
) -> None:
    """Two processes and two threads add and delete the same contents; each finds what it has added."""
    folder = tmp_path / "datasets"
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=come_and_go, args=(database_url, folder, 12)) for _ in range(2)]
    for process in processes:
        process.start()
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(come_and_go, database_url, folder, 12) for _ in range(2)]:
            done.result()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert {row.sha256 for row in _rows(database)} == _stored(tmp_path)
    for row in _rows(database):
        datasets.delete(database, store, row.id)
    assert _stored(tmp_path) == set()
