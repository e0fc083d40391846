"""What has been done of a pass over the points, so that a checkpoint can be taken in the middle of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from service.mixture.journal import Entry, note, tensor_on, told
from service.mixture.parallel import run_parallel

Sums = tuple[Tensor, Tensor]

# The points are cut into so many slices at most, each with sums of its own of so many bytes together.
SLICES, SLICED_SUMS_BYTES = 16, 16 << 20

_PREFIX = "midway:"


@dataclass(eq=False)
class _Done:
    """The sums of one way to take them: with which coefficients, over what, and those over each slice."""

    theta: Tensor
    key: list[int]
    sums: dict[int, Sums] = field(default_factory=dict)

    def is_of(self, theta: Tensor, key: list[int]) -> bool:
        return self.key == key and torch.equal(self.theta, theta)


class Midway:
    """The sums over those slices of the points that a pass has been through, kept until its step has ended.

    They are known again by the coefficients that they were taken with, whatever pass of whatever step asks.
    """

    def __init__(self) -> None:
        self._done: dict[str, _Done] = {}
        self._offer: Callable[[], None] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def offering(self, offer: Callable[[], None]) -> Iterator[None]:
        """Within, sums are kept and ``offer`` is called whenever there are more; then they are let go."""
        self._offer = offer
        try:
            yield
        finally:
            self._offer = None
            self._done = {}

    def entry(self) -> Entry:
        """What a checkpoint keeps of them."""
        entry: Entry = {}
        for way, done in self._done.items():
            if not done.sums:
                continue
            prefix = f"{_PREFIX}{way}:"
            entry |= {f"{prefix}theta": done.theta, f"{prefix}key": note([done.key, list(done.sums)])}
            for place, (log_totals, sums) in done.sums.items():
                entry |= {f"{prefix}{place}:log_totals": log_totals, f"{prefix}{place}:sums": sums}
        return entry

    def resume(self, entry: Mapping[str, Any], device: torch.device) -> None:
        """Takes back what ``entry`` gave to a checkpoint, if it did."""
        for name in entry:
            if not (name.startswith(_PREFIX) and name.endswith(":theta")):
                continue
            prefix = name.removesuffix("theta")
            key, places = told(entry[f"{prefix}key"])
            done = _Done(tensor_on(entry[name], device), key)
            for place in places:
                parts = (entry[f"{prefix}{place}:{part}"] for part in ("log_totals", "sums"))
                log_totals, sums = (tensor_on(part, device) for part in parts)
                done.sums[place] = log_totals, sums
            self._done[prefix.removeprefix(_PREFIX).removesuffix(":")] = done

    def each(
        self,
        way: str,
        task: Callable[[int], Sums],
        n_tasks: int,
        theta: Tensor,
        key: list[int],
        in_turn: bool = False,
    ) -> list[Sums]:
        """task(0), ..., task(n_tasks - 1), those that are known from before left out; nobody may change them.

        Args:
            way: of taking sums; of each, those of one pass are kept.
            task: takes the sums over one slice.
            n_tasks: how many there are.
            theta: the coefficients that they are taken with.
            key: what else they depend on: how many points there are, and how they are cut.
            in_turn: one after the other, where threads would only wait for the same device.
        """
        offer = self._offer
        if offer is None:
            return _all_of(task, n_tasks, in_turn)
        done = self._done.get(way)
        if done is None or not done.is_of(theta, key):
            done = self._done[way] = _Done(theta, key)
        known = done.sums

        def kept(place: int) -> Sums:
            if place not in known:
                sums = task(place)
                with self._lock:
                    known[place] = sums
                    offer()
            return known[place]

        return _all_of(kept, n_tasks, in_turn)


def slices_of(n_samples: int, width: int, sums_bytes: int) -> list[range]:
    """The points cut into slices, as the first points of their chunks.

    They follow from these numbers alone, so that sums do not depend on the number of threads.

    Args:
        n_samples: N; of none at all there is one slice, without chunks.
        width: how many points a chunk has.
        sums_bytes: what the sums over a slice take.
    """
    chunks = range(0, n_samples, width)
    n = max(1, min(len(chunks), SLICES, SLICED_SUMS_BYTES // sums_bytes))
    return [chunks[i * len(chunks) // n : (i + 1) * len(chunks) // n] for i in range(n)]


def _all_of(task: Callable[[int], Sums], n_tasks: int, in_turn: bool) -> list[Sums]:
    return [task(place) for place in range(n_tasks)] if in_turn else run_parallel(task, n_tasks)


def added(parts: list[Sums]) -> Sums:
    """The sums over all slices, added one by one: the order of a reduction would be the library's choice."""
    log_totals, sums = (part.clone() for part in parts[0])
    for more_log_totals, more_sums in parts[1:]:
        log_totals += more_log_totals
        sums += more_sums
    return log_totals, sums
