"""One thread for small work: waking a second one costs more than it brings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Multiplications in one pass below which a single thread is the quickest.
PARALLEL_WORK = 10_000_000

_lock = threading.Lock()
_depth = 0
_before = 1


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Runs the body with torch's threads, or with one when a pass has less than PARALLEL_WORK.

    The number of threads belongs to the process, so nested and concurrent bodies share one count and the last
    to leave restores it.
    """
    global _depth, _before
    if work >= PARALLEL_WORK:
        yield
        return
    with _lock:
        if _depth == 0:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                torch.set_num_threads(_before)
