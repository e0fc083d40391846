"""Threads that read bodies while they come in, and wait for these only while nobody waits for a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from service.api.inflow import Incoming
from service.errors import ServiceError

Value = TypeVar("Value")

_PATIENCE_SECONDS = 2.0


class ReaderThreads:
    """So many bodies are read at a time; the others wait, unread.

    A client may send as slowly as the server allows, and its thread waits for it; but not while another waits
    for a thread. For each of those, the body that has kept its thread waiting the longest is given up.

    Args:
        n_threads: How many there are.
        patience_seconds: A body may always keep its thread waiting for so long.
    """

    def __init__(self, n_threads: int, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._limiter = CapacityLimiter(n_threads)
        self._patience_seconds = patience_seconds
        self._bodies: set[Incoming] = set()
        self._looking: asyncio.TimerHandle | None = None

    async def run(self, body: Incoming, work: Callable[[], Value]) -> Value:
        """Returns what work returns that reads a body, done by a thread.

        Raises:
            Exception: What the work raises; reading raises a `ServiceError` (408) if the body is given up.
        """
        self._bodies.add(body)
        self._look_later()
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._bodies.remove(body)

    def _look_later(self) -> None:
        if self._looking is None:
            pause = self._patience_seconds / 2
            self._looking = asyncio.get_running_loop().call_later(pause, self._look)

    def _look(self) -> None:
        self._looking = None
        n_waiting = self._limiter.statistics().tasks_waiting
        slow = [body for body in self._bodies if body.waiting_seconds > self._patience_seconds]
        slow.sort(key=lambda body: body.waiting_seconds, reverse=True)
        for body in slow[:n_waiting]:
            body.give_up(_too_slow())
        if self._bodies:
            self._look_later()


def _too_slow() -> ServiceError:
    detail = "The body came too slowly while others waited to send theirs. Send it again, faster, or later."
    return ServiceError("REQUEST_TIMEOUT", 408, detail)
