"""Workers: who is there, and what they are at."""

import os
import socket
from datetime import timedelta

import pytest

from service.storage import queue, workers
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import WorkerRow
from service.storage.workers import Device
from tests.storage.making import add_dataset, claimed, queue_fit

CPU = Device("cpu", "a processor", 2**40)
GPU = Device("cuda:1", "a GPU", 2**37)


def _alive(database: Database, lease_seconds: float = 30.0) -> list[tuple[str, list[str]]]:
    with database.read() as session:
        return [(row.id, running) for row, running in workers.alive(session, lease_seconds)]


def _silent_for(database: Database, worker_id: str, seconds: float) -> None:
    with database.write() as session:
        session.get_one(WorkerRow, worker_id).last_heartbeat_at -= timedelta(seconds=seconds)


def test_a_worker_says_what_it_is(database: Database) -> None:
    worker_id = workers.register(database, GPU)
    with database.read() as session:
        ((row, running),) = workers.alive(session, 30.0)
    assert (row.id, row.hostname, row.process_id) == (worker_id, socket.gethostname(), os.getpid())
    assert (row.device_type, row.device, row.device_name) == ("cuda", "cuda:1", "a GPU")
    assert row.memory_bytes == 2**37
    assert running == []
    assert abs(row.started_at - row.last_heartbeat_at) < timedelta(seconds=1)


def test_a_silent_worker_is_not_alive_until_it_is_heard_again(database: Database) -> None:
    one, other = workers.register(database, CPU), workers.register(database, CPU)
    _silent_for(database, one, 31.0)
    assert _alive(database) == [(other, [])]
    assert workers.heartbeat(database, one)
    assert _alive(database) == [(one, []), (other, [])]


def test_a_worker_that_ends_is_gone(database: Database) -> None:
    worker_id = workers.register(database, CPU)
    workers.unregister(database, worker_id)
    assert _alive(database) == []
    workers.unregister(database, worker_id)


def test_a_worker_silent_for_a_day_is_forgotten_and_learns_so(database: Database) -> None:
    forgotten = workers.register(database, CPU)
    _silent_for(database, forgotten, 86_401.0)
    silent = workers.register(database, CPU)
    _silent_for(database, silent, 86_390.0)
    workers.register(database, CPU)
    with database.read() as session:
        assert session.get(WorkerRow, forgotten) is None
        assert session.get(WorkerRow, silent) is not None
    assert workers.heartbeat(database, silent)
    assert not workers.heartbeat(database, forgotten)


def test_a_workers_fits_are_those_it_runs(database: Database, store: DatasetStore) -> None:
    dataset_id = add_dataset(database, store)
    one, other = workers.register(database, CPU), workers.register(database, GPU)
    fits = [queue_fit(database, dataset_id) for _ in range(3)]
    first = claimed(database, worker_id=one)
    claimed(database, worker_id=one)
    claimed(database, worker_id=other)
    assert _alive(database) == [(one, fits[:2]), (other, fits[2:])]
    queue.cancelled(database, first)
    assert _alive(database) == [(one, fits[1:2]), (other, fits[2:])]


@pytest.mark.parametrize(
    ("device", "serves"),
    [
        (CPU, ("auto", "cpu")),
        (GPU, ("auto", "cpu", "cuda", "cuda:1")),
        (Device("cuda:0", "", 1), ("auto", "cpu", "cuda", "cuda:0")),
    ],
)
def test_a_device_serves_its_names(device: Device, serves: tuple[str, ...]) -> None:
    assert device.serves == serves


def test_the_devices_of_workers_that_are_alive_are_told_once(database: Database) -> None:
    _silent_for(database, workers.register(database, CPU), 60.0)
    for _ in range(2):
        workers.register(database, GPU)
    with database.read() as session:
        assert workers.devices(session, 30.0) == [GPU]
