"""Questions of many points, and many samples: computed by a few threads, part by part.

A request is read by a thread that may wait for its client; what has come is computed by the threads of the
pool, which all requests share. Each thread has one of torch's, so that they are as many as the setting says.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from service.api.reader_threads import ReaderThreads
from service.mixture import GaussianMixture

Question = Callable[[GaussianMixture, Tensor], Mapping[str, Tensor]]
"""What is answered about points (n, D): arrays of n rows by their names."""

Value = TypeVar("Value")

# So many numbers, (points in a part) * K * D, stay in a core's cache, and take it a few milliseconds.
_PART_NUMBERS = 1 << 18
# So many numbers are drawn at a time: handing them to the event loop and to the network then costs little.
_DRAWN_NUMBERS = 1 << 17
_MOST_READERS = 32


class Scoring:
    """The threads of one process.

    Args:
        n_threads: How many compute at a time; as many as there are cores unless given.
    """

    def __init__(self, n_threads: int | None) -> None:
        self.n_threads = n_threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(
            self.n_threads, "scoring", initializer=torch.set_num_threads, initargs=(1,)
        )
        # So many large requests may be under way; others wait, their bodies unread.
        self.readers = ReaderThreads(_MOST_READERS)

    def answers(
        self, question: Question, mixture: GaussianMixture, chunks: Iterator[Tensor]
    ) -> Iterator[list[Tensor]]:
        """Yields the answers about points (n, D), in their order, some points at a time."""
        n_rows = max(1, _PART_NUMBERS // mixture.means.numel())
        parts = (part for chunk in chunks for part in chunk.tensor_split(-(-len(chunk) // n_rows)))

        def about(points: Tensor) -> list[Tensor]:
            return list(question(mixture, points).values())

        return self._in_order(about, parts)

    def samples(self, mixture: GaussianMixture, n_samples: int, seed: int) -> Iterator[list[Tensor]]:
        """Yields points (n, D) and their components (n,), in the order that the seed gives them."""
        block_rows = mixture.sample_block_rows
        n_rows = block_rows * max(1, _DRAWN_NUMBERS // (block_rows * mixture.n_features))

        def some(start: int) -> list[Tensor]:
            size = min(n_rows, n_samples - start)
            return list(mixture.sample_from_block(seed, start // block_rows, size))

        return self._in_order(some, iter(range(0, n_samples, n_rows)))

    def close(self) -> None:
        """Ends the threads; what waits for them is not computed any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _in_order(
        self, compute: Callable[[Value], list[Tensor]], parts: Iterator[Value]
    ) -> Iterator[list[Tensor]]:
        """Yields what comes of each part; few are under way, or those for a slow client would fill memory."""
        under_way: deque[Future[list[Tensor]]] = deque()
        try:
            for part in islice(parts, 2 * self.n_threads):
                under_way.append(self._pool.submit(compute, part))
            while under_way:
                answer = under_way.popleft().result()
                for part in islice(parts, 1):
                    under_way.append(self._pool.submit(compute, part))
                yield answer
        finally:
            for future in under_way:
                future.cancel()
