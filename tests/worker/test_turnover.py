"""A worker ends a fit and claims the next in one transaction; what it claims it does or gives back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from service.settings import Settings
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.workers import Device
from service.worker import supervisor
from service.worker.fitter_process import FitterDied
from service.worker.messages import Asked, Finished, Start, Stopped, Succeeded
from service.worker.supervisor import Supervisor
from tests.storage.making import PARAMETERS, add_dataset, events_of, fit_row, queue_fit

RESULT = {"outcome": "converged", "n_passes": 1}
UNWRITABLE = Succeeded(RESULT, {"covariance_type": "full"})


class Scripted:
    """A fitter that computes nothing: what happens at each of its fits is said beforehand.

    Args:
        script: Called with the number of each fit, from 0; returns how it ends, or None when it goes on until
            it is asked to stop.
    """

    device = Device("cpu", "scripted", 1 << 30)
    process_id = 0

    def __init__(self, script: "Callable[[Scripted, int], Succeeded | None]") -> None:
        self.n_started = 0
        self.alive = True
        self._script = script
        self._said: Finished | None = None

    def is_alive(self) -> bool:
        return self.alive

    def start(self, message: Start) -> None:
        del message
        if not self.alive:
            raise FitterDied
        ended = self._script(self, self.n_started)
        self.n_started += 1
        self._said = None if ended is None else Finished(ended, None)

    def stop(self, outcome: Asked) -> None:
        del outcome
        self._said = Finished(Stopped(), None)

    def listen(self, timeout_seconds: float) -> Finished | None:
        del timeout_seconds
        said, self._said = self._said, None
        return said

    def kill(self) -> None:
        self.alive = False


Script = Callable[[Supervisor, Scripted, int], Succeeded | None]


@pytest.fixture
def fit_ids(database: Database, store: DatasetStore) -> list[str]:
    """Four fits, queued."""
    dataset_id = add_dataset(database, store)
    return [queue_fit(database, dataset_id) for _ in range(4)]


@pytest.fixture
def work(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], int]:
    """Has a worker do fits by a script until that stops it; returns how many fitters it took."""

    def run(script: Script) -> int:
        fitters: list[Scripted] = []

        def new_fitter(*_: Any, **__: Any) -> Scripted:
            fitters.append(Scripted(lambda fitter, number: script(worker, fitter, number)))
            return fitters[-1]

        monkeypatch.setattr(supervisor, "FitterProcess", new_fitter)
        worker = Supervisor(Settings(data_dir=tmp_path, lease_seconds=600), database, "cpu")
        worker.run()
        return len(fitters)

    return run


def _standing(database: Database, fit_ids: list[str]) -> list[tuple[str, int, int]]:
    rows = [fit_row(database, fit_id) for fit_id in fit_ids]
    return [(row.status, row.attempt, row.n_workers_lost) for row in rows]


def _well(worker: Supervisor, _: Scripted, number: int) -> Succeeded:
    """All four fits succeed, and that is all."""
    if number == 3:
        worker.stop()
    return Succeeded(RESULT, PARAMETERS)


DONE, UNTOUCHED, GIVEN_BACK = ("succeeded", 1, 0), ("queued", 0, 0), ("queued", 1, 0)


def test_an_end_and_the_next_claim_are_one_transaction(
    database: Database, fit_ids: list[str], work: Callable[[Script], int]
) -> None:
    n_commits: list[int] = []
    committed = 0

    def count(_: Any) -> None:
        nonlocal committed
        committed += 1

    def script(worker: Supervisor, fitter: Scripted, number: int) -> Succeeded:
        n_commits.append(committed)
        return _well(worker, fitter, number)

    event.listen(database.engine, "commit", count)
    work(script)
    event.remove(database.engine, "commit", count)
    assert _standing(database, fit_ids) == [DONE] * 4
    # Beside the one for each fit, there is a heartbeat of the worker after the first.
    assert n_commits[3] - n_commits[1] == 2
    for fit_id in fit_ids:
        statuses = [(number, data["status"]) for number, _, data in events_of(database, fit_id)]
        assert statuses == [(1, "queued"), (2, "running"), (3, "succeeded")]


def test_nothing_is_claimed_once_the_worker_is_to_stop(
    database: Database, fit_ids: list[str], work: Callable[[Script], int]
) -> None:
    def script(worker: Supervisor, _: Scripted, number: int) -> Succeeded:
        if number == 1:
            worker.stop()
        return Succeeded(RESULT, PARAMETERS)

    work(script)
    assert _standing(database, fit_ids) == [DONE, DONE, UNTOUCHED, UNTOUCHED]


def test_what_was_claimed_with_an_end_is_given_back(
    database: Database, fit_ids: list[str], work: Callable[[Script], int]
) -> None:
    def script(worker: Supervisor, _: Scripted, number: int) -> Succeeded | None:
        if number == 0:
            return Succeeded(RESULT, PARAMETERS)
        worker.stop()
        return None

    work(script)
    assert _standing(database, fit_ids) == [DONE, GIVEN_BACK, UNTOUCHED, UNTOUCHED]


def test_a_dead_fitter_is_given_no_fit_with_the_end_of_its_last(
    database: Database, fit_ids: list[str], work: Callable[[Script], int]
) -> None:
    def script(worker: Supervisor, fitter: Scripted, number: int) -> Succeeded:
        fitter.alive = False
        if fit_row(database, fit_ids[3]).status == "running":
            worker.stop()
        return Succeeded(RESULT, PARAMETERS)

    assert work(script) == 4
    assert _standing(database, fit_ids) == [DONE] * 4


def test_a_result_that_cannot_be_written_takes_no_claim_with_it(
    database: Database, fit_ids: list[str], work: Callable[[Script], int]
) -> None:
    def script(worker: Supervisor, fitter: Scripted, number: int) -> Succeeded:
        done = _well(worker, fitter, number)
        return UNWRITABLE if number == 1 else done

    work(script)
    assert _standing(database, fit_ids) == [DONE, ("failed", 1, 0), DONE, DONE]
    error = fit_row(database, fit_ids[1]).error
    assert error is not None
    assert error["code"] == "INTERNAL"
    assert "could not be kept" in error["message"]


def test_a_claim_that_fails_takes_no_result_with_it(
    database: Database, fit_ids: list[str], work: Callable[[Script], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("a test")

    monkeypatch.setattr(supervisor.claims, "claim_after", broken)
    work(_well)
    assert _standing(database, fit_ids) == [DONE] * 4
