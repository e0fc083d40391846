"""What a process that fits tells whoever started it, of progress and of the end; and what it hears."""

import logging
import os
import queue
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from service.mixture import ALONE, Group, Progress, Traces
from service.storage.checkpoints import PART_BYTES
from service.storage.dataset_store import DatasetStore
from service.worker import fitting
from service.worker.messages import (
    Asked,
    Checkpointed,
    Ended,
    Failed,
    Finished,
    Progressed,
    Start,
    Stop,
    Succeeded,
)
from service.worker.ranks import OutOfStep, RankLost

logger = logging.getLogger(__name__)
_PROGRESS_SECONDS = 0.25


class Inbox:
    """Reads what is said to this process while its main thread computes; ends it when nobody is there."""

    def __init__(self, connection: Connection) -> None:
        self.starts: queue.SimpleQueue[Start] = queue.SimpleQueue()
        self.told_to_stop: Asked | None = None
        self._connection = connection
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def wait_for_end(self, seconds: float | None = None) -> None:
        """Waits for the process to be ended, for so long; a fit that comes meanwhile is not begun."""
        with suppress(queue.Empty):
            while True:
                self.starts.get(timeout=seconds)

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)  # whoever started it is gone: nobody could use what is being computed
            if isinstance(message, Stop):
                self.told_to_stop = message.outcome
            else:
                self.told_to_stop = None
                self.starts.put(message)


class Reporter:
    """Tells how a fit comes on, now and then, and remembers the last of it."""

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._begun = self._last_told = time.monotonic()
        self._last: Progress | None = None
        self._traces = Traces()

    def watch(self, progress: Progress) -> Asked | None:
        """Answers with the outcome that is wanted, if the fit is to end."""
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
        """Hands over a state to go on from, part by part: who takes it has other things to do meanwhile."""
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


def finished(
    start: Start, store: DatasetStore, device: str, reporter: Reporter, group: Group = ALONE
) -> Finished:
    """Returns how a fit ended, done in this process by one rank of a group.

    Raises:
        RankLost: Another rank is gone.
        OutOfStep: Ranks do not have the same numbers.
        Exception: Whatever leaves the device in an unknown state: end the process, and let another try.
    """
    try:
        ended = fitting.run(start, store, device, reporter.watch, reporter.keep, reporter.ask, group)
    except (RankLost, OutOfStep):
        raise
    except Exception as error:
        if isinstance(error, torch.AcceleratorError) or "CUDA" in str(error):
            raise
        ended = _internal(start, error)  # whatever it is, the fit must end and say so
    return Finished(ended, reporter.final(ended))


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
