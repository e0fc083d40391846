"""Clients that wait for fits: however many they are, one thread looks for changes, and reads are shared."""

import asyncio
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool

from service.errors import Unavailable
from service.schemas.fit import FINAL_STATUSES
from service.storage import changes, fits
from service.storage.changes import Changes
from service.storage.database import Database
from service.storage.fits import FitState
from service.storage.owners import acting_owner

Value = TypeVar("Value")
_LOOK_SECONDS = 0.1
_REFRESH_SECONDS = 1.0


class FitWatcher:
    """Tells coroutines of one event loop when fits change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Condition()
        self._watched: Counter[str] = Counter()
        # As last read of each watched fit. What is committed after that read is read again, and wakes.
        self._known: dict[str, FitState] = {}
        self._waiting: defaultdict[str, set[_Waiting]] = defaultdict(set)
        self._reads: dict[Hashable, asyncio.Future[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.draining = asyncio.Event()
        self._closed = False

    def start(self) -> None:
        """Starts looking; call it in the loop that will wait."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._look, name="fit-watcher", daemon=True).start()

    def drain(self) -> None:
        """Sends all who wait away, because the process is about to end; call it in the loop."""
        self.draining.set()
        for waiting in list(self._waiting.values()):
            for one in waiting:
                one.answer(False)

    def close(self) -> None:
        """Stops looking; call it in the loop, which nothing is told after that."""
        with self._lock:
            self._closed = True
            self._lock.notify()

    @contextmanager
    def watching(self, fit_id: str) -> Iterator[None]:
        """Has the fit looked at for as long as the block lasts; enter it in the loop."""
        with self._lock:
            self._watched[fit_id] += 1
            self._lock.notify()
        try:
            yield
        finally:
            with self._lock:
                self._watched[fit_id] -= 1
                if not self._watched[fit_id]:
                    del self._watched[fit_id]
                    self._known.pop(fit_id, None)

    async def wait(
        self, fit_id: str, n_events: int, timeout_seconds: float, *, for_end: bool = False
    ) -> bool:
        """Returns True once a fit has more than `n_events` events or is gone, False after the timeout.

        It returns False early when the process is about to end.

        Args:
            fit_id: A fit that the caller is `watching`.
            n_events: How many the caller knows of.
            timeout_seconds: How long to wait.
            for_end: Wait until the fit has ended, whatever happens to it before.
        """
        if self.draining.is_set():
            return False
        one = _Waiting(n_events, for_end, asyncio.get_running_loop().create_future())
        self._waiting[fit_id].add(one)
        try:
            # What happened before we were on the list is seen here, what happens after by the thread.
            state = self._known.get(fit_id)
            if state is None:
                state = (await run_in_threadpool(self._states, [fit_id])).get(fit_id)
            if one.is_met_by(state):
                return True
            return await asyncio.wait_for(one.future, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting[fit_id].remove(one)
            if not self._waiting[fit_id]:
                del self._waiting[fit_id]

    async def shared(self, key: Hashable, read: Callable[[], Value]) -> Value:
        """Returns what a read returns; others of the same owner who ask for it meanwhile get it too."""
        key = (acting_owner(), key)
        under_way = self._reads.get(key)
        if under_way is None:
            under_way = self._reads[key] = asyncio.ensure_future(run_in_threadpool(read))
            under_way.add_done_callback(lambda _: self._reads.pop(key))
        answer: Value = await asyncio.shield(under_way)
        return answer

    def _states(self, fit_ids: list[str]) -> dict[str, FitState]:
        with self._database.read() as session:
            return fits.states(session, fit_ids)

    def _look(self) -> None:
        source: Changes | None = None
        unseen_seconds = 0.0
        while True:
            with self._lock:
                while not self._watched and not self._closed:
                    self._lock.wait()
                if self._closed:
                    break
            try:
                source = source or changes.listen(self._database)
                unseen_seconds += _LOOK_SECONDS
                # Now and then without being told, in case a message was lost with its connection.
                if source.wait(_LOOK_SECONDS) or unseen_seconds >= _REFRESH_SECONDS:
                    unseen_seconds = 0.0
                    self._publish()
            except Unavailable:
                threading.Event().wait(_REFRESH_SECONDS)
        if source is not None:
            source.close()

    def _publish(self) -> None:
        with self._lock:
            watched = list(self._watched)
        states = self._states(watched)
        assert self._loop is not None, "started in a loop"  # noqa: S101
        with self._lock:
            if not self._closed:  # or the loop may be closed, too
                self._loop.call_soon_threadsafe(self._wake, watched, states)

    def _wake(self, watched: list[str], states: dict[str, FitState]) -> None:
        for fit_id in watched:
            state = states.get(fit_id)
            if state is None:
                self._known.pop(fit_id, None)
            elif fit_id in self._watched:
                self._known[fit_id] = state
            for one in self._waiting.get(fit_id, ()):
                if one.is_met_by(state):
                    one.answer(True)


@dataclass(eq=False)
class _Waiting:
    """A client's wait."""

    n_events: int
    for_end: bool
    future: asyncio.Future[bool]

    def is_met_by(self, state: FitState | None) -> bool:
        """Whether this state is what it waits for; a fit that is gone always is."""
        if state is None:
            return True
        return state.status in FINAL_STATUSES if self.for_end else state.n_events > self.n_events

    def answer(self, value: bool) -> None:
        """Ends the wait, unless it has ended."""
        if not self.future.done():
            self.future.set_result(value)
