"""Who is let in: a request that would wait for long is turned away at once, so that the others are answered.

There are two things to wait for: the event loop, where each waits for all that came before; and a thread, for
what reads or writes the database. The HTTP server asks before it makes anything of a request, for turning one
away has to cost next to nothing: see `service.admitting`.
"""

import asyncio
import logging
import time
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import current_default_thread_limiter

from service.errors import Unavailable

logger = logging.getLogger(__name__)

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})
"""What is answered however much there is to do: who asks wants to know how the service is."""

_TOLD_SECONDS = 1.0
_IN_LOOP = "admission_in_loop"
# The share of a wait that may be in the event loop: whoever is turned away waits there too.
_LOOP_SHARE = 0.1
# What those at the front waited says little of how long a place takes: a stall of the whole machine, perhaps.
_FAR_BACK = 8
# So few are no crowd, however slow the machine is; and from those who are let in is learnt how long it takes.
_FEW = 32
_WEIGHT = 0.25


class WaitingLine:
    """How long one more would wait, from how long those before it did.

    Args:
        longest_seconds: Who would wait longer is turned away.

    Attributes:
        n_refused: So many were turned away.
    """

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._place_seconds = 0.0
        self.n_refused = 0

    def is_too_long(self, n_waiting: int) -> bool:
        """Whether one more behind so many would wait too long."""
        return n_waiting >= _FEW and n_waiting * self._place_seconds > self._longest_seconds

    def learn(self, place: int, waited_seconds: float) -> None:
        """Takes in how long somebody waited who was at this place, counted from 1."""
        seconds = waited_seconds / place
        if place >= _FAR_BACK:
            weight = _WEIGHT if self._place_seconds else 1.0
            self._place_seconds += weight * (seconds - self._place_seconds)


class Admission:
    """What one process lets in.

    Args:
        longest_seconds: Requests that would wait longer for their turn are turned away.
        n_threads: Read and write the database. Many would not do more, since one at a time runs Python; but
            the event loop would have its turn as seldom as each of them.
        threadless: How the paths of requests end that need no thread.
    """

    def __init__(self, longest_seconds: float, n_threads: int, threadless: tuple[str, ...]) -> None:
        self._in_loop = WaitingLine(_LOOP_SHARE * longest_seconds)
        self._for_threads = WaitingLine(longest_seconds)
        self._threadless = threadless
        self._n_in_loop = 0
        self._n_threads = n_threads
        self._threads: CapacityLimiter | None = None
        self._probe: asyncio.Task[None] | None = None
        self._n_told = 0
        self._telling: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to watch the threads; call it in the loop that serves."""
        self._threads = current_default_thread_limiter()
        self._threads.total_tokens = self._n_threads

    @property
    def n_refused(self) -> dict[str, int]:
        """How many were turned away, by what they would have waited for."""
        return {"event_loop": self._in_loop.n_refused, "threads": self._for_threads.n_refused}

    @property
    def is_crowded(self) -> bool:
        """Whether it is worth asking if one more would wait too long."""
        return self._n_in_loop >= _FEW or (self._threads is not None and self._threads.available_tokens <= 0)

    def turns_away(self, path: str) -> bool:
        """Whether a request for a path would wait too long; it is counted if so."""
        if not self.is_crowded or path in ALWAYS:
            return False
        line = self._too_long(path)
        if line is None:
            return False
        line.n_refused += 1
        if self._telling is None:  # a line in the log for each would cost more than the refusal
            self._telling = asyncio.get_running_loop().call_later(_TOLD_SECONDS, self._tell)
        return True

    def let_in(self, state: dict[str, Any]) -> None:
        """Has a request, with this state, wait for the event loop; it is expected to `begin`."""
        self._n_in_loop += 1
        state[_IN_LOOP] = (self._n_in_loop, time.perf_counter())

    def begin(self, state: dict[str, Any]) -> None:
        """Notes that a request, with this state, has waited for the event loop."""
        waited = state.pop(_IN_LOOP, None)
        if waited is not None:  # another server than ours lets all in
            place, since = waited
            self._n_in_loop -= 1
            self._in_loop.learn(place, time.perf_counter() - since)

    def _too_long(self, path: str) -> WaitingLine | None:
        """Returns what a request for a path would wait too long for."""
        if self._in_loop.is_too_long(self._n_in_loop):
            return self._in_loop
        threads = self._threads
        if threads is None or threads.available_tokens > 0 or path.endswith(self._threadless):
            return None
        n_waiting = threads.statistics().tasks_waiting
        if self._for_threads.is_too_long(n_waiting + self._n_in_loop):
            return self._for_threads
        if self._probe is None:
            self._probe = asyncio.create_task(self._wait_for_thread(threads, n_waiting + 1))
        return None

    async def _wait_for_thread(self, threads: CapacityLimiter, place: int) -> None:
        """Sees how long it takes to have a thread; nothing else says so."""
        begun = time.perf_counter()
        try:
            async with threads:
                self._for_threads.learn(place, time.perf_counter() - begun)
        finally:
            self._probe = None

    def _tell(self) -> None:
        self._telling = None
        n_refused = sum(self.n_refused.values())
        logger.warning(
            "%d requests were turned away in a second: more came than can be answered",
            n_refused - self._n_told,
        )
        self._n_told = n_refused


def overloaded() -> Unavailable:
    """Returns the refusal of a request that would wait too long."""
    return Unavailable(
        "OVERLOADED",
        "More requests come than can be answered; send this one again in a moment.",
        retry_after_seconds=1,
    )
