"""A worker does fits from the queue: to their end, to a cancel, to a time limit, and over a dead process."""

import os
import signal

import numpy as np
import pytest
from sqlalchemy import select, update

from service.storage import checkpoints, mixtures, queue, workers
from service.storage.queue import Claim
from service.storage.tables import DatasetRow, FitRow, MixtureRow
from tests.storage.making import events_of, written
from tests.worker.conftest import LONG, POINTS, WorkerProcess, fitters_of, until

GOLD = {
    "weights": [0.5, 0.5],
    "means": [[0.0, 0.0], [4.0, 4.0]],
    "covariances": [[[1.0, 0.0], [0.0, 1.0]]] * 2,
    "covariance_type": "full",
}

MIDDLING = LONG | {"max_steps": 1500, "seed": 3}


def _statuses(worker: WorkerProcess, fit_id: str) -> list[str]:
    found = events_of(worker.database, fit_id)
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    return [data["status"] for _, kind, data in found if kind == "status"]


def _parameters(worker: WorkerProcess, row: FitRow) -> dict[str, bytes]:
    assert row.result is not None
    with worker.database.read() as session:
        mixture = mixtures.get(session, row.result["mixture_id"])
        return {name: getattr(mixture, name).tobytes() for name in ("weights", "means", "covariances")}


def test_a_fit_is_done_from_end_to_end(worker: WorkerProcess) -> None:
    fit_id = worker.queue(n_components=2, n_init=3, seed=1)
    row = worker.ended(fit_id)
    assert (row.status, row.error, row.attempt, row.n_workers_lost) == ("succeeded", None, 1, 0)
    assert row.result is not None
    with worker.database.read() as session:
        mixture = mixtures.get(session, row.result["mixture_id"])
    assert mixture.fit_id == fit_id
    for name in ("weights", "means", "covariances"):
        np.testing.assert_array_equal(getattr(mixture, name), row.result["mixture"][name])
    nearest = np.sort(mixture.means, axis=0)
    np.testing.assert_allclose(nearest, [POINTS[:150].mean(axis=0), POINTS[150:].mean(axis=0)], atol=0.1)
    assert _statuses(worker, fit_id) == ["queued", "running", "succeeded"]


def test_a_fit_that_ends_at_once_has_its_last_progress(worker: WorkerProcess) -> None:
    row = worker.ended(worker.queue(n_components=[1, 2], n_init=3, max_steps=500))
    assert row.result is not None
    assert row.progress is not None
    assert 1 <= row.progress["step"] <= row.progress["max_steps"] == 500
    assert (row.progress["restarts_done"], row.progress["n_init"]) == (6, 6)
    assert row.progress["log_likelihood"] == row.result["log_likelihood"]
    assert row.progress["remaining_seconds"] == 0.0
    assert row.progress["elapsed_seconds"] >= 0.0


def test_a_gold_dataset_gets_its_recovery(worker: WorkerProcess) -> None:
    fit_id = worker.queue(n_components=2, n_init=2)
    with worker.store.draft(1, "int64") as draft, worker.database.write() as session:
        worker.store.publish(written(draft, [[0]] * 150 + [[1]] * 150, "int64"))
        fit = session.get_one(FitRow, fit_id)
        dataset = session.get_one(DatasetRow, fit.dataset_id)
        dataset.gold, dataset.components_sha256 = GOLD, draft.sha256
        queued_again = FitRow(
            dataset_id=dataset.id, request=fit.request, device="auto", fit_metadata={}, n_events=0
        )
        session.add(queued_again)
    row = worker.ended(queued_again.id)
    assert row.result is not None
    assert row.result["recovery"]["adjusted_rand_index"] > 0.9


def test_a_running_fit_tells_how_it_comes_on_and_who_runs_it(worker: WorkerProcess) -> None:
    fit_id = worker.queue(**LONG)
    row = worker.begun(fit_id)
    with worker.database.read() as session:
        ((found, running),) = workers.alive(session, 30.0)
    assert running == [fit_id]
    assert (row.worker_id, found.process_id) == (found.id, worker.process.pid)
    first = row.progress
    assert first is not None
    later = worker.when(fit_id, lambda row: row.progress["step"] > first["step"]).progress
    assert later is not None
    assert later["elapsed_seconds"] > first["elapsed_seconds"]
    assert first["remaining_seconds"] > 0
    worker.cancel(fit_id)
    assert worker.ended(fit_id).progress["step"] >= later["step"]  # type: ignore[index]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_running_fit_is_cancelled_within_two_seconds(worker: WorkerProcess, frozen: bool) -> None:
    """Also when the process that does it takes no part in that."""
    fit_id = worker.queue(**LONG)
    worker.begun(fit_id)
    if frozen:
        os.kill(worker.fitter, signal.SIGSTOP)
    worker.cancel(fit_id)
    row = worker.ended(fit_id)
    assert (row.status, row.error) == ("cancelled", None)
    assert row.finished_at is not None
    assert row.cancel_requested_at is not None
    assert (row.finished_at - row.cancel_requested_at).total_seconds() < 2.0
    assert _statuses(worker, fit_id) == ["queued", "running", "cancelled"]


