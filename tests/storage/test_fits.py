"""Fits as their clients see them."""

import pytest

from service.errors import Conflict, NotFound, ServiceError
from service.storage import events, fits, mixtures, queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.fits import FitState
from service.storage.tables import FitRow
from tests.storage.making import (
    NOWHERE,
    PARAMETERS,
    add_dataset,
    claimed,
    events_of,
    fit_row,
    queue_fit,
    stored_request,
)


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store)


def _cancel(database: Database, fit_id: str) -> FitRow:
    with database.write() as session:
        return fits.cancel(session, fit_id)


def _delete(database: Database, fit_id: str) -> str | None:
    with database.write() as session:
        return fits.delete(session, fit_id)


def test_a_new_fit_is_queued_with_its_request_whole(database: Database, dataset_id: str) -> None:
    fields = {"priority": 7, "metadata": {"who": "ü", "n": 1e300}, "timeout_seconds": 0.1, "device": "cpu"}
    row = fit_row(database, queue_fit(database, dataset_id, **fields))
    assert (row.status, row.attempt, row.n_workers_lost, row.priority) == ("queued", 0, 0, 7)
    assert (row.started_at, row.finished_at, row.progress, row.result, row.error) == (None,) * 5
    assert (row.fit_metadata, row.timeout_seconds, row.device) == (fields["metadata"], 0.1, "cpu")
    assert row.request == stored_request(dataset_id, **fields)
    assert events_of(database, row.id) == [(1, "status", {"status": "queued"})]


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(database: Database, dataset_id: str) -> None:
    first = queue_fit(database, dataset_id)
    queue_fit(database, dataset_id)

    def submit() -> str:
        request = stored_request(dataset_id)
        row = FitRow(dataset_id=dataset_id, request=request, device="auto", fit_metadata={})
        with database.write() as session:
            return fits.submit(session, row, max_queued_fits=2).id

    with pytest.raises(ServiceError) as refused:
        submit()
    assert (refused.value.status, refused.value.code) == (429, "QUEUE_FULL")
    assert int(refused.value.headers["Retry-After"]) > 0
    _cancel(database, first)
    third = submit()
    with pytest.raises(ServiceError):
        submit()
    claimed(database)  # what runs is not queued
    assert submit() > third


def test_a_queued_fit_is_cancelled_at_once(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    assert _cancel(database, fit_id).status == "cancelled"
    row = fit_row(database, fit_id)
    assert (row.status, row.error, row.attempt) == ("cancelled", None, 0)
    assert row.finished_at is not None
    assert events_of(database, fit_id)[-1] == (2, "status", {"status": "cancelled"})


def test_a_running_fit_is_asked_to_stop_once(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    assert _cancel(database, fit_id).status == "running"
    asked = fit_row(database, fit_id).cancel_requested_at
    assert asked is not None
    assert _cancel(database, fit_id).status == "running"
    assert fit_row(database, fit_id).cancel_requested_at == asked
    assert queue.cancelled(database, held)
    assert _cancel(database, fit_id).status == "cancelled"
    assert len(events_of(database, fit_id)) == 3


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_cancel_changes_nothing_on_an_ended_fit(database: Database, dataset_id: str, status: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    with database.write() as session:
        fits.end(session, fit_id, None, status)
    before = fit_row(database, fit_id)
    assert _cancel(database, fit_id).status == status
    after = fit_row(database, fit_id)
    assert (after.finished_at, after.n_events, after.cancel_requested_at) == (before.finished_at, 2, None)


def test_only_an_ended_fit_is_deleted_and_its_mixture_stays(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id, weights_sha256="e" * 64)
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            _delete(database, fit_id)
        assert refused.value.code == "FIT_NOT_ENDED"
        if fit_row(database, fit_id).status == "queued":
            held = claimed(database)
    queue.succeed(database, held, {}, PARAMETERS)
    result = fit_row(database, fit_id).result
    assert result is not None
    assert _delete(database, fit_id) == "e" * 64
    assert events_of(database, fit_id) == []
    with pytest.raises(NotFound):
        fit_row(database, fit_id)
    with database.read() as session:
        assert mixtures.get(session, result["mixture_id"]).fit_id == fit_id


@pytest.mark.parametrize("identifier", ["", "fit_\0", "1 OR 1=1", "fit_" + NOWHERE])
def test_what_is_not_there_is_not_found(database: Database, identifier: str) -> None:
    for act in (_cancel, _delete, fit_row):
        with pytest.raises(NotFound) as refused:
            act(database, identifier)
        assert refused.value.code == "FIT_NOT_FOUND"


def test_states_tell_what_changed(database: Database, dataset_id: str) -> None:
    one, other = queue_fit(database, dataset_id), queue_fit(database, dataset_id)
    claimed(database)
    with database.read() as session:
        assert fits.states(session, [one, other, "gone"]) == {
            one: FitState("running", 2),
            other: FitState("queued", 1),
        }
        assert fits.states(session, []) == {}


def test_events_are_read_on_from_a_number(database: Database, dataset_id: str) -> None:
    fit_id = queue_fit(database, dataset_id)
    held = claimed(database)
    for step in range(5):
        queue.heartbeat(database, held, 30.0, {"step": step})
    with database.read() as session:
        assert [row.number for row in events.after(session, fit_id, 0, 3)] == [1, 2, 3]
        assert [row.data for row in events.after(session, fit_id, 5, 100)] == [{"step": 3}, {"step": 4}]
        assert events.after(session, fit_id, 7, 100) == []
        created = [row.created_at for row in events.after(session, fit_id, 0, 100)]
    assert created == sorted(created)


def _all_pages(database: Database, page_size: int, **filters: str) -> list[list[str]]:
    pages, before, more = [], None, True
    while more:
        with database.read() as session:
            rows, more = fits.page(session, page_size, before, **filters)
        pages.append([row.id for row in rows])
        before = rows[-1].id if rows else None
    return pages


def test_pages_are_newest_first_and_cut_to_size(database: Database, dataset_id: str) -> None:
    newest_first = [queue_fit(database, dataset_id) for _ in range(5)][::-1]
    assert _all_pages(database, 2) == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert _all_pages(database, 5) == [newest_first]
    assert _all_pages(database, 100) == [newest_first]
    assert _all_pages(database, 2, status="failed") == [[]]


def test_pages_stay_as_they_were_while_rows_come_and_go(database: Database, dataset_id: str) -> None:
    queued = [queue_fit(database, dataset_id) for _ in range(4)][::-1]
    with database.read() as session:
        first, _ = fits.page(session, 2, None)
    queue_fit(database, dataset_id)
    _cancel(database, queued[1])
    _delete(database, queued[1])  # the one the token names
    with database.read() as session:
        second, more = fits.page(session, 2, first[-1].id)
    assert [row.id for row in second] == queued[2:]
    assert not more


def test_pages_are_filtered(database: Database, store: DatasetStore, dataset_id: str) -> None:
    other = add_dataset(database, store)
    mine = [queue_fit(database, dataset_id) for _ in range(3)][::-1]
    theirs = queue_fit(database, other)
    _cancel(database, mine[1])
    assert _all_pages(database, 1, dataset_id=dataset_id) == [[one] for one in mine]
    assert _all_pages(database, 9, status="queued") == [[theirs, mine[0], mine[2]]]
    assert _all_pages(database, 9, status="cancelled", dataset_id=dataset_id) == [[mine[1]]]
    assert _all_pages(database, 9, status="cancelled", dataset_id=other) == [[]]
