"""Whose turn it is to write to an SQLite file, among the threads and processes of one machine."""

import fcntl
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_LONGEST_PAUSE_SECONDS = 0.002


class Turns:
    """Lets writers have their turns one after another, and none have two while another waits.

    SQLite has those who wait for its lock ask again ever more seldom, up to every tenth of a second, so that
    one who writes again and again keeps others out for seconds. Here the one who waits first holds the second
    of two locked files: whoever wants another turn has to wait for that. Both locks end with their process.

    Args:
        path: The SQLite file, which gets two empty files beside it; None for a database in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._within = threading.Lock()
        self._files = [] if path is None else [Path(f"{path}.next"), Path(f"{path}.turn")]

    @contextmanager
    def taken(self, timeout_seconds: float) -> Iterator[None]:
        """Yields when it is the caller's turn.

        Raises:
            TimeoutError: Others did not end theirs in time.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._within.acquire(timeout=timeout_seconds):
            raise TimeoutError
        with ExitStack() as held:
            held.callback(self._within.release)
            if self._files:
                waiting, turn = (_opened(path, held) for path in self._files)
                _lock(waiting, deadline)
                _lock(turn, deadline)
                fcntl.flock(waiting, fcntl.LOCK_UN)
            yield


def _opened(path: Path, held: ExitStack) -> int:
    """Returns a descriptor whose lock ends with it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    held.callback(os.close, descriptor)
    return descriptor


def _lock(descriptor: int, deadline: float) -> None:
    """Locks a file; asked for again and again, since a wait in the kernel could not be given up."""
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
        time.sleep(random.uniform(0.0, _LONGEST_PAUSE_SECONDS))  # noqa: S311 - no secret
