"""Owners: within `acting_for`, a session sees and changes one owner's rows, whatever it asks for."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import aliased

from service.errors import NotFound
from service.storage import datasets, events, fits, idempotency, mixtures, queue, upkeep, workers
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.idempotency import StoredAnswer
from service.storage.owners import LOCAL, acting_for, everyone
from service.storage.tables import DatasetRow, FitEventRow, FitRow, IdempotencyKeyRow, MixtureRow, Table
from tests.storage.making import MANY, PARAMETERS, add_dataset, claimed, queue_fit

ANSWER = StoredAnswer(201, {}, b"{}")
POINTS = ((1.0, 2.0), (3.0, 4.0))


@pytest.fixture
def things(database: Database, store: DatasetStore) -> dict[str, tuple[str, str, str]]:
    """A dataset, a fit that has ended and its mixture, of each of two owners; the points are the same."""
    made = {}
    for owner in ("a", "b"):
        with acting_for(owner):
            dataset_id = add_dataset(database, store, POINTS)
            fit_id = queue_fit(database, dataset_id)
            idempotency.begin(database, "key", owner * 64, owner, 86_400.0)
        # A worker acts for nobody.
        held = claimed(database)
        assert held.owner == owner
        assert queue.succeed(database, held, {}, PARAMETERS)
        with database.read() as session:
            mixture_id = session.scalars(select(MixtureRow.id).where(MixtureRow.fit_id == fit_id)).one()
        made[owner] = (dataset_id, fit_id, mixture_id)
    return made


def test_every_table_with_an_owner_is_filtered(things: object, database: Database) -> None:
    # The service's own.
    ownerless = {
        "workers",
        "api_keys",
        "request_allowances",
        "owner_limits",
        "device_use",
        "fit_checkpoint_parts",
    }
    for mapper in Table.registry.mappers:
        query = select(func.count()).select_from(mapper.class_)
        with acting_for("nobody"), database.read() as session:
            n_seen = session.scalar(query)
        with database.read() as session:
            assert (n_seen == 0) == (session.scalar(query) != 0) or mapper.local_table.name in ownerless


@pytest.mark.parametrize(("owner", "other"), [("a", "b"), ("b", "a")])
def test_an_owner_has_its_own(
    things: dict[str, tuple[str, str, str]], database: Database, owner: str, other: str
) -> None:
    with acting_for(owner), database.read() as session:
        for room, mine, others in zip((datasets, fits, mixtures), things[owner], things[other], strict=True):
            assert room.get(session, mine).id == mine
            with pytest.raises(NotFound) as refused:
                room.get(session, others)
            assert refused.value.status == 404
            assert [row.id for row in room.page(session, 50, None)[0]] == [mine]
        assert events.after(session, things[owner][1], 0, MANY)
        assert events.after(session, things[other][1], 0, MANY) == []
        assert fits.states(session, [things[other][1]]) == {}
        other_fit = aliased(FitRow)
        assert session.scalars(select(other_fit.owner)).all() == [owner]
        assert session.scalars(select(DatasetRow.owner).where(DatasetRow.sha256.is_not(None))).all() == [
            owner
        ]


def test_what_is_anothers_cannot_be_changed(
    things: dict[str, tuple[str, str, str]], database: Database, store: DatasetStore
) -> None:
    dataset_id, fit_id, mixture_id = things["a"]
    with acting_for("b"):
        with pytest.raises(NotFound):
            datasets.delete(database, store, dataset_id)
        with database.write() as session:
            for act in (fits.cancel, fits.delete):
                with pytest.raises(NotFound):
                    act(session, fit_id)
            with pytest.raises(NotFound):
                mixtures.delete(session, mixture_id)
            session.execute(update(DatasetRow).values(name="taken"))
            session.execute(delete(FitEventRow).where(FitEventRow.fit_id == fit_id))
            session.execute(delete(MixtureRow).where(MixtureRow.id == mixture_id))
    with acting_for("a"), database.read() as session:
        assert datasets.get(session, dataset_id).name is None
        assert mixtures.get(session, mixture_id).fit_id == fit_id
        assert events.after(session, fit_id, 0, MANY)


def test_equal_points_are_stored_once_and_go_with_their_last_owner(
    things: dict[str, tuple[str, str, str]], database: Database, store: DatasetStore
) -> None:
    with database.read() as session:
        (sha256,) = set(session.scalars(select(DatasetRow.sha256)))
    with acting_for("a"):
        datasets.delete(database, store, things["a"][0])
    assert store.open(sha256).columns().tolist() == [[1.0, 3.0], [2.0, 4.0]]
    with acting_for("b"):
        assert upkeep.sweep(database, store, -1.0) == 0
        datasets.delete(database, store, things["b"][0])
    assert not store.path(sha256).exists()


def test_each_owner_has_its_own_idempotency_keys(things: object, database: Database) -> None:
    for owner in ("a", "b"):
        with acting_for(owner), database.write() as session:
            idempotency.complete(session, "key", owner, ANSWER)
        with acting_for(owner):
            assert idempotency.begin(database, "key", owner * 64, "again", 86_400.0) == ANSWER
    with database.read() as session:
        assert set(session.scalars(select(IdempotencyKeyRow.owner))) == {"a", "b"}


def test_workers_show_each_caller_its_own_fits(database: Database, store: DatasetStore) -> None:
    device = workers.Device("cpu", "a processor", 2**30)
    worker_id = workers.register(database, device)
    with acting_for("a"):
        fit_id = queue_fit(database, add_dataset(database, store))
    claimed(database, worker_id=worker_id)
    for owner, seen in (("a", [fit_id]), ("b", [])):
        with acting_for(owner), database.read() as session:
            assert [running for _, running in workers.alive(session, 30.0)] == [seen]


def test_the_queue_is_full_for_all_when_it_is(database: Database, store: DatasetStore) -> None:
    with acting_for("a"):
        queue_fit(database, add_dataset(database, store))
    with acting_for("b"):
        dataset_id = add_dataset(database, store)
        with pytest.raises(Exception, match="1 fits are queued"), database.write() as session:
            fits.submit(session, FitRow(dataset_id=dataset_id), max_queued_fits=1)


def test_threads_and_blocks_act_for_their_own(database: Database, store: DatasetStore) -> None:
    def added(acting: AbstractContextManager[None]) -> str:
        with acting:
            dataset_id = add_dataset(database, store)
        with everyone(), database.read() as session:
            return datasets.get(session, dataset_id).owner

    with ThreadPoolExecutor(4) as threads:
        owners = [f"owner {number}" for number in range(20)]
        assert list(threads.map(added, map(acting_for, owners))) == owners
    with acting_for("outer"):
        assert added(everyone()) == LOCAL
