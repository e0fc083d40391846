"""Where points lie that are not held in memory as a whole: in a mapped file, or with whoever fetches them."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Blocks(Protocol):
    """Points (D, N) float64 on the CPU, cut into blocks of neighbours.

    Attributes:
        n_features: D.
        starts: (B + 1,) int64, the number of each block's first point, then N.
    """

    @property
    def n_features(self) -> int:
        """D."""

    @property
    def starts(self) -> Tensor:
        """(B + 1,) int64."""

    def part(self, block: int, first: int, size: int) -> Tensor:
        """Points (D, size) of a block from its point `first` on, where they lie; not to be written to."""

    def gathered(self, index: Tensor) -> Tensor:
        """A copy (D, n) of the points (n,) int64."""


@dataclass(frozen=True, eq=False)
class MappedBlocks:
    """Blocks in each of which every feature's numbers lie side by side.

    Number d of point n, in block b with starts[b] <= n < starts[b + 1], is
    ``numbers[offsets[b] + d * strides[b] + n - starts[b]]``.

    Attributes:
        n_features: D.
        numbers: (M,) float64 on the CPU, all that lies there, also what is between the blocks.
        starts: (B + 1,) int64.
        offsets: (B,) int64.
        strides: (B,) int64.
    """

    n_features: int
    numbers: Tensor
    starts: Tensor
    offsets: Tensor
    strides: Tensor

    def part(self, block: int, first: int, size: int) -> Tensor:
        """Points (D, size) of a block from its point `first` on, where they lie."""
        return self.numbers.as_strided(
            (self.n_features, size), (int(self.strides[block]), 1), int(self.offsets[block]) + first
        )

    def gathered(self, index: Tensor) -> Tensor:
        """A copy (D, n) of the points (n,) int64."""
        block = torch.searchsorted(self.starts, index, right=True) - 1
        place = self.offsets[block] + index - self.starts[block]
        every = torch.arange(self.n_features).unsqueeze(1)
        return self.numbers[place + every * self.strides[block]]


class FetchedBlocks:
    """Blocks that come from elsewhere, as a whole each time, of which some are kept.

    Points are gone through in order, again and again. To keep the latest would be to keep those that are not
    needed for the longest; so the first to come are kept, for good, and the others are fetched once a pass.
    Beside what is kept every thread holds the one block that it looks at.

    Args:
        n_features: D.
        starts: (B + 1,) int64, the number of each block's first point, then N.
        fetch: A block (D, n) float64 by its number; called by several threads.
        kept_bytes: How much is kept at most.
    """

    def __init__(
        self, n_features: int, starts: Tensor, fetch: Callable[[int], Tensor], kept_bytes: int
    ) -> None:
        self.n_features = n_features
        self.starts = starts
        self._fetch = fetch
        self._room = kept_bytes
        self._kept: dict[int, Tensor] = {}
        self._in_use: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self._fetching: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._own = threading.local()

    def part(self, block: int, first: int, size: int) -> Tensor:
        """Points (D, size) of a block from its point `first` on."""
        return self._whole(block)[:, first : first + size]

    def gathered(self, index: Tensor) -> Tensor:
        """A copy (D, n) of the points (n,) int64; each block that has some of them is looked at once."""
        out = torch.empty(self.n_features, index.shape[0], dtype=torch.float64)
        block = torch.searchsorted(self.starts, index, right=True) - 1
        order = block.argsort(stable=True)
        blocks, sizes = torch.unique_consecutive(block[order], return_counts=True)
        for number, places in zip(blocks.tolist(), torch.split(order, sizes.tolist()), strict=True):
            out[:, places] = self._whole(number)[:, index[places] - self.starts[number]]
        return out

    def _whole(self, number: int) -> Tensor:
        held: tuple[int, Tensor] | None = getattr(self._own, "block", None)
        if held is not None and held[0] == number:
            return held[1]
        self._own.block = held = None  # before another is fetched, for it takes as much room
        with self._lock:
            fetching = self._fetching[number]
        with fetching:
            block = self._kept.get(number)
            if block is None:
                block = self._in_use.get(number)
            if block is None:
                block = self._in_use[number] = self._fetch(number)
                self._keep(number, block)
        self._own.block = number, block
        return block

    def _keep(self, number: int, block: Tensor) -> None:
        size = block.numel() * block.element_size()
        with self._lock:
            if size <= self._room:
                self._room -= size
                self._kept[number] = block
