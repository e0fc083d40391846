"""Clients that wait for a fit: however many they are, one thread looks for changes."""

import asyncio
import threading
from collections import defaultdict

from starlette.concurrency import run_in_threadpool

from service.errors import Unavailable
from service.storage import changes, fits
from service.storage.changes import Changes
from service.storage.database import Database
from service.storage.fits import FitState

_LOOK_SECONDS = 0.1
_REFRESH_SECONDS = 1.0


class FitWatcher:
    """Tells coroutines of one event loop when fits change."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Condition()
        self._waiting: defaultdict[str, list[tuple[int, asyncio.Future[bool]]]] = defaultdict(list)
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
            for _, future in waiting:
                if not future.done():
                    future.set_result(False)

    def close(self) -> None:
        """Stops looking."""
        with self._lock:
            self._closed = True
            self._lock.notify()

    async def wait(self, fit_id: str, n_events: int, timeout_seconds: float) -> bool:
        """Returns True once the fit has more than `n_events` events or is gone, False after the timeout.

        It returns False early when the process is about to end.
        """
        if self.draining.is_set():
            return False
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (n_events, future)
        with self._lock:
            self._waiting[fit_id].append(entry)
            self._lock.notify()
        try:
            # What happened before we were on the list is seen here, what happens after by the thread.
            state = (await run_in_threadpool(self._states, [fit_id])).get(fit_id)
            if state is None or state.n_events > n_events:
                return True
            return await asyncio.wait_for(future, timeout_seconds)
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting[fit_id].remove(entry)
                if not self._waiting[fit_id]:
                    del self._waiting[fit_id]

    def _states(self, fit_ids: list[str]) -> dict[str, FitState]:
        with self._database.read() as session:
            return fits.states(session, fit_ids)

    def _look(self) -> None:
        source: Changes | None = None
        unseen_seconds = 0.0
        while True:
            with self._lock:
                while not self._waiting and not self._closed:
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
            watched = list(self._waiting)
        states = self._states(watched)
        assert self._loop is not None, "started in a loop"  # noqa: S101
        self._loop.call_soon_threadsafe(self._wake, watched, states)

    def _wake(self, watched: list[str], states: dict[str, FitState]) -> None:
        for fit_id in watched:
            state = states.get(fit_id)
            for n_events, future in self._waiting.get(fit_id, ()):
                if not future.done() and (state is None or state.n_events > n_events):
                    future.set_result(True)
