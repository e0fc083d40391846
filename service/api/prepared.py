"""Mixtures ready to answer, kept from one question to the next, and never past their deletion.

Any replica may delete a mixture that others keep. What is kept was seen in the database at a certain moment
and answers questions that come less than a lease after it; whoever deletes waits until every lease that could
be running has ended, and only then says that the mixture is gone. No replica has to hear of another, and most
questions read nothing.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from anyio import CapacityLimiter, to_thread

from service.api.specifications import mixture_of_row
from service.mixture import GaussianMixture
from service.storage import mixtures
from service.storage.database import Database
from service.storage.owners import acting_owner

# The same in every replica, or deletions would not wait long enough for the others.
LEASE_SECONDS = 0.2
_READERS = 2
_REFRESH_SECONDS = 0.75 * LEASE_SECONDS
# Clocks of different machines do not run at the very same rate.
_LONGEST_LEASE_SECONDS = 1.2 * LEASE_SECONDS


def now() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Prepared:
    """A mixture with its factors at hand.

    Attributes:
        mixture: It answers questions.
        columns: Names of its features, if they have any.
    """

    mixture: GaussianMixture
    columns: list[str] | None

    @property
    def n_bytes(self) -> int:
        """About what it takes: means, covariances and their factors."""
        n_components, n_features = self.mixture.means.shape
        return 8 * n_components * (n_features + 1) * (3 * n_features + 2)

    @cached_property
    def n_products(self) -> int:
        """How many products an answer about one point takes, K * D * D."""
        return self.mixture.n_components * self.mixture.n_features**2


@dataclass
class _Kept:
    prepared: Prepared
    seen_at: float  # a moment before the database was asked


# Sessions see the rows of one owner only, so what one of them has seen is that owner's.
_Key = tuple[str, str]


class PreparedMixtures:
    """The mixtures that one event loop keeps ready, those asked for longest ago dropped first.

    Args:
        database: Where they are stored.
        most_bytes: How much to keep.
    """

    def __init__(self, database: Database, most_bytes: int = 64 << 20) -> None:
        self._database = database
        self._most_bytes = most_bytes
        self._n_bytes = 0
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._reading: dict[_Key, asyncio.Task[_Kept]] = {}
        # Of its own: a crowd that waits for threads does not hold up questions, which need none.
        self._threads = CapacityLimiter(_READERS)

    async def get(self, mixture_id: str) -> Prepared:
        """Returns a mixture that is stored at some moment between the call and its answer.

        Raises:
            NotFound: There is none.
            Unavailable: The database does not answer.
        """
        asked_at = now()
        key = acting_owner(), mixture_id
        kept = self._kept.get(key)
        if kept is not None and asked_at < kept.seen_at + LEASE_SECONDS:
            self._kept.move_to_end(key)
            if asked_at >= kept.seen_at + _REFRESH_SECONDS:
                self._read(key)  # so that who comes when the lease has ended need not wait
            return kept.prepared
        while kept is None or asked_at >= kept.seen_at + LEASE_SECONDS:
            # One that was under way may have looked before a deletion that was over when we were asked.
            kept = await asyncio.shield(self._read(key))
        return kept.prepared

    async def outlive(self, mixture_id: str) -> None:
        """Returns when no replica answers for a mixture any more, whose deletion has been committed."""
        self._drop((acting_owner(), mixture_id))
        await asyncio.sleep(_LONGEST_LEASE_SECONDS)

    async def close(self) -> None:
        """Returns when nothing is being read any more, so that the database can be closed."""
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    def _read(self, key: _Key) -> "asyncio.Task[_Kept]":
        under_way = self._reading.get(key)
        if under_way is None or under_way.done():
            under_way = asyncio.create_task(self._refreshed(key))
            self._reading[key] = under_way
            under_way.add_done_callback(lambda task: self._end_of_reading(key, task))
        return under_way

    def _end_of_reading(self, key: _Key, task: "asyncio.Task[_Kept]") -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        if task.cancelled() or task.exception() is not None:  # asking for it says that it has been noticed
            self._drop(key)

    async def _refreshed(self, key: _Key) -> _Kept:
        seen_at, before = now(), self._kept.get(key)
        known = None if before is None else before.prepared
        prepared = await to_thread.run_sync(self._look, key, known, limiter=self._threads)
        self._drop(key)
        kept = _Kept(prepared, seen_at)
        if prepared.n_bytes <= self._most_bytes:
            self._kept[key] = kept
            self._n_bytes += prepared.n_bytes
            while self._n_bytes > self._most_bytes:
                self._drop(next(iter(self._kept)))
        return kept

    def _look(self, key: _Key, known: Prepared | None) -> Prepared:
        _, mixture_id = key
        with self._database.read() as session:
            if known is not None:
                mixtures.require(session, mixture_id)
                return known
            row = mixtures.get(session, mixture_id)
        return Prepared(mixture_of_row(row).ready(), row.columns)

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._n_bytes -= kept.prepared.n_bytes
