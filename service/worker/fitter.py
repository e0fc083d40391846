"""The process that does the fitting: it has the device, and no database.

Its supervisor may kill it at any moment; it ends by itself when its supervisor is gone.
"""

import logging
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

import torch

from service.mixture import Progress, Traces
from service.storage.checkpoints import PART_BYTES
from service.storage.dataset_store import DatasetStore, StorePlace
from service.worker import device, fitting
from service.worker.messages import (
    Asked,
    Checkpointed,
    Ended,
    Failed,
    Finished,
    Progressed,
    Ready,
    Refused,
    Start,
    Stop,
    Succeeded,
)

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.25


def main(connection: Connection, wanted_device: str, store_place: StorePlace) -> None:
    """Does one fit after another as they come through the connection."""
    # Ctrl-C reaches the whole terminal, SIGTERM often a whole group; the supervisor decides.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        found = device.detect(wanted_device)
    except ValueError as error:
        connection.send(Refused(str(error)))
        return
    store = DatasetStore(*store_place)
    inbox = _Inbox(connection)
    connection.send(Ready(found))
    while True:
        start = inbox.starts.get()
        connection.send(_fit(start, store, found.device, connection, inbox))


class _Inbox:
    """Reads what the supervisor says while the main thread computes."""

    def __init__(self, connection: Connection) -> None:
        self.starts: queue.SimpleQueue[Start] = queue.SimpleQueue()
        self.told_to_stop: Asked | None = None
        self._connection = connection
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # the supervisor is gone: nobody could use what is being computed
            if isinstance(message, Stop):
                self.told_to_stop = message.outcome
            else:
                self.told_to_stop = None
                self.starts.put(message)


class _Reporter:
    """Tells the supervisor how a fit comes on, now and then, and remembers the last of it."""

    def __init__(self, connection: Connection, inbox: _Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._begun = self._last_told = time.monotonic()
        self._last: Progress | None = None
        self._traces = Traces()

    def watch(self, progress: Progress) -> Asked | None:
        """Answers with the outcome that the supervisor wants, if it wants the fit to end."""
        self._last = progress
        self._traces.add(progress)
        now = time.monotonic()
        if now - self._last_told >= _PROGRESS_SECONDS:
            self._last_told = now
            told = as_contract(progress, now - self._begun)
            self._connection.send(Progressed(told | {"traces": self._traces.take()}))
        return self._inbox.told_to_stop

    def ask(self) -> Asked | None:
        """Answers as `watch` does, where there is no progress to tell of."""
        return self._inbox.told_to_stop

    def keep(self, state: bytes) -> None:
        """Hands over a state to go on from, part by part: its supervisor has other things to do meanwhile."""
        starts = range(0, max(len(state), 1), PART_BYTES)
        for part, start in enumerate(starts):
            data = state[start : start + PART_BYTES]
            self._connection.send(Checkpointed(part, data, last=part == len(starts) - 1))

    def final(self, ended: Ended) -> dict[str, Any] | None:
        """Returns the last progress; that of a success is complete."""
        if self._last is None:
            return None
        progress = as_contract(self._last, time.monotonic() - self._begun)
        if isinstance(ended, Succeeded):
            progress["restarts_done"] = progress["n_init"]
            progress["log_likelihood"] = ended.result["log_likelihood"]
            progress["remaining_seconds"] = 0.0
        return progress | {"traces": self._traces.take(last=True)}


def _fit(
    start: Start, store: DatasetStore, device_name: str, connection: Connection, inbox: _Inbox
) -> Finished:
    reporter = _Reporter(connection, inbox)
    ended = _ended(start, store, device_name, reporter)
    return Finished(ended, reporter.final(ended))


def _ended(start: Start, store: DatasetStore, device_name: str, reporter: _Reporter) -> Ended:
    try:
        return fitting.run(start, store, device_name, reporter.watch, reporter.keep, reporter.ask)
    except Exception as error:
        if isinstance(error, torch.AcceleratorError) or "CUDA" in str(error):
            raise  # the device's state is unknown: end the process, and let another try
        return _internal(start, error)  # whatever it is, the fit must end and say so


def _internal(start: Start, error: Exception) -> Failed:
    logger.exception("fit %s failed", start.claim.fit_id, exc_info=error)
    return Failed(
        "INTERNAL", f"The fit failed inside the service ({type(error).__name__}); its log has the details."
    )


def as_contract(progress: Progress, elapsed_seconds: float) -> dict[str, Any]:
    """Returns progress with the fields that a client reads."""
    # Restarts that run have done the same share of their steps; later candidates' have not begun.
    running = len(progress.restart_log_likelihoods) * progress.step / max(progress.max_steps, 1)
    done = min(1.0, (progress.restarts_done + running) / max(progress.n_init, 1))
    return {
        "step": progress.step,
        "max_steps": progress.max_steps,
        "restarts_done": progress.restarts_done,
        "n_init": progress.n_init,
        "log_likelihood": progress.log_likelihood,
        "elapsed_seconds": round(elapsed_seconds, 3),
        "remaining_seconds": round(elapsed_seconds * (1 / done - 1), 3) if done > 0 else None,
    }
