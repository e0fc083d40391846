"""Independent tasks on as many threads as torch was given, each of them with one thread of torch's.

Sharing every small operation between threads makes them wait for one another at each; a thread that does a
slice of the points from the beginning to the end waits once. The answers do not depend on how many there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from typing import TypeVar

import torch

from service.mixture.threads import n_threads

Answer = TypeVar("Answer")

_crews: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def run_parallel(task: Callable[[int], Answer], n_tasks: int) -> list[Answer]:
    """task(0), ..., task(n_tasks - 1), in this order, each run once on some thread.

    Args:
        task: releases the interpreter for most of its time, as torch's operations do.
        n_tasks: with one alone, or where there is one thread, all runs here.
    """
    number = min(n_threads(), n_tasks)
    if number == 1:
        return [task(i) for i in range(n_tasks)]
    inference = torch.is_inference_mode_enabled()
    answers: dict[int, Answer] = {}
    numbers = count()

    failed = threading.Event()

    def work() -> None:
        with torch.inference_mode(inference):
            while not failed.is_set() and (i := next(numbers)) < n_tasks:
                try:
                    answers[i] = task(i)
                except BaseException:
                    failed.set()  # nobody would take what the others still did
                    raise

    futures = [_crew(number).submit(work) for _ in range(number)]
    wait(futures)
    for future in futures:
        future.result()
    return [answers[i] for i in range(n_tasks)]


def _crew(number: int) -> ThreadPoolExecutor:
    """So many threads that live as long as the process."""
    with _lock:
        if number not in _crews:
            crew = ThreadPoolExecutor(number, thread_name_prefix="statistics")
            # A thread's own number of torch threads is set from within; setting it also changes what threads
            # made later begin with, so this one's number is set again when all are through.
            started = threading.Barrier(number)
            processors = _one_each(number)
            for ready in [crew.submit(_alone, started, processors) for _ in range(number)]:
                ready.result()
            torch.set_num_threads(torch.get_num_threads())
            _crews[number] = crew
        return _crews[number]


def _one_each(number: int) -> Iterator[int] | None:
    """The processors that this process may use, if they are as many as the threads."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return iter(sorted(allowed)) if len(allowed) == number else None


def _alone(started: threading.Barrier, processors: Iterator[int] | None) -> None:
    torch.get_num_threads()  # its first call takes over the process's number, and would later
    torch.set_num_threads(1)
    if processors is not None:
        # Left to themselves, threads that wake up for some milliseconds may well share one processor.
        os.sched_setaffinity(0, {next(processors)})
    started.wait()


# A child made by fork has none of these threads.
os.register_at_fork(after_in_child=_crews.clear)
