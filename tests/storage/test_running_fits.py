"""Fits of one owner that may run at a time: those beyond stay queued, whoever claims, and hold nobody up."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from service.storage import own_limits, queue
from service.storage.database import Database
from service.storage.dataset_store import DatasetStore
from service.storage.owners import acting_for
from tests.storage.making import add_dataset, claim, claimed, fit_row, queue_fit


@pytest.fixture
def dataset_id(database: Database, store: DatasetStore) -> str:
    return add_dataset(database, store)


def of(owner: str, database: Database, dataset_id: str, **fields: object) -> str:
    """A new fit of an owner."""
    with acting_for(owner):
        return queue_fit(database, dataset_id, **fields)  # type: ignore[arg-type]


def give(database: Database, owner: str, value: float) -> None:
    with database.write() as session:
        own_limits.give(session, owner, "running_fits", value)


def test_fits_beyond_the_limit_wait_and_let_others_pass(database: Database, dataset_id: str) -> None:
    first, second, third = (of("a", database, dataset_id, priority=5) for _ in range(3))
    other = of("b", database, dataset_id)
    held = [claimed(database, max_running_fits=2) for _ in range(3)]
    assert [one.fit_id for one in held] == [first, second, other]
    assert claim(database, max_running_fits=2) is None
    assert fit_row(database, third).status == "queued"
    assert queue.fail(database, held[0], "INTERNAL", "A test.")
    assert claimed(database, max_running_fits=2).fit_id == third


def test_a_given_back_fit_makes_room(database: Database, dataset_id: str) -> None:
    first, second = (of("a", database, dataset_id) for _ in range(2))
    held = claimed(database, max_running_fits=1)
    assert queue.release(database, held)
    assert claimed(database, max_running_fits=1).fit_id == first
    assert fit_row(database, second).status == "queued"


def test_a_dead_workers_fit_is_taken_over_at_the_limit_and_beyond(
    database: Database, dataset_id: str
) -> None:
    fits = [of("a", database, dataset_id) for _ in range(3)]
    claimed(database)
    claimed(database, lease_seconds=-1.0)
    give(database, "a", 1)  # since then it may have fewer
    again = claimed(database)
    assert (again.fit_id, again.attempt) == (fits[1], 2)
    assert claim(database) is None


def test_an_owner_may_have_a_limit_of_its_own(database: Database, dataset_id: str) -> None:
    for owner in ("few", "many", "any", "usual"):
        for _ in range(4):
            of(owner, database, dataset_id)
    give(database, "few", 1)
    give(database, "many", 3)
    give(database, "any", own_limits.UNLIMITED)
    running: list[str] = []
    while (held := claim(database, max_running_fits=2)) is not None:
        running.append(held.owner)
    assert {owner: running.count(owner) for owner in running} == {"few": 1, "many": 3, "any": 4, "usual": 2}
    # Where the settings limit nobody, those with limits of their own have them still.
    while (held := claim(database)) is not None:
        running.append(held.owner)
    assert {owner: running.count(owner) for owner in running} == {"few": 1, "many": 3, "any": 4, "usual": 4}
    with database.write() as session:
        assert own_limits.take_back(session, "few", "running_fits")
        assert not own_limits.take_back(session, "few", "running_fits")
    assert claimed(database).owner == "few"


@pytest.mark.parametrize("own", [False, True])
def test_workers_that_claim_at_once_do_not_exceed_it(
    database: Database, database_url: str, dataset_id: str, own: bool
) -> None:
    for owner in ("a", "b"):
        for _ in range(12):
            of(owner, database, dataset_id)
    limited = {} if own else {"max_running_fits": 3}
    if own:
        give(database, "a", 3)
        give(database, "b", 3)

    def take(index: int) -> list[str]:
        with closing(Database(database_url)) as mine:
            held = (claim(mine, worker_id=f"wrk_{index}", **limited) for _ in range(6))
            return [one.owner for one in held if one is not None]

    with ThreadPoolExecutor(4) as threads:
        taken = [owner for owners in threads.map(take, range(4)) for owner in owners]
    assert sorted(taken) == ["a"] * 3 + ["b"] * 3
