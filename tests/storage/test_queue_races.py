"""Many at the queue at once: each fit goes to one, and one of several endings wins."""

import multiprocessing
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import func, select

from service.storage import fits, queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.tables import FitRow, MixtureRow
from tests.storage.making import PARAMETERS, add_dataset, claim, claimed, events_of, fit_row, queue_fit

N_FITS = 50


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store)


def serve(url: str, worker_id: str) -> list[str]:
    """Claims fits and ends them until there are none; returns which."""
    done = []
    with closing(Database(url)) as database:
        while (held := claim(database, worker_id=worker_id)) is not None:
            queue.heartbeat(database, held, 30.0, {"step": 1})
            if queue.succeed(database, held, {"outcome": "converged"}, PARAMETERS):
                done.append(held.fit_id)
    return done


def _serve_and_tell(url: str, worker_id: str, told: Any) -> None:
    told.send(serve(url, worker_id))
    told.close()


def _in_threads(url: str) -> list[list[str]]:
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda index: serve(url, f"wrk_{index}"), range(4)))


def _in_processes(url: str) -> list[list[str]]:
    spawn = multiprocessing.get_context("spawn")
    ends = [spawn.Pipe(duplex=False) for _ in range(3)]
    processes = [
        spawn.Process(target=_serve_and_tell, args=(url, f"wrk_{index}", sender))
        for index, (_, sender) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    done = []
    for (receiver, sender), process in zip(ends, processes, strict=True):
        sender.close()
        with receiver:
            done.append(receiver.recv())
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    return done


@pytest.mark.parametrize("crowd", [_in_threads, _in_processes])
def test_every_fit_is_done_once(
    database: Database, database_url: str, dataset_id: str, crowd: Callable[[str], list[list[str]]]
) -> None:
    queued = [queue_fit(database, dataset_id) for _ in range(N_FITS)]
    done = Counter(fit_id for one in crowd(database_url) for fit_id in one)
    assert done == Counter(queued)
    with database.read() as session:
        rows = session.execute(select(FitRow.status, FitRow.attempt, FitRow.n_events)).all()
        assert Counter(tuple(row) for row in rows) == {("succeeded", 1, 4): N_FITS}
        n_mixtures = session.scalar(select(func.count(MixtureRow.fit_id.distinct())))
        assert n_mixtures == session.scalar(select(func.count()).select_from(MixtureRow)) == N_FITS
    for fit_id in queued[::10]:
        assert [number for number, _, _ in events_of(database, fit_id)] == [1, 2, 3, 4]


def test_an_abandoned_fit_goes_to_one_of_many(database: Database, database_url: str, dataset_id: str) -> None:
    queue_fit(database, dataset_id)
    for _ in range(5):
        claimed(database, lease_seconds=0.0, max_attempts=100)
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(lambda index: claim(database, f"wrk_{index}", max_attempts=100), range(4))
            held = [one for one in found if one is not None]
        assert len(held) == 1
        assert queue.release(database, held[0])


def test_a_cancel_and_a_success_have_one_winner(database: Database, dataset_id: str) -> None:
    def cancel(fit_id: str) -> str:
        with database.write() as session:
            return fits.cancel(session, fit_id).status

    endings = set()
    with ThreadPoolExecutor(2) as threads:
        for _ in range(15):
            fit_id = queue_fit(database, dataset_id)
            held = claimed(database)
            cancelled = threads.submit(cancel, fit_id)
            succeeded = threads.submit(queue.succeed, database, held, {}, PARAMETERS)
            # What was ready counts; the client who came late reads how it ended.
            assert succeeded.result()
            endings.add(cancelled.result())
            assert fit_row(database, fit_id).status == "succeeded"
    assert endings <= {"running", "succeeded"}


def test_a_cancel_and_a_claim_have_one_winner(database: Database, dataset_id: str) -> None:
    def cancel(fit_id: str) -> str:
        with database.write() as session:
            return fits.cancel(session, fit_id).status

    with ThreadPoolExecutor(2) as threads:
        for _ in range(15):
            fit_id = queue_fit(database, dataset_id)
            status = threads.submit(cancel, fit_id)
            held = threads.submit(claim, database).result()
            if held is None:
                assert status.result() == fit_row(database, fit_id).status == "cancelled"
            else:
                assert status.result() == "running"
                assert queue.heartbeat(database, held, 30.0).cancel_requested
                assert queue.cancelled(database, held)
