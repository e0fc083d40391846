"""Writers that share a transaction: each has its own answer, its own error and its own rows."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError

from service.errors import NotFound, ServiceError, Unavailable
from service.storage import datasets
from service.storage.database import Database, Session
from service.storage.dataset_store import DatasetStore
from service.storage.owners import acting_for
from service.storage.tables import DatasetRow, WorkerRow
from tests.serving import until
from tests.storage.making import add_dataset

pytestmark = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


def worker(name: str) -> WorkerRow:
    return WorkerRow(
        hostname=name, process_id=1, device_type="cpu", device="cpu", device_name="", memory_bytes=1
    )


def adding(name: str) -> Callable[[Session], str]:
    def act(session: Session) -> str:
        session.add(worker(name))
        session.flush()
        return name

    return act


def failing(name: str, error: Exception) -> Callable[[Session], str]:
    def act(session: Session) -> str:
        adding(name)(session)
        raise error

    return act


def names(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(WorkerRow.hostname)))


def at_once(database: Database, *acts: Callable[[Session], Any]) -> list[Future[Any]]:
    """Has so many threads write while somebody else does, so that they all wait."""
    together = database._together
    with ThreadPoolExecutor(len(acts)) as threads:
        with together._turn:
            answers = [threads.submit(database.write_together, act) for act in acts]
            until(lambda: len(together._waiting) == len(acts))
        return answers


def commits_of(database: Database) -> list[object]:
    seen: list[object] = []
    event.listen(database.engine, "commit", seen.append)
    return seen


def test_all_who_wait_share_a_commit(database: Database) -> None:
    commits = commits_of(database)
    answers = at_once(database, *(adding(f"{i}") for i in range(12)))
    assert {answer.result() for answer in answers} == names(database) == {f"{i}" for i in range(12)}
    assert len(commits) == 1


def test_one_that_fails_loses_its_own_alone(database: Database) -> None:
    refused = ServiceError("QUEUE_FULL", 429, "no more")
    first, second, third = at_once(database, adding("a"), failing("b", refused), adding("c"))
    assert (first.result(), second.exception(), third.result()) == ("a", refused, "c")
    assert names(database) == {"a", "c"}


def test_nobody_is_told_of_what_was_not_committed(database: Database) -> None:
    def torn(_: object) -> None:
        raise OperationalError("COMMIT", None, Exception("disk I/O error"))

    event.listen(database.engine, "commit", torn)
    answers = at_once(database, adding("a"), adding("b"))
    event.remove(database.engine, "commit", torn)
    assert [type(answer.exception()) for answer in answers] == [Unavailable, Unavailable]
    assert names(database) == set()


def test_an_error_of_the_database_ends_them_all(database: Database) -> None:
    def broken(session: Session) -> None:
        session.execute(text("SELECT nothing FROM nowhere"))

    first, second = at_once(database, adding("a"), broken)
    assert isinstance(first.exception(), ServiceError)
    assert isinstance(second.exception(), ServiceError)
    assert names(database) == set()
    assert database.write_together(adding("c")) == "c"


def test_what_lies_outside_is_taken_back_once_the_transaction_has_ended(database: Database) -> None:
    done: list[set[str]] = []

    def undone(session: Session) -> None:
        database.when_undone(session, lambda: done.append(names(database)))
        failing("b", KeyError())(session)

    first, second = at_once(database, adding("a"), undone)
    assert first.result() == "a"
    assert isinstance(second.exception(), KeyError)
    assert done == [{"a"}]


def test_nobody_sees_the_rows_of_another_owner(database: Database, store: DatasetStore) -> None:
    with acting_for("mine"):
        dataset_id = add_dataset(database, store)
    seen = threading.Event()

    def mine(session: Session) -> str:
        seen.set()
        return datasets.get(session, dataset_id, for_fit=True).id

    def others(session: Session) -> str:
        assert seen.is_set(), "the row is known to a session by now"
        return datasets.get(session, dataset_id, for_fit=True).id

    def as_owner(owner: str, act: Callable[[Session], str]) -> str:
        with acting_for(owner):
            return database.write_together(act)

    together = database._together
    with ThreadPoolExecutor(2) as threads:
        with together._turn:
            first = threads.submit(as_owner, "mine", mine)
            until(lambda: len(together._waiting) == 1)
            second = threads.submit(as_owner, "another", others)
            until(lambda: len(together._waiting) == 2)
        assert first.result() == dataset_id
        assert isinstance(second.exception(), NotFound)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(DatasetRow)) == 1
