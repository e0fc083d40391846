"""Of several workers of a kind, one is kept free of large fits."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from service.storage import queue, workers
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.large_fits import LARGE_SECONDS
from service.storage.tables import WorkerRow
from tests.storage.making import add_dataset, claim, claimed, fit_row, queue_fit

CPU = workers.Device("cpu", "a processor", 2**30)
GPU = workers.Device("cuda:0", "a card", 2**30)


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store)


def _large(database: Database, dataset_id: str, n: int = 1, **fields: object) -> list[str]:
    return [queue_fit(database, dataset_id, estimated_seconds=LARGE_SECONDS + 1, **fields) for _ in range(n)]


def _takes(database: Database, worker_id: str, devices: tuple[str, ...] = ("auto", "cpu")) -> str | None:
    held = claim(database, worker_id, devices=devices)
    return None if held is None else held.fit_id


def test_the_only_worker_of_its_kind_does_large_fits(database: Database, dataset_id: str) -> None:
    cpu, gpu = workers.register(database, CPU), workers.register(database, GPU)
    large = _large(database, dataset_id, 2)
    assert _takes(database, cpu) == large[0]
    assert _takes(database, gpu) == large[1]


@pytest.mark.parametrize("n_workers", [2, 3, 4])
def test_one_of_several_workers_stays_free_for_small_fits(
    database: Database, dataset_id: str, n_workers: int
) -> None:
    several = [workers.register(database, CPU) for _ in range(n_workers)]
    large = _large(database, dataset_id, n_workers + 1, priority=5)
    small = queue_fit(database, dataset_id, estimated_seconds=LARGE_SECONDS)
    for worker_id, fit_id in zip(several[:-1], large, strict=False):
        assert _takes(database, worker_id) == fit_id
    assert _takes(database, several[-1]) == small
    assert _takes(database, several[-1]) is None
    assert fit_row(database, large[-1]).status == "queued"


def test_a_large_fit_goes_on_when_one_has_ended(database: Database, dataset_id: str) -> None:
    one, other = workers.register(database, CPU), workers.register(database, CPU)
    first, second = _large(database, dataset_id, 2)
    held = claimed(database, worker_id=one)
    assert held.fit_id == first
    assert _takes(database, other) is None
    assert queue.cancelled(database, held)
    assert _takes(database, other) == second


def test_workers_that_died_are_not_counted(database: Database, dataset_id: str) -> None:
    alive, dead = workers.register(database, CPU), workers.register(database, CPU)
    first, second = _large(database, dataset_id, 2)
    assert claimed(database, worker_id=dead, lease_seconds=0.0).fit_id == first
    with database.write() as session:
        session.execute(
            update(WorkerRow).where(WorkerRow.id == dead).values(last_heartbeat_at=now_plus(-60.0))
        )
    assert _takes(database, alive) == first
    newcomer = workers.register(database, CPU)
    assert _takes(database, newcomer) is None
    assert fit_row(database, second).status == "queued"


def test_workers_that_claim_at_once_take_the_oldest_and_leave_one_free(
    database: Database, dataset_id: str
) -> None:
    several = [workers.register(database, CPU) for _ in range(4)]
    with ThreadPoolExecutor(len(several)) as threads:
        for _ in range(15):
            large = _large(database, dataset_id, len(several))
            taken = [held for held in threads.map(lambda worker: claim(database, worker), several) if held]
            assert sorted(held.fit_id for held in taken) == large[:-1]
            for held in taken:
                assert queue.cancelled(database, held)
            rest = claimed(database, worker_id=several[0])
            assert rest.fit_id == large[-1]
            assert queue.cancelled(database, rest)
