"""The queue: who gets which fit, and whose writes count."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from service.storage import checkpoints, events, fits, mixtures, queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.queue import Claim, Standing
from service.storage.tables import CheckpointPartRow, FitRow, MixtureRow
from tests.storage.making import PARAMETERS, add_dataset, claim, claimed, events_of, fit_row, queue_fit

RESULT = {"outcome": "converged", "bic": float("inf")}
PROGRESS = {"step": 3, "log_likelihood": -1.5}


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store, columns=["a", "b"])


def _n_mixtures(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(MixtureRow)) or 0


def _taken_over(database: Database, dataset_id: str, **fields: Any) -> tuple[Claim, Claim]:
    """Returns the claim of a worker that fell silent, and that of the one which took over."""
    queue_fit(database, dataset_id, **fields)
    return claimed(database, lease_seconds=0.0), claimed(database, worker_id="wrk_other")


def test_a_claim_holds_all_that_a_worker_needs(database: Database, store: DatasetStore) -> None:
    gold = {"weights": [1.0]}
    dataset_id = add_dataset(database, store, [[0.0], [1.0]], components=[0, 0], gold=gold)
    fit_id = queue_fit(database, dataset_id, timeout_seconds=2.5, weights_sha256="f" * 64, seed=7)
    held = claimed(database)
    assert (held.fit_id, held.attempt, held.timeout_seconds) == (fit_id, 1, 2.5)
    assert (held.n_samples, held.n_features, held.gold) == (2, 1, gold)
    assert held.weights_sha256 == "f" * 64
    assert held.request["seed"] == 7
    assert store.open(held.dataset_sha256).columns().tolist() == [[0.0, 1.0]]
    assert store.open(held.components_sha256 or "").columns().tolist() == [[0, 0]]


def test_an_empty_queue_gives_nothing(database: Database) -> None:
    assert claim(database) is None


def test_priority_goes_first_then_age(database: Database, dataset_id: str) -> None:
    priorities = [0, 5, -1, 5, 0, 1000, -1000]
    queued = [queue_fit(database, dataset_id, priority=priority) for priority in priorities]
    order = [claimed(database).fit_id for _ in priorities]
    assert order == [queued[index] for index in (5, 1, 3, 0, 4, 2, 6)]


def test_a_worker_gets_what_its_device_can_do(database: Database, dataset_id: str) -> None:
    wanted = ["cuda:1", "cuda", "cpu", "cuda:0", "auto"]
    queued = {device: queue_fit(database, dataset_id, device=device) for device in wanted}

    def all_of(*devices: str) -> list[str]:
        found = []
        while (held := claim(database, devices=devices)) is not None:
            found.append(held.fit_id)
        return found

    assert all_of("auto", "cpu") == [queued["cpu"], queued["auto"]]
    assert all_of("auto", "cpu", "cuda", "cuda:0") == [queued["cuda"], queued["cuda:0"]]
    assert all_of("auto", "cpu", "cuda", "cuda:0") == []
    assert fit_row(database, queued["cuda:1"]).status == "queued"


def test_a_fit_on_several_devices_waits_for_a_worker_that_has_them(
    database: Database, dataset_id: str
) -> None:
    large, auto = (queue_fit(database, dataset_id, devices=devices) for devices in (4, "auto"))
    assert claimed(database, n_devices=3).fit_id == auto
    assert claim(database, n_devices=3) is None
    assert claimed(database, n_devices=4).fit_id == large


def test_a_held_fit_is_nobody_elses(database: Database, dataset_id: str) -> None:
    queue_fit(database, dataset_id)
    claimed(database)
    assert claim(database, worker_id="wrk_other") is None


def test_a_claim_is_written_down(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database, worker_id="wrk_me")
    row = fit_row(database, fit_id)
    assert (row.status, row.worker_id, row.token, row.attempt) == ("running", "wrk_me", held.token, 1)
    assert row.started_at is not None
    assert row.lease_expires_at is not None
    assert (row.lease_expires_at - row.started_at).total_seconds() == pytest.approx(30.0, abs=0.1)


def test_success_writes_mixture_and_result_together(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    assert queue.succeed(database, claimed(database), RESULT, PARAMETERS, PROGRESS)
    row = fit_row(database, fit_id)
    assert (row.status, row.error, row.token, row.lease_expires_at) == ("succeeded", None, None, None)
    assert row.finished_at is not None
    assert row.progress == PROGRESS
    assert row.result is not None
    assert (row.result["outcome"], row.result["bic"]) == ("converged", "Infinity")
    with database.read() as session:
        mixture = mixtures.get(session, row.result["mixture_id"])
        assert (mixture.fit_id, mixture.columns) == (fit_id, ["a", "b"])
        for name in ("weights", "means", "covariances"):
            assert getattr(mixture, name).tobytes() == PARAMETERS[name].tobytes()


def test_a_success_that_cannot_be_written_leaves_the_fit_running(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    with pytest.raises(KeyError):
        queue.succeed(database, held, RESULT, {"covariance_type": "full"}, None)
    assert _n_mixtures(database) == 0
    assert fit_row(database, fit_id).status == "running"
    assert queue.succeed(database, held, RESULT, PARAMETERS, None)
    assert _n_mixtures(database) == 1


FENCED: dict[str, Callable[[Database, Claim], bool]] = {
    "heartbeat": lambda database, held: not queue.heartbeat(database, held, 30.0, PROGRESS).lost,
    "standing": lambda database, held: not queue.standing(database, held).lost,
    "succeed": lambda database, held: queue.succeed(database, held, RESULT, PARAMETERS, PROGRESS),
    "fail": lambda database, held: queue.fail(database, held, "INTERNAL", "it broke", PROGRESS),
    "cancelled": lambda database, held: queue.cancelled(database, held, PROGRESS),
    "checkpoint": lambda database, held: checkpoints.begin(database, held, b"late", last=True) is not None,
    "more of a checkpoint": lambda database, held: checkpoints.go_on(
        database, held, held.n_checkpoints, 1, b"late", last=True
    ),
    "release": queue.release,
    "lose": lambda database, held: queue.lose(database, held, max_attempts=1),
}


@pytest.mark.parametrize("name", FENCED)
def test_a_worker_that_lost_its_fit_writes_nothing(database: Database, dataset_id: str, name: str) -> None:
    stale, held = _taken_over(database, dataset_id)
    before = events_of(database, held.fit_id)
    assert not FENCED[name](database, stale)
    row = fit_row(database, held.fit_id)
    assert (row.status, row.token, row.worker_id) == ("running", held.token, "wrk_other")
    assert (row.progress, row.result, row.error) == (None, None, None)
    assert checkpoints.read(database, held.fit_id) is None
    assert events_of(database, held.fit_id) == before
    assert _n_mixtures(database) == 0


@pytest.mark.parametrize("name", FENCED)
def test_an_ended_fit_stays_as_it_ended(database: Database, dataset_id: str, name: str) -> None:
    queue_fit(database, dataset_id)
    held = claimed(database)
    assert queue.succeed(database, held, RESULT, PARAMETERS, None)
    before = events_of(database, held.fit_id)
    assert not FENCED[name](database, held)
    assert fit_row(database, held.fit_id).status == "succeeded"
    assert events_of(database, held.fit_id) == before
    assert _n_mixtures(database) == 1


@pytest.mark.parametrize("name", FENCED)
def test_a_deleted_fit_stays_deleted(database: Database, dataset_id: str, name: str) -> None:
    queue_fit(database, dataset_id)
    held = claimed(database)
    assert queue.cancelled(database, held)
    with database.write() as session:
        fits.delete(session, held.fit_id)
    assert not FENCED[name](database, held)
    assert _n_mixtures(database) == 0


def test_a_heartbeat_extends_the_lease_and_carries_progress(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database, lease_seconds=0.0)
    assert queue.heartbeat(database, held, 30.0, PROGRESS) == Standing(lost=False)
    assert claim(database) is None
    assert fit_row(database, fit_id).progress == PROGRESS
    assert queue.heartbeat(database, held, 30.0) == Standing(lost=False)
    assert fit_row(database, fit_id).progress == PROGRESS
    assert [kind for _, kind, _ in events_of(database, fit_id)] == ["status", "status", "progress"]


def test_a_heartbeat_brings_the_wish_to_cancel(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    assert queue.standing(database, held) == Standing(lost=False, cancel_requested=False)
    with database.write() as session:
        fits.cancel(session, fit_id)
    assert queue.standing(database, held) == Standing(lost=False, cancel_requested=True)
    assert queue.heartbeat(database, held, 30.0) == Standing(lost=False, cancel_requested=True)


def test_a_failure_says_why(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    assert queue.fail(database, claimed(database), "FIT_COLLAPSED", "all of them", PROGRESS)
    row = fit_row(database, fit_id)
    error = {"code": "FIT_COLLAPSED", "message": "all of them"}
    assert (row.status, row.error, row.progress) == ("failed", error, PROGRESS)
    assert events_of(database, fit_id)[-1] == (3, "status", {"status": "failed", "error": error})


def test_events_are_numbered_without_gaps(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database, worker_id="wrk_a")
    queue.heartbeat(database, held, 30.0, PROGRESS)
    queue.heartbeat(database, held, 30.0)
    queue.release(database, held)
    held = claimed(database, worker_id="wrk_b")
    queue.heartbeat(database, held, 30.0, PROGRESS)
    queue.succeed(database, held, RESULT, PARAMETERS, PROGRESS)
    assert events_of(database, fit_id) == [
        (1, "status", {"status": "queued"}),
        (2, "status", {"status": "running", "attempt": 1, "worker_id": "wrk_a"}),
        (3, "progress", PROGRESS),
        (4, "status", {"status": "queued"}),
        (5, "status", {"status": "running", "attempt": 2, "worker_id": "wrk_b"}),
        (6, "progress", PROGRESS),
        (7, "status", {"status": "succeeded"}),
    ]
    with database.read() as session:
        assert session.scalar(select(FitRow.n_events)) == 7


def test_traces_are_told_in_events_and_kept_in_no_row(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database, worker_id="wrk_a")
    first, last = ({"traces": [{"restart": 0, "steps": [step]}]} for step in (1, 2))
    queue.heartbeat(database, held, 30.0, PROGRESS | first)
    assert fit_row(database, fit_id).progress == PROGRESS
    queue.fail(database, held, "INTERNAL", "it broke", PROGRESS | last)
    assert fit_row(database, fit_id).progress == PROGRESS
    assert [(number, kind) for number, kind, _ in events_of(database, fit_id)] == [
        (1, "status"), (2, "status"), (3, "progress"), (4, "progress"), (5, "status"),
    ]  # fmt: skip
    with database.read() as session:
        assert list(events.progress_of(session, fit_id)) == [PROGRESS | first, PROGRESS | last]


def _n_parts(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(CheckpointPartRow)) or 0


def test_the_next_worker_goes_on_from_the_last_whole_checkpoint(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    first = claimed(database)
    assert (first.n_checkpoints, checkpoints.read(database, fit_id)) == (0, None)
    assert checkpoints.begin(database, first, b"\x00early", last=True) == 1
    assert checkpoints.begin(database, first, b"\x00lat", last=False) == 2
    assert checkpoints.read(database, fit_id) == b"\x00early"
    assert checkpoints.go_on(database, first, 2, 1, b"", last=False)
    assert checkpoints.go_on(database, first, 2, 2, b"er", last=True)
    assert checkpoints.begin(database, first, b"torn", last=False) == 3
    assert queue.release(database, first)
    second = claimed(database, lease_seconds=0.0)
    assert (second.n_checkpoints, checkpoints.read(database, fit_id)) == (3, b"\x00later")
    third = claimed(database)
    assert checkpoints.begin(database, third, b"last", last=True) == 4
    assert _n_parts(database) == 1
    assert queue.succeed(database, third, RESULT, PARAMETERS)
    assert _n_parts(database) == 0


def test_checkpoints_go_with_their_fit_however_it_ends(database: Database, dataset_id: str) -> None:
    for ends in (queue.cancelled, lambda *held: queue.lose(*held, max_attempts=1)):
        queue_fit(database, dataset_id)
        held = claimed(database)
        assert checkpoints.begin(database, held, b"torn", last=False) == 1
        assert ends(database, held)
        assert _n_parts(database) == 0
