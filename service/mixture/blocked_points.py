"""Points that stay where they lie, such as a mapped file of batches, and are looked at part by part."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from service.mixture.blocks import Blocks


@dataclass(frozen=True, eq=False)
class BlockedPoints:
    """Points (D, N) that stay in their blocks.

    Attributes:
        blocks: where they lie.
        kept: (N',) int64, the points that count, in their order; None when all of them do.
        shift: (D, 1) float64, taken off every point on its way out, or None.
        scale: (D, 1) float64, what is left is then divided by, or None.
        dtype: in which points come out.
    """

    blocks: Blocks
    kept: Tensor | None = None
    shift: Tensor | None = None
    scale: Tensor | None = None
    dtype: torch.dtype = torch.float64
    _buffers: threading.local = field(default_factory=threading.local, init=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(D, N)."""
        n_samples = int(self.blocks.starts[-1]) if self.kept is None else self.kept.shape[0]
        return self.blocks.n_features, n_samples

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def element_size(self) -> int:
        """Bytes of a number as it comes out."""
        return self.dtype.itemsize

    def new_empty(self, *shape: int) -> Tensor:
        """A tensor like the points that come out."""
        return torch.empty(*shape, dtype=self.dtype)

    def only(self, kept: Tensor) -> BlockedPoints:
        """These points (m,) int64 alone, still where they lie."""
        return replace(self, kept=kept if self.kept is None else self.kept[kept])

    def standardized(self, shift: Tensor, scale: Tensor, dtype: torch.dtype) -> BlockedPoints:
        """(x - shift) / scale in this dtype, worked out each time a part is looked at."""
        return replace(self, shift=shift[:, None], scale=scale[:, None], dtype=dtype)

    def __getitem__(self, place: tuple[slice, slice | Tensor]) -> Tensor:
        """A copy (D, n) of some points; only all features at once: ``points[:, start:stop]``.

        That of a run is good until the same thread looks at the next one: a buffer of its own for each would,
        in the end, leave the heap with as many holes as there are points.
        """
        _, columns = place
        if isinstance(columns, Tensor):
            return self.index_select(1, columns)
        start, stop, _ = columns.indices(self.shape[1])
        if self.kept is not None:
            return self._gathered(self.kept[start:stop])
        return self._run(start, max(start, stop))

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """A copy (D, n) of the points (n,) int64; the dimension is 1."""
        assert dim == 1  # noqa: S101 - features are not chosen from
        return self._gathered(index if self.kept is None else self.kept[index])

    def _run(self, start: int, stop: int) -> Tensor:
        out = self._buffer(stop - start, torch.float64)
        starts = self.blocks.starts
        block = int(torch.searchsorted(starts, start, right=True)) - 1
        at = start
        while at < stop:
            first, last = int(starts[block]), int(starts[block + 1])
            size = min(stop, last) - at
            part = self.blocks.part(block, at - first, size)
            target = out[:, at - start : at - start + size]
            if self.shift is None:
                target.copy_(part)
            else:
                torch.sub(part, self.shift, out=target)
            at += size
            block += 1
        if self.scale is not None:
            out.div_(self.scale)
        return out if self.dtype == torch.float64 else self._buffer(stop - start, self.dtype).copy_(out)

    def _buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        n_numbers = self.blocks.n_features * size
        buffers: dict[Any, Tensor] = self._buffers.__dict__
        buffer = buffers.get(dtype)
        if buffer is None or buffer.numel() < n_numbers:
            buffer = buffers[dtype] = torch.empty(n_numbers, dtype=dtype)
        return buffer[:n_numbers].view(self.blocks.n_features, size)

    def _gathered(self, index: Tensor) -> Tensor:
        out = self.blocks.gathered(index)
        if self.shift is not None and self.scale is not None:
            out = out.sub_(self.shift).div_(self.scale)
        return out.to(self.dtype)


Points: TypeAlias = Tensor | BlockedPoints
"""Points (D, N), in memory or where they lie."""

BLOCK_NUMBERS = 1 << 20
"""What is looked at in one go where all points are gone through once, small beside them."""


def blocks_of(points: Points) -> Iterator[slice]:
    """Columns of points (D, N) in blocks that keep temporary copies small beside the points."""
    n_features, n_samples = points.shape
    size = max(1, BLOCK_NUMBERS // n_features)
    for start in range(0, n_samples, size):
        yield slice(start, start + size)


def extremes(points: Points) -> tuple[Tensor, Tensor]:
    """The lowest and highest of each feature, (D,) each; NaN where there is one; infinite without points."""
    if points.shape[1] == 0:
        none = points.new_empty(points.shape[0]).fill_(torch.inf)
        return none, -none
    if isinstance(points, Tensor):
        return points.amin(1), points.amax(1)  # in a fifth of the time of torch.aminmax
    parts = [extremes(points[:, columns]) for columns in blocks_of(points)]
    lowest, highest = (torch.stack(each) for each in zip(*parts, strict=True))
    return lowest.amin(0), highest.amax(0)


def only(points: Points, kept: Tensor) -> Points:
    """These points (m,) int64 alone: a copy of those in memory, the others where they lie."""
    return points.only(kept) if isinstance(points, BlockedPoints) else points[:, kept]


def in_memory(points: Points) -> Tensor:
    """All points, (D, N)."""
    return points[:, :].clone() if isinstance(points, BlockedPoints) else points
