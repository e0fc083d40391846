"""The queue when workers die: takeovers, counts, and the end of what nobody should try again."""

import time
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from service.storage import fits, queue
from service.storage.claims import Claimant, claim_after
from service.storage.columns import now_plus
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.owners import acting_for
from service.storage.tables import FitRow
from tests.storage.making import add_dataset, claim, claimed, events_of, fit_row, queue_fit


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store)


def _cancel(database: Database, fit_id: str) -> None:
    with database.write() as session:
        fits.cancel(session, fit_id)


def test_a_silent_workers_fit_is_taken_over_after_its_lease_not_before(
    database: Database, dataset_id: str
) -> None:
    fit_id = queue_fit(database, dataset_id)
    begun = time.monotonic()
    first = claimed(database, lease_seconds=0.4)
    second = None
    while second is None:
        second = claim(database, worker_id="wrk_other")
        assert time.monotonic() - begun < 10
    assert time.monotonic() - begun > 0.35
    assert second.fit_id == fit_id
    assert second.token != first.token
    assert (first.attempt, second.attempt) == (1, 2)
    assert fit_row(database, fit_id).n_workers_lost == 1


def test_a_takeover_keeps_the_first_start(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    claimed(database, lease_seconds=0.0)
    started = fit_row(database, fit_id).started_at
    claimed(database)
    assert fit_row(database, fit_id).started_at == started


def test_an_abandoned_fit_keeps_its_place(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    claimed(database, lease_seconds=0.0)
    queue_fit(database, dataset_id)
    assert claimed(database).fit_id == fit_id


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
def test_a_fit_that_outlives_no_worker_fails(database: Database, dataset_id: str, max_attempts: int) -> None:
    fit_id = queue_fit(database, dataset_id)
    other_id = queue_fit(database, dataset_id)
    for attempt in range(1, max_attempts + 1):
        held = claimed(database, lease_seconds=0.0, max_attempts=max_attempts)
        assert (held.fit_id, held.attempt) == (fit_id, attempt)
    # The queue goes on.
    assert claimed(database, max_attempts=max_attempts).fit_id == other_id
    row = fit_row(database, fit_id)
    assert (row.status, row.attempt, row.n_workers_lost) == ("failed", max_attempts, max_attempts)
    assert row.error is not None
    assert row.error["code"] == "WORKER_LOST"
    assert str(max_attempts) in row.error["message"]
    assert row.token is None
    assert row.finished_at is not None


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
def test_a_fit_that_kills_its_processes_fails(database: Database, dataset_id: str, max_attempts: int) -> None:
    fit_id = queue_fit(database, dataset_id)
    for attempt in range(1, max_attempts + 1):
        assert fit_row(database, fit_id).status == "queued"
        assert queue.lose(database, claimed(database), max_attempts)
        assert fit_row(database, fit_id).n_workers_lost == attempt
    row = fit_row(database, fit_id)
    assert row.status == "failed"
    assert row.error is not None
    assert row.error["code"] == "WORKER_LOST"
    assert claim(database) is None


def test_deaths_and_silences_count_together(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    queue.lose(database, claimed(database), max_attempts=3)
    claimed(database, lease_seconds=0.0)
    queue.lose(database, claimed(database), max_attempts=3)
    row = fit_row(database, fit_id)
    assert (row.status, row.attempt, row.n_workers_lost) == ("failed", 3, 3)


def test_a_release_counts_no_lost_worker(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    for attempt in range(1, 6):
        held = claimed(database, max_attempts=1)
        assert held.attempt == attempt
        assert queue.release(database, held)
    row = fit_row(database, fit_id)
    assert (row.status, row.attempt, row.n_workers_lost) == ("queued", 5, 0)
    assert (row.token, row.lease_expires_at, row.worker_id) == (None, None, None)


def test_an_abandoned_fit_that_was_to_be_cancelled_is(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    claimed(database, lease_seconds=0.0)
    _cancel(database, fit_id)
    assert claim(database) is None
    row = fit_row(database, fit_id)
    assert (row.status, row.error) == ("cancelled", None)


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("how", ["lose", "release"])
def test_a_given_back_fit_that_was_to_be_cancelled_is(
    database: Database, dataset_id: str, how: str, max_attempts: int
) -> None:
    """Back in the queue it would be begun anew, and stop only when its next worker heard of the wish."""
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    _cancel(database, fit_id)
    if how == "lose":
        assert queue.lose(database, held, max_attempts)
    else:
        assert queue.release(database, held)
    row = fit_row(database, fit_id)
    assert (row.status, row.error) == ("cancelled", None)
    assert events_of(database, fit_id)[-1] == (3, "status", {"status": "cancelled"})
    assert claim(database) is None


def test_dead_workers_fits_of_other_devices_are_settled_too(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id, device="cuda")
    claimed(database, devices=("cuda",), lease_seconds=0.0)
    _cancel(database, fit_id)
    assert claim(database, devices=("cpu",)) is None
    assert fit_row(database, fit_id).status == "cancelled"


def test_fits_of_dead_workers_are_left_to_a_claim_that_holds_nothing(
    database: Database, dataset_id: str
) -> None:
    """One that has just ended a fit holds what its owner has used, which comes first in nobody's order."""
    left, own, following = (queue_fit(database, dataset_id) for _ in range(3))
    assert claimed(database, lease_seconds=0.0).fit_id == left
    _cancel(database, left)
    claimant = Claimant("wrk_test", ("auto",), lease_seconds=30.0, max_attempts=3)
    with database.write() as session:
        assert claim_after(database, session, claimant) is None
    assert [fit_row(database, one).status for one in (left, own, following)] == [
        "running",
        "queued",
        "queued",
    ]
    assert claimed(database).fit_id == own
    assert fit_row(database, left).status == "cancelled"
    with database.write() as session:
        assert claim_after(database, session, claimant) is not None
    assert fit_row(database, following).status == "running"


def test_fits_of_dead_workers_end_owner_by_owner(
    database: Database, store: DatasetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two claims that end some each would otherwise wait for one another's counts of device use."""
    for owner in ("zoe", "ann", "zoe", "bob", "ann"):
        with acting_for(owner):
            queue_fit(database, add_dataset(database, store))
            claimed(database)
    with database.write() as session:
        session.execute(update(FitRow).values(lease_expires_at=now_plus(-1.0)))
    ended = []

    def note(session: Session, fit_id: str, *_: Any, **__: Any) -> bool:
        ended.append(session.get_one(FitRow, fit_id).owner)
        return True

    monkeypatch.setattr(fits, "end", note)
    claim(database, max_attempts=1)
    assert ended == ["ann", "ann", "bob", "zoe", "zoe"]
