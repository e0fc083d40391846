"""How many requests an owner may make, on all replicas together.

The bucket is in the database; a replica takes some requests out of it at a time and serves them without
asking again. What it has taken and not served in a second is lost, so that the limit is never exceeded,
whatever the replicas do; and while the bucket is empty, requests are refused without asking either.
"""

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property, lru_cache

from starlette.concurrency import run_in_threadpool

from service.errors import LimitReached
from service.storage import allowances
from service.storage.allowances import Grant
from service.storage.database import Database

_KEPT_SECONDS = 1.0
_TAKEN_SECONDS = 0.1
_MOST_OWNERS = 10_000
_DEFAULT_BURST_SECONDS = 10.0


@dataclass(frozen=True)
class Rate:
    """How fast a bucket fills, in requests a second, and how many it holds."""

    per_second: float
    burst: int

    @cached_property
    def n_taken(self) -> int:
        """How many requests a replica takes out at a time."""
        return max(1, min(self.burst // 4, math.ceil(self.per_second * _TAKEN_SECONDS)))

    @cached_property
    def policy(self) -> str:
        """What the header RateLimit-Policy says."""
        return f'"requests";q={self.burst};w={math.ceil(self.burst / self.per_second)}'


@dataclass
class _Purse:
    """What this replica has of an owner's bucket."""

    n_held: int = 0
    held_until: float = 0.0
    refused_until: float = 0.0
    n_left: float = 0.0
    taking: "asyncio.Task[None] | None" = None


class RequestLimit:
    """The limits, as one event loop keeps them.

    Args:
        database: Where the buckets are.
        per_second: How fast they fill, of owners that have no rate of their own; None for no limit.
        burst: How many requests they hold; None for what comes in ten seconds.
    """

    def __init__(self, database: Database, per_second: float | None, burst: int | None) -> None:
        self._database = database
        self._per_second = per_second
        self._burst = burst
        self._purses: OrderedDict[str, _Purse] = OrderedDict()

    def rate(self, own_per_second: float | None = None, own_burst: float | None = None) -> Rate | None:
        """Returns how many requests an owner may make, with limits of its own or without; None for any."""
        per_second = self._per_second if own_per_second is None else own_per_second
        burst = self._burst if own_burst is None else own_burst
        return None if per_second is None else _rate(per_second, burst)

    async def take(self, owner: str, rate: Rate) -> dict[str, str]:
        """Counts one request of an owner; returns the headers that tell how many are left.

        Raises:
            LimitReached: There are none left.
            Unavailable: The database does not answer.
        """
        purse = self._purse(owner)
        while True:
            now = time.monotonic()
            if purse.n_held > 0 and now < purse.held_until:
                purse.n_held -= 1
                return _headers(purse, rate)
            if now < purse.refused_until:
                raise _refusal(owner, rate, purse.refused_until - now)
            if purse.taking is None:
                purse.taking = asyncio.create_task(self._take_some(owner, purse, rate))
            await asyncio.shield(purse.taking)

    async def _take_some(self, owner: str, purse: _Purse, rate: Rate) -> None:
        try:
            grant: Grant = await run_in_threadpool(
                allowances.take, self._database, owner, rate.n_taken, rate.per_second, rate.burst
            )
            now = time.monotonic()
            purse.n_held, purse.held_until, purse.n_left = grant.n_granted, now + _KEPT_SECONDS, grant.n_left
            if grant.n_granted == 0:
                purse.refused_until = now + (1.0 - grant.n_left) / rate.per_second
        finally:
            purse.taking = None

    def _purse(self, owner: str) -> _Purse:
        purse = self._purses.get(owner)
        if purse is None:
            purse = self._purses[owner] = _Purse()
            if len(self._purses) > _MOST_OWNERS:
                self._purses.popitem(last=False)
        else:
            self._purses.move_to_end(owner)
        return purse


@lru_cache(maxsize=1024)
def _rate(per_second: float, burst: float | None) -> Rate | None:
    if math.isinf(per_second):
        return None
    if burst is None or math.isinf(burst):
        burst = max(1, math.ceil(per_second * _DEFAULT_BURST_SECONDS))
    return Rate(per_second, int(burst))


def _headers(purse: _Purse, rate: Rate) -> dict[str, str]:
    n_left = purse.n_held + math.floor(purse.n_left)
    seconds = math.ceil((rate.burst - n_left) / rate.per_second)
    return {"RateLimit-Policy": rate.policy, "RateLimit": f'"requests";r={n_left};t={seconds}'}


def _refusal(owner: str, rate: Rate, seconds: float) -> LimitReached:
    refusal = LimitReached(
        "REQUESTS_LIMIT",
        f"{owner} may make {rate.per_second:g} requests a second, {rate.burst} at once; wait.",
        "requests",
        rate.burst,
        max(1, math.ceil(seconds)),
    )
    refusal.headers["RateLimit-Policy"] = rate.policy
    return refusal
