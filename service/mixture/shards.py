"""One fit on several ranks: each holds a run of the points, and sums are taken over all of them.

Every rank does the same steps on the same numbers: random ones come from the same seeds, and whatever decides
how a fit goes on is a sum over all ranks or follows from such sums. One rank alone is a group, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from service.mixture.arrays import Numbers
from service.mixture.blocked_points import Points

Answer = TypeVar("Answer", bound=str)


class Group(ABC):
    """The ranks that do a fit together. All of them call the same methods in the same order.

    Attributes:
        rank: of this process, from 0 on.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @abstractmethod
    def summed(self, *numbers: Numbers, alike: Numbers | None = None) -> tuple[Numbers, ...]:
        """The sums over all ranks, on each of them, in one exchange; of the kind, shape and dtype given.

        Args:
            numbers: of the same shapes on all ranks; sums are taken in float64. They may be overwritten.
            alike: float64 that has to be the same on all ranks, to the last bit, or the sum makes no sense.

        Ranks out of step, or the loss of one, are told by exceptions of the group's own, which a fit lets
        pass: there is no more to be done.
        """

    @abstractmethod
    def highest(self, numbers: Tensor) -> Tensor:
        """The largest over all ranks of each number, float64 on the CPU."""

    def first_says(self, answer: Answer | None, among: Sequence[Answer]) -> Answer | None:
        """What rank 0 answers, on every rank: one of these, or None."""
        code = among.index(answer) + 1 if answer is not None and self.rank == 0 else 0
        said = int(self.summed(torch.tensor([code], dtype=torch.float64))[0])
        return among[said - 1] if said else None


class Alone(Group):
    """The only rank of a fit."""

    @override
    def summed(self, *numbers: Numbers, alike: Numbers | None = None) -> tuple[Numbers, ...]:
        return numbers

    @override
    def highest(self, numbers: Tensor) -> Tensor:
        return numbers


ALONE = Alone()


@dataclass(frozen=True)
class Shards:
    """Where the points of a fit are: each rank holds a run of them, the next rank the run behind it.

    Attributes:
        group: the ranks.
        starts: the number of each rank's first point, then how many there are in all.
    """

    group: Group
    starts: tuple[int, ...]

    @classmethod
    def of(cls, group: Group, n_own: int) -> Shards:
        """The shards of a group in which this rank holds so many points."""
        counts = torch.zeros(group.size, dtype=torch.float64)
        counts[group.rank] = n_own
        counts = group.summed(counts)[0]
        return cls(group, (0, *counts.cumsum(0).long().tolist()))

    @property
    def n_samples(self) -> int:
        """N, on all ranks together."""
        return self.starts[-1]

    @property
    def first(self) -> int:
        """The number of this rank's first point."""
        return self.starts[self.group.rank]

    def holds(self, index: Tensor) -> Tensor:
        """Which of these points this rank holds, as booleans."""
        return (index >= self.first) & (index < self.starts[self.group.rank + 1])

    def own(self, index: Tensor) -> Tensor:
        """Where those of these points (n,) int64 that this rank holds are in it, in their order."""
        return index[self.holds(index)] - self.first

    def own_of_each(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Of several sets of points (R, n) int64 those that this rank holds, (R, m), by their place in it.

        Beside them, which count (R, m), for the sets' numbers differ and one set's places are filled up with
        others; None where all do.
        """
        held = self.holds(index)
        if bool(held.all()):
            return index - self.first, None
        order = torch.argsort(held.byte(), dim=1, descending=True, stable=True)
        order = order[:, : int(held.sum(1).max())]
        counted = held.gather(1, order)
        return (index.gather(1, order) - self.first) * counted, counted

    def brought_together(self, points: Points, index: Tensor) -> Tensor:
        """The points (D, n) with these numbers (n,) int64, on every rank, on the device of its own."""
        held = self.holds(index)
        own = points[:, (index[held] - self.first).to(points.device)]
        whole = own.new_zeros(own.shape[0], index.shape[0])
        whole[:, held.to(points.device)] = own
        together: Tensor = self.group.summed(whole)[0]
        return together

    def drawn(self, weights: Tensor, uniform: Tensor) -> Tensor:
        """The points (m,) int64 that uniform numbers (m,) pick by weight, of which this rank has (n,)."""
        cumulative, total = self._cumulative(weights)
        goals = (uniform * total).clamp_(max=torch.nextafter(total, torch.zeros_like(total)))
        place = torch.searchsorted(cumulative[1:], goals, right=True) + self.first
        mine = (goals >= cumulative[0]) & (goals < cumulative[-1])
        return self.group.summed((place * mine).double())[0].long()  # type: ignore[no-any-return]

    def _cumulative(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (n + 1,) of all weights before each own point and after the last, and the sum of all.

        They are added one after another, rank after rank: to the last bit the sums that a single rank has,
        for a draw between two points must not depend on how many ranks there are.
        """
        before = torch.zeros(1, dtype=torch.float64)
        cumulative = before
        for rank in range(self.group.size):
            end = torch.zeros(1, dtype=torch.float64)
            if rank == self.group.rank:
                cumulative = torch.cat([before, weights]).cumsum(0)
                end = cumulative[-1:].clone()
            before = self.group.summed(end)[0]
        return cumulative, before
