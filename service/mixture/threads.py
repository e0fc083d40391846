"""How many threads torch's own operations take: one, but for large products.

A pass over many points is shared out among threads as a whole (``parallel``). What is left beside it are
operations on parameters, and woken for those torch's other threads cost more than they bring: two of them,
where they sleep between, invert factors of 32 x 32 in twenty times the time of one, and take eigenvalues of
128 x 128 in ten times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiplications of a product below which a single thread is the quickest.
PARALLEL_WORK = 10_000_000

_given = threading.local()


def n_threads() -> int:
    """How many threads this thread's work may be shared out among, whatever torch's operations have now."""
    number: int = getattr(_given, "n_threads", 0) or torch.get_num_threads()
    return number


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Has torch's operations in the body, called by this thread, take one thread, or for much work all.

    Args:
        work: multiplications of each.
    """
    before, outer = torch.get_num_threads(), getattr(_given, "n_threads", 0)
    _given.n_threads = n_threads()
    torch.set_num_threads(_given.n_threads if work >= PARALLEL_WORK else 1)
    try:
        yield
    finally:
        _given.n_threads = outer
        torch.set_num_threads(before)
