"""The group of a fit on several processes: sums over ranks by torch.distributed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist  # noqa: TID251  this is the one place
from torch import Tensor
from typing_extensions import override

from service.mixture import Group
from service.mixture.arrays import Numbers, like, tensor_of

# How long a rank waits for the others: the slowest of them may have many points, or a disk that is busy.
PATIENCE = timedelta(hours=1)
# Sums of so many fingerprints are exact in float64, of up to 2^13 ranks.
_FINGERPRINT_BITS = 40


@dataclass(frozen=True)
class Seat:
    """A rank's place among those that do a fit together.

    Attributes:
        rank: From 0 on.
        size: How many ranks there are.
        meeting: Where they find each other, as torch's `init_method`: `file:///...` on one machine (nothing
            listens there but gloo or NCCL), `tcp://host:port` on several.
        device: What this rank computes on, by torch's name; sums go between GPUs by NCCL, else by gloo.
    """

    rank: int
    size: int
    meeting: str
    device: str


class RankLost(Exception):
    """Another rank is gone, so that no sum can be had."""


class OutOfStep(Exception):
    """Ranks that should have the same numbers do not."""


@contextmanager
def joined(seat: Seat) -> Iterator[Group]:
    """Yields the group of this rank when all have come.

    Raises:
        RankLost: Some rank did not come.
    """
    cuda = seat.device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(seat.device)
    try:
        with nullcontext() if cuda else _threads_that_wait():
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                init_method=seat.meeting,
                rank=seat.rank,
                world_size=seat.size,
                timeout=PATIENCE,
            )
    except RuntimeError as error:
        raise RankLost(f"rank {seat.rank} of {seat.size} found no group: {error}") from error
    try:
        yield Ranks(seat)
    finally:
        dist.destroy_process_group()


@contextmanager
def _threads_that_wait() -> Iterator[None]:
    """Has threads that are begun meanwhile take the processor from no other by waking up.

    Gloo's thread of the network asks in a loop for a lock of the thread that sends. Where it takes that one's
    processor as soon as something comes in, the lock stays held until the kernel's next tick, for 3 to 4 ms.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    with suppress(OSError):  # a sandbox may forbid it: sums are the same, and slower
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Ranks(Group):
    """All ranks of torch.distributed's default process group."""

    def __init__(self, seat: Seat) -> None:
        self.rank = seat.rank
        self.size = seat.size
        self._device = torch.device(seat.device)

    @override
    def summed(self, *numbers: Numbers, alike: Numbers | None = None) -> tuple[Numbers, ...]:
        parts = [tensor_of(part) for part in numbers]
        check = 0 if alike is None else _fingerprint(tensor_of(alike))
        flat = [part.reshape(-1).to(self._device, torch.float64) for part in parts]
        buffer = torch.cat([*flat, torch.tensor([check], dtype=torch.float64, device=self._device)])
        self._reduce(buffer, dist.ReduceOp.SUM)
        if alike is not None and int(buffer[-1]) != self.size * check:
            raise OutOfStep(
                f"rank {self.rank} of {self.size} has other parameters than the rest; all need the same "
                "software and kind of processor (ATEN_CPU_CAPABILITY=avx2 has torch use what all have)"
            )
        sums, start = [], 0
        for part, given in zip(parts, numbers, strict=True):
            total = buffer[start : start + part.numel()].view(part.shape)
            sums.append(like(given, total.to(part.device, part.dtype)))
            start += part.numel()
        return tuple(sums)

    @override
    def highest(self, numbers: Tensor) -> Tensor:
        buffer = numbers.to(self._device, copy=True)
        self._reduce(buffer, dist.ReduceOp.MAX)
        return buffer.to(numbers.device)

    def _reduce(self, buffer: Tensor, operation: dist.ReduceOp.RedOpType) -> None:
        try:
            dist.all_reduce(buffer, operation)
        except RuntimeError as error:
            raise RankLost(f"rank {self.rank} of {self.size} has lost another: {error}") from error


def _fingerprint(numbers: Tensor) -> int:
    """A whole number that float64 numbers with other bits would hardly have."""
    return int(numbers.contiguous().view(torch.int64).sum()) & ((1 << _FINGERPRINT_BITS) - 1)
