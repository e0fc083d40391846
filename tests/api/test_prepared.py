"""Mixtures kept ready between questions, and replicas that delete them from under one another."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from service.api.prepared import LEASE_SECONDS, PreparedMixtures, now
from service.errors import NotFound
from service.storage import mixtures
from service.storage.database import Database, Session
from service.storage.owners import acting_for
from tests.serving import GOLD

T = TypeVar("T")


class Watched:
    """A database whose reads are counted, and held up once they have read while `held` is set."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.n_reads = 0
        self.reading = threading.Event()
        self.held: threading.Event | None = None

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._database.read() as session:
            self.n_reads += 1
            yield session
        held = self.held
        self.reading.set()
        if held is not None:
            assert held.wait(30)


def added(database: Database, **changes: Any) -> str:
    with database.write() as session:
        return mixtures.add(session, {**GOLD, **changes}).id


def deleted(database: Database, mixture_id: str) -> None:
    with database.write() as session:
        mixtures.delete(session, mixture_id)


def replica(database: Database | Watched, **options: Any) -> PreparedMixtures:
    return PreparedMixtures(database, **options)  # type: ignore[arg-type]


def run(scenario: Coroutine[Any, Any, T], *replicas: PreparedMixtures) -> T:
    """Returns what a scenario returns, once the replicas read nothing more."""

    async def whole() -> T:
        try:
            return await scenario
        finally:
            for one in replicas:
                await one.close()

    return asyncio.run(whole())


def test_no_replica_answers_for_a_mixture_whose_deletion_is_over(database: Database) -> None:
    mixture_id = added(database)
    ours, theirs = replica(database), replica(database)
    answered_at: list[float] = []

    async def ask() -> float:
        while True:
            asked_at = now()
            try:
                await theirs.get(mixture_id)
            except NotFound:
                return asked_at
            answered_at.append(asked_at)
            await asyncio.sleep(0.0005)

    async def scenario() -> float:
        await ours.get(mixture_id)
        asking = asyncio.create_task(ask())
        while len(answered_at) < 50:
            await asyncio.sleep(0)
        await asyncio.to_thread(deleted, database, mixture_id)
        await ours.outlive(mixture_id)
        over_at = now()
        for one in (ours, theirs):
            with pytest.raises(NotFound):
                await one.get(mixture_id)
        await asking
        return over_at

    assert max(answered_at, default=0.0) < run(scenario(), ours, theirs)


def test_a_read_that_looked_before_the_deletion_is_not_believed_after_it(database: Database) -> None:
    mixture_id, watched = added(database), Watched(database)
    theirs = replica(watched)

    async def scenario() -> None:
        watched.held = threading.Event()
        early = asyncio.create_task(theirs.get(mixture_id))
        await asyncio.to_thread(watched.reading.wait, 30)  # it has seen the mixture, and says so later
        await asyncio.to_thread(deleted, database, mixture_id)
        await replica(database).outlive(mixture_id)
        late = asyncio.create_task(theirs.get(mixture_id))
        await asyncio.sleep(0)
        held, watched.held = watched.held, None
        held.set()
        assert (await early).mixture.n_components == 3
        with pytest.raises(NotFound):
            await late

    run(scenario(), theirs)


def test_many_questions_read_little(database: Database) -> None:
    mixture_id, watched = added(database), Watched(database)
    theirs = replica(watched)

    async def scenario() -> tuple[int, float]:
        begun, n_answers = now(), 0
        while n_answers < 2000 or now() < begun + 2 * LEASE_SECONDS:
            await asyncio.gather(*(theirs.get(mixture_id) for _ in range(10)))
            n_answers += 10
            await asyncio.sleep(0)
        return n_answers, now() - begun

    n_answers, seconds = run(scenario(), theirs)
    # One after most of each lease, one at the start, one that may still be under way.
    assert watched.n_reads <= 2 + seconds / (LEASE_SECONDS / 2)
    assert watched.n_reads < n_answers / 20


def test_what_is_kept_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASE_SECONDS", "_REFRESH_SECONDS"):  # however slow the reads are
        monkeypatch.setattr(f"service.api.prepared.{name}", 600.0)
    first, second = added(database), added(database)
    watched = Watched(database)

    async def scenario(most_bytes: int) -> int:
        theirs = replica(watched, most_bytes=most_bytes)
        before = watched.n_reads
        for mixture_id in (first, second, first, second):
            await theirs.get(mixture_id)
        await theirs.close()
        return watched.n_reads - before

    n_bytes = asyncio.run(replica(watched).get(first)).n_bytes
    assert asyncio.run(scenario(n_bytes)) == 4
    assert asyncio.run(scenario(0)) == 4
    assert asyncio.run(scenario(2 * n_bytes)) == 2


def test_an_unknown_mixture_is_not_found_however_often(database: Database) -> None:
    theirs = replica(database)

    async def scenario() -> None:
        for mixture_id in ("mix_00000000000000000000000000", "nope", "\x00"):
            for _ in range(2):
                with pytest.raises(NotFound):
                    await theirs.get(mixture_id)

    run(scenario(), theirs)


def test_what_one_owner_keeps_ready_is_no_others(database: Database) -> None:
    with acting_for("ours"):
        mixture_id = added(database)
    theirs = replica(database)

    async def ask(owner: str) -> None:
        with acting_for(owner):
            await theirs.get(mixture_id)

    async def scenario() -> None:
        for _ in range(2):
            await ask("ours")
            with pytest.raises(NotFound):
                await ask("theirs")

    run(scenario(), theirs)
