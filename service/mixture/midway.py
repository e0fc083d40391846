"""What has been done of a pass over the points, so that a checkpoint can be taken in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from service.mixture.journal import Entry, note, tensor_on, told
from service.mixture.parallel import run_parallel

Sums = tuple[Tensor, Tensor]

_PREFIX = "midway:"
_THETA, _KEY = f"{_PREFIX}theta", f"{_PREFIX}key"


class Midway:
    """The sums over those slices of the points that a pass has been through, kept until its step has ended.

    They are known again by the coefficients that they were taken with, whatever pass of whatever step asks.
    """

    def __init__(self) -> None:
        self._theta: Tensor | None = None
        self._key: list[int] = []
        self._done: dict[int, Sums] = {}
        self._offer: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def offering(self, offer: Callable[[], None]) -> Iterator[None]:
        """Within, sums are kept and ``offer`` is called whenever there are more; then they are let go."""
        self._offer = offer
        try:
            yield
        finally:
            self._offer, self._theta = None, None
            self._done = {}

    def entry(self) -> Entry:
        """What a checkpoint keeps of them."""
        if self._theta is None or not self._done:
            return {}
        entry: Entry = {_THETA: self._theta, _KEY: note([self._key, list(self._done)])}
        for place, (log_totals, sums) in self._done.items():
            entry |= {f"{_PREFIX}{place}:log_totals": log_totals, f"{_PREFIX}{place}:sums": sums}
        return entry

    def resume(self, entry: Mapping[str, Any], device: torch.device) -> None:
        """Takes back what ``entry`` gave to a checkpoint, if it did."""
        if _THETA not in entry:
            return
        self._theta = tensor_on(entry[_THETA], device)
        self._key, places = told(entry[_KEY])
        for place in places:
            parts = (entry[f"{_PREFIX}{place}:{name}"] for name in ("log_totals", "sums"))
            log_totals, sums = (tensor_on(part, device) for part in parts)
            self._done[place] = log_totals, sums

    def each(self, task: Callable[[int], Sums], n_tasks: int, theta: Tensor, key: list[int]) -> list[Sums]:
        """task(0), ..., task(n_tasks - 1), those that are known from before left out; nobody may change them.

        Args:
            task: takes the sums over one slice.
            n_tasks: how many there are.
            theta: the coefficients that they are taken with.
            key: what else they depend on: how many points there are, and how they are cut.
        """
        offer = self._offer
        if offer is None:
            return run_parallel(task, n_tasks)
        if self._theta is None or self._key != key or not torch.equal(self._theta, theta):
            self._theta, self._key, self._done = theta, key, {}

        def kept(place: int) -> Sums:
            if place not in self._done:
                sums = task(place)
                with self._lock:
                    self._done[place] = sums
                    offer()
            return self._done[place]

        return run_parallel(kept, n_tasks)
