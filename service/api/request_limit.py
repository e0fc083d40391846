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

from starlette.concurrency import run_in_threadpool

from service.errors import LimitReached
from service.storage import allowances
from service.storage.allowances import Grant
from service.storage.database import Database

_KEPT_SECONDS = 1.0
_TAKEN_SECONDS = 0.1
_MOST_OWNERS = 10_000
_DEFAULT_BURST_SECONDS = 10.0


@dataclass
class _Purse:
    """What this replica has of an owner's bucket."""

    n_held: int = 0
    held_until: float = 0.0
    refused_until: float = 0.0
    n_left: float = 0.0
    taking: "asyncio.Task[None] | None" = None


class RequestLimit:
    """The limit, as one event loop keeps it.

    Args:
        database: Where the buckets are.
        per_second: How fast they fill.
        burst: How many requests they hold.
    """

    def __init__(self, database: Database, per_second: float, burst: int | None) -> None:
        self._database = database
        self._per_second = per_second
        self._burst = burst or max(1, math.ceil(per_second * _DEFAULT_BURST_SECONDS))
        self._n_taken = max(1, min(self._burst // 4, math.ceil(per_second * _TAKEN_SECONDS)))
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        window = math.ceil(self._burst / per_second)
        self._policy = f'"requests";q={self._burst};w={window}'

    async def take(self, owner: str) -> dict[str, str]:
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
                return self._headers(purse)
            if now < purse.refused_until:
                raise self._refusal(owner, purse, purse.refused_until - now)
            if purse.taking is None:
                purse.taking = asyncio.create_task(self._take_some(owner, purse))
            await asyncio.shield(purse.taking)

    async def _take_some(self, owner: str, purse: _Purse) -> None:
        try:
            grant: Grant = await run_in_threadpool(
                allowances.take, self._database, owner, self._n_taken, self._per_second, self._burst
            )
            now = time.monotonic()
            purse.n_held, purse.held_until, purse.n_left = grant.n_granted, now + _KEPT_SECONDS, grant.n_left
            if grant.n_granted == 0:
                purse.refused_until = now + (1.0 - grant.n_left) / self._per_second
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

    def _headers(self, purse: _Purse) -> dict[str, str]:
        n_left = purse.n_held + math.floor(purse.n_left)
        seconds = math.ceil((self._burst - n_left) / self._per_second)
        return {"RateLimit-Policy": self._policy, "RateLimit": f'"requests";r={n_left};t={seconds}'}

    def _refusal(self, owner: str, purse: _Purse, seconds: float) -> LimitReached:
        refusal = LimitReached(
            "REQUESTS_LIMIT",
            f"{owner} may make {self._per_second:g} requests a second, {self._burst} at once; wait.",
            "requests",
            self._burst,
            max(1, math.ceil(seconds)),
        )
        refusal.headers["RateLimit-Policy"] = self._policy
        return refusal