@pytest.mark.parametrize("frozen", [False, True])
def test_a_fit_out_of_time_fails(worker: WorkerProcess, frozen: bool) -> None:
    if frozen:  # before it has the fit: how far it comes in a second depends on the machine
        os.kill(worker.fitter, signal.SIGSTOP)
    fit_id = worker.queue(**LONG, timeout_seconds=1.0)
    row = worker.ended(fit_id)
    assert (row.status, row.error and row.error["code"]) == ("failed", "TIMED_OUT")
    assert "timeout_seconds of 1" in str(row.error)
    assert row.finished_at is not None
    assert row.started_at is not None
    assert 0.9 < (row.finished_at - row.started_at).total_seconds() < 4.0


@pytest.fixture(scope="module")
def undisturbed(worker: WorkerProcess) -> FitRow:
    return worker.ended(worker.queue(**MIDDLING))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_fit_whose_process_is_killed_is_done_by_the_next(
    worker: WorkerProcess, undisturbed: FitRow, checkpointed: bool
) -> None:
    def far_enough(row: FitRow) -> bool:
        kept = checkpoints.read(worker.database, row.id)
        return row.status == "running" and (kept is not None) >= checkpointed

    fit_id = worker.queue(**MIDDLING)
    worker.when(fit_id, far_enough)
    fitter = worker.fitter
    os.kill(fitter, signal.SIGKILL)
    row = worker.ended(fit_id)
    assert (row.status, row.attempt, row.n_workers_lost) == ("succeeded", 2, 1)
    assert _statuses(worker, fit_id) == ["queued", "running", "queued", "running", "succeeded"]
    assert _parameters(worker, row) == _parameters(worker, undisturbed)
    assert fitter not in fitters_of(worker.process.pid)
    with worker.database.read() as session:
        assert len(session.scalars(select(MixtureRow).where(MixtureRow.fit_id == fit_id)).all()) == 1


def test_a_process_that_dies_idle_costs_no_fit_an_attempt(worker: WorkerProcess) -> None:
    worker.ended(worker.queue())
    fitter = worker.fitter
    os.kill(fitter, signal.SIGKILL)
    until(lambda: (found := fitters_of(worker.process.pid)) and fitter not in found)
    row = worker.ended(worker.queue())
    assert (row.status, row.attempt, row.n_workers_lost) == ("succeeded", 1, 0)


def test_a_fit_that_was_taken_over_is_let_go(worker: WorkerProcess) -> None:
    fit_id = worker.queue(**LONG)
    worker.begun(fit_id)
    fitter = worker.fitter
    with worker.database.write() as session:
        session.execute(update(FitRow).where(FitRow.id == fit_id).values(token="tok_of_another"))
    until(lambda: fitter not in fitters_of(worker.process.pid))
    row = worker.when(fit_id, lambda row: row.status == "running")
    assert (row.token, row.result) == ("tok_of_another", None)
    others = Claim(fit_id, "local", "tok_of_another", 1, {}, None, None, "", None, None, None, 0, 0)
    assert queue.cancelled(worker.database, others)
    assert worker.ended(worker.queue()).status == "succeeded"


def test_a_fit_that_collapses_says_so(worker: WorkerProcess) -> None:
    spots = [*POINTS[:2], *POINTS[-2:]] * 25
    row = worker.ended(worker.queue(spots, n_components=3, regularization=0, n_init=2))
    assert (row.status, row.error and row.error["code"]) == ("failed", "FIT_COLLAPSED")
    assert "regularization" in str(row.error)


def test_a_fit_that_cannot_be_says_what_to_change(worker: WorkerProcess) -> None:
    row = worker.ended(worker.queue([[1.0], [2.0]], n_components=3))
    assert (row.status, row.error and row.error["code"]) == ("failed", "INVALID_FIT")
    assert "2 points cannot hold 3 components" in str(row.error)


def test_a_fit_that_fails_inside_tells_no_secrets(worker: WorkerProcess) -> None:
    fit_id = worker.queue(**LONG)
    worker.begun(fit_id)  # while this one keeps the worker busy
    broken = worker.queue([[1.0], [2.0]])
    with worker.database.write() as session:
        fit = session.get_one(FitRow, broken)
        session.get_one(DatasetRow, fit.dataset_id).sha256 = "0" * 64
    worker.cancel(fit_id)
    row = worker.ended(broken)
    assert (row.status, row.error and row.error["code"]) == ("failed", "INTERNAL")
    assert "/" not in row.error["message"]  # type: ignore[index]
    assert worker.ended(worker.queue()).status == "succeeded"
