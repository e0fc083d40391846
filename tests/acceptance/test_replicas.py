"""Several replicas of the API on one PostgreSQL: a stream of events goes on at any of them, without delay."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, select

from service.storage.database import Database
from service.storage.tables import FitEventRow
from tests.acceptance.test_faults import EVENT_STREAM, working
from tests.acceptance.test_service import begun
from tests.conftest import PostgresqlServer
from tests.serving import serving, until

# As promised for a fit that runs on another machine.
LATEST_SECONDS = 1.0


class Stream:
    """The events of one fit as a client gets them, at one replica after the other."""

    def __init__(self, path: str) -> None:
        self.numbers: list[int] = []
        self._path = path
        self._opened_at: list[float] = []
        self._got_at: list[float] = []

    def go_on(self, http: httpx.Client, n: int | None = None) -> None:
        """Reads on behind the last event, `n` more or to the end, and breaks off."""
        last = {"Last-Event-ID": str(self.numbers[-1])} if self.numbers else {}
        n_before = len(self.numbers)
        with http.stream("GET", f"{self._path}/events", headers=EVENT_STREAM | last) as response:
            assert response.status_code == 200
            opened_at = time.monotonic()
            for line in response.iter_lines():
                if line.startswith("id: "):
                    self.numbers.append(int(line.removeprefix("id: ")))
                    self._opened_at.append(opened_at)
                    self._got_at.append(time.monotonic())
                    if len(self.numbers) - n_before == n:
                        return
        assert n is None, f"it ended after {self.numbers}"

    def delays(self, seen_at: dict[int, float]) -> list[float]:
        """Returns how many seconds after it could be read in the database each event came."""
        return [
            got_at - max(opened_at, seen_at[number])
            for number, opened_at, got_at in zip(self.numbers, self._opened_at, self._got_at, strict=True)
        ]


@contextmanager
def watched(url: str) -> Iterator[dict[int, float]]:
    """Yields when each event of the only fit was first seen in the database, filled in as they come."""
    seen_at: dict[int, float] = {}
    done = threading.Event()
    database = Database(url)

    def look() -> None:
        while not done.wait(0.01):
            with database.read() as session:
                n_events = session.scalar(select(func.max(FitEventRow.number))) or 0
            for number in range(len(seen_at) + 1, n_events + 1):
                seen_at[number] = time.monotonic()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen_at
    finally:
        done.set()
        thread.join()
        database.close()


def test_a_stream_goes_on_at_any_replica_and_is_never_late(
    tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    url = postgresql_server.create(migrated=True)
    settings: dict[str, Any] = {"database_url": url, "data_dir": tmp_path}
    with ExitStack() as stack:
        stack.enter_context(working(**settings))
        first_life = stack.enter_context(ExitStack())
        one, other = (on.enter_context(_replica(settings)) for on in (first_life, stack))
        path = begun(one)
        seen_at = stack.enter_context(watched(url))
        stream = Stream(path)
        stream.go_on(one, 4)
        stream.go_on(other, 3)
        first_life.close()
        again = stack.enter_context(_replica(settings))
        stream.go_on(again, 3)
        again.post(f"{path}/cancel").raise_for_status()
        stream.go_on(other)
        in_json = {"Accept": "application/json"}
        listed = again.get(f"{path}/events?page_size=200", headers=in_json).json()["items"]
        assert listed[-1]["data"]["status"] == "cancelled"
        assert stream.numbers == [event["id"] for event in listed] == list(range(1, len(listed) + 1))
        until(lambda: len(seen_at) == len(listed))
        delays = stream.delays(seen_at)
        assert max(delays) < LATEST_SECONDS, delays


@contextmanager
def _replica(settings: dict[str, Any]) -> Iterator[httpx.Client]:
    """Yields a client of a server that does no fits."""
    with serving(workers=0, **settings) as server, server.client() as http:
        yield http
